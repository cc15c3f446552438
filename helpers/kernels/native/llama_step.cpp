// One step of a model built like Llama, from embedded tokens to logits, as one function on the CPU.
//
// A step of PyTorch is hundreds of calls, and oneDNN's products of few tokens read weights at half of the memory's
// bandwidth. Here all threads go through the layers together; weights lie in the order in which they are read, on huge
// pages, and are fetched ahead. Every sum is made in an order that depends on neither the number of tokens nor what
// else is in the batch, so that a token's logits are the same to the bit however it is read (He 2025, "Defeating
// nondeterminism in LLM inference").

#include "products.h"

struct Layer {
    Weight qkv, out, gate_up, down;
    const float *qkv_bias, *out_bias, *gate_up_bias, *down_bias;  // as the tiles' rows, or none
    const float *norm_1, *norm_2, *query_norm, *key_norm;         // of hidden; of a head, or none
};

struct Model {
    int32_t layers, hidden, heads, kv_heads, size, inner, vocabulary;
    float epsilon, head_epsilon, scale;
    const float *last_norm, *cos, *sin;  // tables (positions, size); sin with its sign
    Weight lm_head;
    const Layer* layer;
};

// Tokens of any sequences, those of one beside each other. x: (tokens, padded hidden) embedded, is written over. Token i
// stands at `position` and goes to `place` of its sequence, and sees what is there up to `prefix`; then, if it is a
// guess, its ancestors: `parent` is the token before it in this step, -1 after the certain ones. The cache lies in
// blocks of `block_size` tokens: table (sequences, width) says which are a sequence's, in order. `wanted` are the tokens
// that get hidden states and logits, a line each.
struct Token { int32_t sequence, position, place, prefix, parent; };
struct Step {
    int32_t tokens, wanted_tokens, held, block_size, width, threads;
    float* x;
    const Token* token;
    const int32_t *table, *wanted;
    void* const *keys, *const *values;  // of each layer: (blocks, kv_heads, block_size, size)
    void* hidden;
    float* logits;
};

