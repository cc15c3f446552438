// The tree of a recurrent drafter's likeliest continuations, as one function on the CPU (recurrent_drafter.py has it in
// PyTorch). Its products are so small that PyTorch's calls around them would take longer than they do.

#include "products.h"

// Weights in tiles, but for the embedding (num_ids, hidden), whose lines are read one by one; the bias has the tiles'
// rows.
struct Drafter {
    int32_t hidden, inner, num_ids;
    Weight inner_weight, outer_weight, lm_head;
    const void* embedding;
    const float* inner_bias;
};

// From the state (hidden) and the column of the token that it made: of each depth the `beam` likeliest paths go on,
// each by its `width` likeliest tokens, while a path's log-probability is at least `least`. Node i of the tree is
// the token of columns[i] after node parents[i], log_probs[i] that of the path to it.
struct Search {
    int32_t depth, beam, width, column, threads;
    float least;
    const void* state;
    int32_t *columns, *parents;
    float* log_probs;
};

namespace {

// The places of the `count` largest of n logits, the largest first, and their log-probabilities.
void most_likely(const float* logits, int n, int count, int* places, float* log_probs) {
    int found = 0;
    for (int i = 0; i < n; i++) {
        if (found == count && !(logits[i] > log_probs[count - 1])) continue;
        int at = found < count ? found++ : count - 1;
        for (; at > 0 && logits[i] > log_probs[at - 1]; at--)
            places[at] = places[at - 1], log_probs[at] = log_probs[at - 1];
        places[at] = i, log_probs[at] = logits[i];
    }
    const vec lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vec total = {};
    for (int i = 0; i < n; i += LANES)
        total += lane < (float)(n - i) ? exponential(load(logits + i) - log_probs[0]) : vec{};
    const float all_of_them = log_probs[0] + std::log(sum(total));
    for (int i = 0; i < count; i++) log_probs[i] -= all_of_them;
}

template <class Unit> int search(const Drafter& d, const Search& s) {
    constexpr int PER = IN_UNIT<Unit>;
    const int hidden = d.hidden, units = hidden / PER, inner_units = d.inner / PER;
    const int wide = padded(hidden, ROWS), inner = padded(d.inner, ROWS), ids = padded(d.num_ids, ROWS);
    std::vector<float> states(s.beam * wide), next(s.beam * wide), inners(s.beam * inner), logits(s.beam * ids);
    std::vector<Unit> read(s.beam * 2 * units), gated(s.beam * inner_units), normed(s.beam * units);
    std::vector<int> path = {-1}, column = {s.column}, places(s.beam * s.width);  // where paths end, and their tokens
    std::vector<float> before = {0}, log_probs(s.beam * s.width);
    int count = 0;
    as_floats((const Unit*)s.state, states.data(), hidden);

#pragma omp parallel num_threads(s.threads)
    for (int depth = 0; depth < s.depth && !path.empty(); depth++) {
        const int n = path.size();
#pragma omp for schedule(static)
        for (int i = 0; i < n; i++) {
            rounded(states.data() + i * wide, read.data() + i * 2 * units, hidden);
            std::memcpy(read.data() + (i * 2 + 1) * units, (const Unit*)d.embedding + (size_t)column[i] * units,
                        units * sizeof(Unit));
        }
        product(d.inner_weight, d.inner, Inputs<Unit>{read.data(), 2 * units, n}, [&](int i, int tile, vec a, vec b) {
            for (int half = 0; half < 2; half++) {
                const int row = tile * ROWS + half * LANES;
                store(inners.data() + i * inner + row, silu((half ? b : a) + load(d.inner_bias + row)));
            }
        });
#pragma omp for schedule(static)
        for (int i = 0; i < n; i++) rounded(inners.data() + i * inner, gated.data() + i * inner_units, d.inner);
        product(d.outer_weight, hidden, Inputs<Unit>{gated.data(), inner_units, n}, [&](int i, int tile, vec a, vec b) {
            float* x = states.data() + i * wide + tile * ROWS;
            store(x, load(x) + a);
            store(x + LANES, load(x + LANES) + b);
        });
#pragma omp for schedule(static)
        for (int i = 0; i < n; i++) rounded(states.data() + i * wide, normed.data() + i * units, hidden);
        product(d.lm_head, d.num_ids, Inputs<Unit>{normed.data(), units, n}, [&](int i, int tile, vec a, vec b) {
            store(logits.data() + i * ids + tile * ROWS, a);
            store(logits.data() + i * ids + tile * ROWS + LANES, b);
        });
#pragma omp for schedule(static)
        for (int i = 0; i < n; i++)
            most_likely(logits.data() + i * ids, d.num_ids, s.width, &places[i * s.width], &log_probs[i * s.width]);
#pragma omp single
        {
            const int first = count, found = n * s.width;
            for (int i = 0; i < found; i++, count++) {
                s.columns[count] = places[i];
                s.parents[count] = path[i / s.width];
                s.log_probs[count] = before[i / s.width] + log_probs[i];
            }
            std::vector<int> order(found);
            for (int i = 0; i < found; i++) order[i] = i;
            const float* chance = s.log_probs + first;
            std::stable_sort(order.begin(), order.end(), [=](int i, int j) { return chance[i] > chance[j]; });
            path.clear(), column.clear(), before.clear();
            for (int i : order) {
                if ((int)path.size() == s.beam || chance[i] < s.least) break;
                std::copy_n(states.data() + i / s.width * wide, hidden, next.data() + path.size() * wide);
                path.push_back(first + i), column.push_back(places[i]), before.push_back(chance[i]);
            }
            states.swap(next);
        }
    }
    return count;
}

}  // namespace

extern "C" int drafted_tree_float32(const Drafter* d, const Search* s) { return search<float>(*d, *s); }
extern "C" int drafted_tree_bfloat16(const Drafter* d, const Search* s) { return search<bf16_pair>(*d, *s); }