namespace {

template <class Number> inline Number as(float x) {
    if constexpr (std::is_same<Number, float>::value) return x;
    else return upper_half(x);
}

// Lane i is the sum of vector i; each round adds neighbours, and halves the vectors.
template <int N> inline vec sums(const vec* v) {
    vec half[N / 2];
#pragma GCC unroll 16
    for (int i = 0; i < N / 2; i++) {
        const vec a = v[2 * i], b = v[2 * i + 1];
        half[i] = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
                + __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    }
    return sums<N / 2>(half);
}
template <> inline vec sums<1>(const vec* v) { return *v; }

template <class Unit> struct Run {
    typedef typename std::conditional<std::is_same<Unit, float>::value, float, uint16_t>::type Number;  // in the cache
    static constexpr int PER = IN_UNIT<Unit>;

    const Model& m;
    const Step& s;
    const int tokens = s.tokens, wide = padded(m.hidden, ROWS), heads = m.heads + 2 * m.kv_heads;
    const int qkv_wide = padded(heads * m.size, ROWS), inner = padded(m.inner, LANES);
    // What the stages hand to each other, a line for each token: Units are inputs of a product.
    std::vector<Unit> normed, mixed, gated;
    std::vector<float> qkv, scores, scales;
    std::vector<bytes4> bytes;
    std::vector<std::vector<int>> path;  // places that a guess sees after its prefix: its ancestors' and its own

    Run(const Model& m, const Step& s)
        : m(m), s(s), normed((size_t)tokens * m.hidden / PER), mixed((size_t)tokens * m.heads * m.size / PER),
          gated((size_t)tokens * inner / PER), qkv((size_t)tokens * qkv_wide),
          scores((size_t)s.threads * (s.held + LANES)), scales(tokens),
          bytes((size_t)tokens * std::max({m.hidden, m.heads * m.size, inner}) / 4 + 1), path(tokens) {
        for (int i = 0; i < tokens; i++) {
            const Token& token = s.token[i];
            if (token.place < token.prefix) continue;  // certain
            if (token.parent >= 0) path[i] = path[token.parent];
            path[i].push_back(token.place);
        }
    }

    Inputs<Unit> inputs(const Unit* x, int numbers, int n) {
        return {x, numbers / PER, n, bytes.data(), scales.data()};
    }

    void norm(const float* x, const float* weight, Unit* to) const {
        vec squares = {};
        float y[LANES];
        int j = 0;
        for (; j + LANES <= m.hidden; j += LANES) squares += load(x + j) * load(x + j);
        float total = sum(squares);
        for (int i = j; i < m.hidden; i++) total += x[i] * x[i];
        const float by = 1 / std::sqrt(total / m.hidden + m.epsilon);
        for (j = 0; j < m.hidden; j += LANES) {
            const int n = std::min(LANES, m.hidden - j);
            for (int i = 0; i < n; i++) y[i] = x[j + i] * by * weight[j + i];
            rounded(y, to + j / PER, n);
        }
    }

    // A query or key of one token, in place: its own norm where the model has one, then its position.
    void turn(float* x, const float* weight, int position) const {
        const int size = m.size, half = size / 2;
        if (weight) {
            float total = 0;
            for (int d = 0; d < size; d++) total += x[d] * x[d];
            const float by = 1 / std::sqrt(total / size + m.head_epsilon);
            for (int d = 0; d < size; d++) x[d] *= by * weight[d];
        }
        const float *cos = m.cos + (size_t)position * size, *sin = m.sin + (size_t)position * size;
        for (int d = 0; d < half; d++) {
            const float a = x[d], b = x[d + half];
            x[d] = a * cos[d] + b * sin[d];
            x[d + half] = b * cos[d + half] + a * sin[d + half];
        }
    }

    // Where in a layer's keys (or values) a head of the token at `place` of a sequence begins.
    size_t in_cache(int sequence, int kv_head, int place) const {
        const int block = s.table[(size_t)sequence * s.width + place / s.block_size];
        return (((size_t)block * m.kv_heads + kv_head) * s.block_size + place % s.block_size) * m.size;
    }

    // Turn the queries, and write keys and values where the cache has them.
    void place(int at_layer, int token, int head) {
        const Layer& layer = m.layer[at_layer];
        float* x = qkv.data() + (size_t)token * qkv_wide + (size_t)head * m.size;
        const Token& t = s.token[token];
        if (head < m.heads) return turn(x, layer.query_norm, t.position);
        const bool key = head < m.heads + m.kv_heads;
        if (key) turn(x, layer.key_norm, t.position);
        const size_t at = in_cache(t.sequence, (head - m.heads) % m.kv_heads, t.place);
        rounded(x, (Unit*)((Number*)(key ? s.keys : s.values)[at_layer] + at), m.size);
    }

    // One query over all that it sees; V vectors of units are a head.
    template <int V> void attend(int at_layer, int token, int head, float* score) {
        const int size = m.size, kv_head = head / (m.heads / m.kv_heads), units = V * LANES;
        const Unit *keys = (const Unit*)s.keys[at_layer], *values = (const Unit*)s.values[at_layer];
        const Token& t = s.token[token];
        const int before = t.prefix, count = before + (int)path[token].size();
        // LANES of what is seen, from a multiple of LANES on: in one block, unless they reach into the path; past the
        // end the last one, which then is hidden.
        size_t at[LANES];
        const auto find = [&](int i) {
            const bool together = i + LANES <= before;
            for (int j = 0; j < LANES; j++)
                if (together && j) at[j] = at[0] + j * units;
                else {
                    const int k = std::min(i + j, count - 1);
                    at[j] = in_cache(t.sequence, kv_head, k < before ? k : path[token][k - before]) / PER;
                }
        };

        Unit query[units];
        rounded(qkv.data() + (size_t)token * qkv_wide + (size_t)head * size, query, size);
        const vec lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        vec most = all(-INFINITY), total = {};
        for (int i = 0; i < count; i += LANES) {
            find(i);
            vec products[LANES] = {};
#pragma GCC unroll 16
            for (int j = 0; j < LANES; j++) {
                const Unit* key = keys + at[j];
                for (int v = 0; v < V; v++)
                    products[j] = multiply_add(products[j], load(key + v * LANES), load(query + v * LANES));
            }
            const vec found = lane < (float)(count - i) ? sums<LANES>(products) * m.scale : all(-INFINITY);
            most = found > most ? found : most;
            store(score + i, found);
        }
        float highest = most[0];
        for (int j = 1; j < LANES; j++) highest = std::max(highest, most[j]);
        for (int i = 0; i < count; i += LANES) {
            const vec share = lane < (float)(count - i) ? exponential(load(score + i) - highest) : vec{};
            total += share;
            store(score + i, share);
        }
        vec sums_of[PER * V] = {};
        for (int i = 0; i < count; i += LANES) {
            find(i);
            for (int j = 0; j < std::min(LANES, count - i); j++)
                for (int v = 0; v < V; v++) {
                    const auto value = load(values + at[j] + v * LANES);
                    if constexpr (PER == 1) sums_of[v] += value * score[i + j];
                    else {
                        sums_of[2 * v] += even(value) * score[i + j];
                        sums_of[2 * v + 1] += odd(value) * score[i + j];
                    }
                }
        }
        const float by = 1 / sum(total);
        float y[PER * units];
        for (int v = 0; v < V; v++)
            for (int j = 0; j < LANES; j++)
                for (int p = 0; p < PER; p++) y[(v * LANES + j) * PER + p] = sums_of[PER * v + p][j] * by;
        rounded(y, mixed.data() + ((size_t)token * m.heads + head) * units, size);
    }

    void attend(int at_layer, int token, int head, float* score) {
        switch (m.size / PER / LANES) {
            case 1: return attend<1>(at_layer, token, head, score);
            case 2: return attend<2>(at_layer, token, head, score);
            case 3: return attend<3>(at_layer, token, head, score);
            case 4: return attend<4>(at_layer, token, head, score);
            case 6: return attend<6>(at_layer, token, head, score);
            case 8: return attend<8>(at_layer, token, head, score);
            case 16: return attend<16>(at_layer, token, head, score);
        }
    }

    static vec with_bias(vec sum, const float* bias, int row) { return bias ? sum + load(bias + row) : sum; }

    void add_to_x(const Weight& weight, const float* bias, const Inputs<Unit>& input) {
        product(weight, m.hidden, input, [&](int token, int tile, vec a, vec b) {
            float* x = s.x + (size_t)token * wide + tile * ROWS;
            store(x, load(x) + with_bias(a, bias, tile * ROWS));
            store(x + LANES, load(x + LANES) + with_bias(b, bias, tile * ROWS + LANES));
        });
    }

    void norm_all(const float* weight) {
#pragma omp for schedule(static)
        for (int i = 0; i < tokens; i++)
            norm(s.x + (size_t)i * wide, weight, normed.data() + (size_t)i * m.hidden / PER);
    }

    void layer_of(int at_layer, float* score) {
        const Layer& layer = m.layer[at_layer];
        norm_all(layer.norm_1);
        const Inputs<Unit> hidden = inputs(normed.data(), m.hidden, tokens);
        product(layer.qkv, heads * m.size, hidden, [&](int token, int tile, vec a, vec b) {
            float* y = qkv.data() + (size_t)token * qkv_wide + tile * ROWS;
            store(y, with_bias(a, layer.qkv_bias, tile * ROWS));
            store(y + LANES, with_bias(b, layer.qkv_bias, tile * ROWS + LANES));
        });
#pragma omp for schedule(static)
        for (int i = 0; i < tokens * heads; i++) place(at_layer, i / heads, i % heads);
#pragma omp for schedule(static)
        for (int i = 0; i < tokens * m.heads; i++)  // a head's tokens one after the other: a sequence's share the keys
            attend(at_layer, i % tokens, i / tokens, score);
        add_to_x(layer.out, layer.out_bias, inputs(mixed.data(), m.heads * m.size, tokens));
        norm_all(layer.norm_2);
        // A tile holds LANES rows of the gate and the same ones of `up`.
        product(layer.gate_up, 2 * inner, hidden, [&](int token, int tile, vec a, vec b) {
            const vec gate = with_bias(a, layer.gate_up_bias, tile * ROWS);
            const vec up = with_bias(b, layer.gate_up_bias, tile * ROWS + LANES);
            float y[LANES];
            store(y, silu(gate) * up);
            rounded(y, gated.data() + ((size_t)token * inner + tile * LANES) / PER, LANES);
        });
        add_to_x(layer.down, layer.down_bias, inputs(gated.data(), inner, tokens));
    }

    void run() {
#pragma omp parallel num_threads(s.threads)
        {
            float* score = scores.data() + (size_t)omp_get_thread_num() * (s.held + LANES);
            for (int i = 0; i < m.layers; i++) layer_of(i, score);
            Unit* hidden = (Unit*)s.hidden;
#pragma omp for schedule(static)
            for (int i = 0; i < s.wanted_tokens; i++)
                norm(s.x + (size_t)s.wanted[i] * wide, m.last_norm, hidden + (size_t)i * m.hidden / PER);
            const int stride = padded(m.vocabulary, ROWS);
            const Inputs<Unit> last = inputs(hidden, m.hidden, s.wanted_tokens);
            product(m.lm_head, m.vocabulary, last, [&](int token, int tile, vec a, vec b) {
                store(s.logits + (size_t)token * stride + tile * ROWS, a);
                store(s.logits + (size_t)token * stride + tile * ROWS + LANES, b);
            });
        }
    }
};

}  // namespace

// y = W x for x (n, in) and y (n, rows), of bfloat16 or float.
template <class Unit>
static void linear(const Weight& w, int rows, const void* x, int in, int n, void* y, int threads) {
    typedef typename Run<Unit>::Number Number;
    std::vector<bytes4> bytes(w.kind == BYTES ? (size_t)n * in / 4 : 0);
    std::vector<float> scales(bytes.size() ? n : 0);
    const Inputs<Unit> inputs = {(const Unit*)x, in / IN_UNIT<Unit>, n, bytes.data(), scales.data()};
#pragma omp parallel num_threads(threads)
    product(w, rows, inputs, [&](int token, int tile, vec a, vec b) {
        float sums[ROWS];
        store(sums, a);
        store(sums + LANES, b);
        Number* to = (Number*)y + (size_t)token * rows + tile * ROWS;
        for (int i = 0; i < std::min(ROWS, rows - tile * ROWS); i++) to[i] = as<Number>(sums[i]);
    });
}

extern "C" void linear_float32(const Weight* w, int rows, const void* x, int in, int n, void* y, int threads) {
    linear<float>(*w, rows, x, in, n, y, threads);
}
extern "C" void linear_bfloat16(const Weight* w, int rows, const void* x, int in, int n, void* y, int threads) {
    linear<bf16_pair>(*w, rows, x, in, n, y, threads);
}

extern "C" void step_float32(const Model* model, const Step* step) { Run<float>(*model, *step).run(); }
extern "C" void step_bfloat16(const Model* model, const Step* step) { Run<bf16_pair>(*model, *step).run(); }
