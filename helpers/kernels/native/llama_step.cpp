// One step of a model built like Llama, from embedded tokens to logits, as one function on the CPU.
//
// A step of PyTorch is hundreds of calls, and oneDNN's products of few tokens read weights at half of the memory's
// bandwidth. Here all threads go through the layers together; weights lie in the order in which they are read, on huge
// pages, and are fetched ahead. Every sum is made in an order that depends on neither the number of tokens nor what
// else is in the batch, so that a token's logits are the same to the bit however it is read (He 2025, "Defeating
// nondeterminism in LLM inference").

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <omp.h>
#include <type_traits>
#include <vector>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

constexpr int LANES = 16;        // numbers in a vector
constexpr int ROWS = 2 * LANES;  // rows of a weight in one tile
constexpr int TOKENS = 12;       // that a product takes at once: 24 sums stay in registers
constexpr int AHEAD = 8192;      // bytes that a weight is fetched ahead

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));

// A unit is what a lane multiplies at once: one float, or a pair of bfloat16 numbers.
typedef uint32_t bf16_pair;

inline vec load(const float* p) { vec v; std::memcpy(&v, p, sizeof v); return v; }
inline bits load(const bf16_pair* p) { bits v; std::memcpy(&v, p, sizeof v); return v; }
inline void store(float* p, vec v) { std::memcpy(p, &v, sizeof v); }
inline vec all(float x) { return x - vec{}; }

// Even and odd places of pairs as floats: bfloat16 is the upper half of a float.
inline vec even(bits pairs) { return (vec)(pairs << 16); }
inline vec odd(bits pairs) { return (vec)(pairs & 0xffff0000u); }

inline vec multiply_add(vec sum, vec w, float x) { return sum + w * x; }
inline vec multiply_add(vec sum, vec w, vec x) { return sum + w * x; }
#ifdef __AVX512BF16__
inline vec multiply_add(vec sum, bits w, bits x) {
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)x);
}
#else
inline vec multiply_add(vec sum, bits w, bits x) { return sum + even(w) * even(x) + odd(w) * odd(x); }
#endif
inline vec multiply_add(vec sum, bits w, bf16_pair x) { return multiply_add(sum, w, x - bits{}); }

// Numbers per unit, and rounding n floats (even for bfloat16) to units.
template <class Unit> constexpr int IN_UNIT = std::is_same<Unit, float>::value ? 1 : 2;

inline void rounded(const float* x, float* to, int n) { std::memcpy(to, x, n * sizeof *x); }
inline uint32_t upper_half(float x) {  // to the nearest, ties to even
    uint32_t b;
    std::memcpy(&b, &x, sizeof b);
    return (b + 0x7fff + (b >> 16 & 1)) >> 16;
}
inline void rounded(const float* x, bf16_pair* to, int n) {
    for (int i = 0; i < n / 2; i++) to[i] = upper_half(x[2 * i]) | upper_half(x[2 * i + 1]) << 16;
}

template <class Number> inline Number as(float x) {
    if constexpr (std::is_same<Number, float>::value) return x;
    else return upper_half(x);
}

int padded(int n, int to) { return (n + to - 1) / to * to; }

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

inline float sum(vec v) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}

// e to the x for x up to 0, within 2 units in the last place: 2^n times a polynomial of the rest (Cephes' expf).
inline vec exponential(vec x) {
    x = x < -87.0f ? all(-87.0f) : x;
    const vec magic = all(12582912.0f), n = (x * 1.44269504f + magic) - magic;  // rounds to a whole number
    const vec r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    vec p = all(1.9875691500e-4f);
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        p = p * r + c;
    p = p * r * r + r + 1.0f;
    return (vec)((bits)p + ((bits)(n + magic) << 23));
}

// Where memory is fetched ahead, and how far that goes on with each unit.
struct Fetch {
    const char* at;
    int step;
};

// A tile of W (units, ROWS) times N tokens x (N, units): use(token, upper, lower) gets the sums of its rows' halves.
template <class Unit, int N, class Use>
inline void tile_product(const Unit* w, const Unit* x, int units, Fetch ahead, const Use& use) {
    vec upper[N] = {}, lower[N] = {};  // stay in registers
    for (int k = 0; k < units; k++, w += ROWS, ahead.at += ahead.step) {
        __builtin_prefetch(ahead.at);
        __builtin_prefetch(ahead.at + 64);
        const auto w_upper = load(w), w_lower = load(w + LANES);
#pragma GCC unroll 12
        for (int t = 0; t < N; t++) {
            const Unit x_t = x[(size_t)t * units + k];
            upper[t] = multiply_add(upper[t], w_upper, x_t);
            lower[t] = multiply_add(lower[t], w_lower, x_t);
        }
    }
#pragma GCC unroll 12
    for (int t = 0; t < N; t++) use(t, upper[t], lower[t]);
}

// The same for n tokens up to N: each number of them has code of its own.
template <class Unit, int N, class Use>
void up_to(int n, const Unit* w, const Unit* x, int units, Fetch ahead, const Use& use) {
    if constexpr (N > 1)
        if (n < N) return up_to<Unit, N - 1>(n, w, x, units, ahead, use);
    tile_product<Unit, N>(w, x, units, ahead, use);
}

// y = W x for n tokens x (n, units) and W in tiles: use(token, tile, upper, lower). Within a parallel region: the
// threads share the tiles, and wait for each other at the end.
template <class Unit, class Use>
void product(const void* weight, int rows, const Unit* x, int units, int n, const Use& use) {
    const int passes = (n + TOKENS - 1) / TOKENS;
    const size_t bytes = (size_t)units * ROWS * sizeof(Unit);
#pragma omp for schedule(static)
    for (int tile = 0; tile < (rows + ROWS - 1) / ROWS; tile++) {
        const char* w = (const char*)weight + tile * bytes;
        for (int pass = 0; pass < passes; pass++) {  // of about as many tokens each
            const int from = (int64_t)n * pass / passes, to = (int64_t)n * (pass + 1) / passes;
            // With several passes each of them fetches a part of the next tile.
            const Fetch ahead = {passes == 1 ? w + AHEAD : w + bytes + bytes * pass / passes, 128 / passes};
            up_to<Unit, TOKENS>(to - from, (const Unit*)w, x + (size_t)from * units, units, ahead,
                                [&](int t, vec upper, vec lower) { use(from + t, tile, upper, lower); });
        }
    }
}

}  // namespace

struct Layer {
    const void *qkv, *out, *gate_up, *down;                      // tiles
    const float *qkv_bias, *out_bias, *gate_up_bias, *down_bias;  // as the tiles' rows, or none
    const float *norm_1, *norm_2, *query_norm, *key_norm;         // of hidden; of a head, or none
};

struct Model {
    int32_t layers, hidden, heads, kv_heads, size, inner, vocabulary;
    float epsilon, head_epsilon, scale;
    const float *last_norm, *cos, *sin;  // tables (positions, size); sin with its sign
    const void* lm_head;
    const Layer* layer;
};

// batch sequences of n tokens each. x: (batch * n, padded hidden) embedded, is written over. Token i stands at position
// [i] and goes to place[i] of row[sequence] in the cache, nowhere for a place below 0. mask: (1 or batch, n, held),
// seen where it is above -1, or none: causal. The last `keep` tokens of each sequence get hidden states and logits.
struct Step {
    int32_t batch, n, keep, held, capacity, masks, threads;
    float* x;
    const int64_t *position, *place, *row;
    const void* mask;
    void* const *keys, *const *values;  // of each layer: (sequences, kv_heads, capacity, size)
    void* hidden;
    float* logits;
};

namespace {

template <class Unit> struct Run {
    typedef typename std::conditional<std::is_same<Unit, float>::value, float, uint16_t>::type Number;  // in the cache
    static constexpr int PER = IN_UNIT<Unit>;

    const Model& m;
    const Step& s;
    const int tokens = s.batch * s.n, wide = padded(m.hidden, ROWS), heads = m.heads + 2 * m.kv_heads;
    const int qkv_wide = padded(heads * m.size, ROWS), inner = padded(m.inner, LANES), kept = s.batch * s.keep;
    // What the stages hand to each other, a line for each token: Units are inputs of a product.
    std::vector<Unit> normed, mixed, gated;
    std::vector<float> qkv, scores;
    std::vector<int> prefix;                // places that a token sees from 0 on
    std::vector<std::vector<int>> further;  // and after them

    Run(const Model& m, const Step& s)
        : m(m), s(s), normed((size_t)tokens * m.hidden / PER), mixed((size_t)tokens * m.heads * m.size / PER),
          gated((size_t)tokens * inner / PER), qkv((size_t)tokens * qkv_wide),
          scores((size_t)s.threads * (s.held + LANES)), prefix(tokens), further(tokens) {}

    static bool seen(const void* mask, size_t i) {
        if constexpr (PER == 1) return ((const float*)mask)[i] > -1.0f;
        uint16_t b = ((const uint16_t*)mask)[i];
        return !(b & 0x8000) || b == 0x8000;  // what hides is a large negative number
    }

    void read_mask() {
        for (int i = 0; i < tokens; i++) {
            if (!s.mask) { prefix[i] = (int)s.place[i] + 1; continue; }
            const size_t line = ((size_t)(s.masks > 1 ? i / s.n : 0) * s.n + i % s.n) * s.held;
            int j = 0;
            while (j < s.held && seen(s.mask, line + j)) j++;
            for (prefix[i] = j; j < s.held; j++)
                if (seen(s.mask, line + j)) further[i].push_back(j);
        }
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
    void turn(float* x, const float* weight, int64_t position) const {
        const int size = m.size, half = size / 2;
        if (weight) {
            float total = 0;
            for (int d = 0; d < size; d++) total += x[d] * x[d];
            const float by = 1 / std::sqrt(total / size + m.head_epsilon);
            for (int d = 0; d < size; d++) x[d] *= by * weight[d];
        }
        const float *cos = m.cos + position * size, *sin = m.sin + position * size;
        for (int d = 0; d < half; d++) {
            const float a = x[d], b = x[d + half];
            x[d] = a * cos[d] + b * sin[d];
            x[d + half] = b * cos[d + half] + a * sin[d + half];
        }
    }

    size_t in_cache(int token, int kv_head) const {  // the first number of a sequence's keys in this head
        return ((size_t)s.row[token / s.n] * m.kv_heads + kv_head) * s.capacity * m.size;
    }

    // Turn the queries, and write keys and values where the cache has them.
    void place(int at_layer, int token, int head) {
        const Layer& layer = m.layer[at_layer];
        float* x = qkv.data() + (size_t)token * qkv_wide + (size_t)head * m.size;
        if (head < m.heads) return turn(x, layer.query_norm, s.position[token]);
        const bool key = head < m.heads + m.kv_heads;
        if (key) turn(x, layer.key_norm, s.position[token]);
        if (s.place[token] < 0) return;
        const int kv_head = (head - m.heads) % m.kv_heads;
        Number* to = (Number*)(key ? s.keys : s.values)[at_layer] + in_cache(token, kv_head) + s.place[token] * m.size;
        rounded(x, (Unit*)to, m.size);
    }

    // One query over all that it sees; V vectors of units are a head.
    template <int V> void attend(int at_layer, int token, int head, float* score) {
        const int size = m.size, group = m.heads / m.kv_heads, units = V * LANES;
        const size_t base = in_cache(token, head / group) / PER;
        const Unit *keys = (const Unit*)s.keys[at_layer] + base, *values = (const Unit*)s.values[at_layer] + base;
        const int before = prefix[token], count = before + (int)further[token].size();
        const int* after = further[token].data() - before;
        const auto at = [&](int i) { return (size_t)(i < before ? i : after[i]) * units; };

        Unit query[units];
        rounded(qkv.data() + (size_t)token * qkv_wide + (size_t)head * size, query, size);
        const vec lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        vec most = all(-INFINITY), total = {};
        for (int i = 0; i < count; i += LANES) {  // LANES keys at once; past the end the last one, which then is hidden
            vec products[LANES] = {};
#pragma GCC unroll 16
            for (int j = 0; j < LANES; j++) {
                const Unit* key = keys + at(std::min(i + j, count - 1));
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
        for (int i = 0; i < count; i++)
            for (int v = 0; v < V; v++) {
                const auto value = load(values + at(i) + v * LANES);
                if constexpr (PER == 1) sums_of[v] += value * score[i];
                else {
                    sums_of[2 * v] += even(value) * score[i];
                    sums_of[2 * v + 1] += odd(value) * score[i];
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

    void add_to_x(const void* weight, const float* bias, const Unit* input, int units) {
        product(weight, m.hidden, input, units, tokens, [&](int token, int tile, vec a, vec b) {
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
        const int units = m.hidden / PER;
        product(layer.qkv, heads * m.size, normed.data(), units, tokens, [&](int token, int tile, vec a, vec b) {
            float* y = qkv.data() + (size_t)token * qkv_wide + tile * ROWS;
            store(y, with_bias(a, layer.qkv_bias, tile * ROWS));
            store(y + LANES, with_bias(b, layer.qkv_bias, tile * ROWS + LANES));
        });
#pragma omp for schedule(static)
        for (int i = 0; i < tokens * heads; i++) place(at_layer, i / heads, i % heads);
#pragma omp for schedule(static)
        for (int i = 0; i < tokens * m.heads; i++) {  // a head's tokens one after the other: they share the keys
            const int sequence = i / (s.n * m.heads), head = i / s.n % m.heads;
            attend(at_layer, sequence * s.n + i % s.n, head, score);
        }
        add_to_x(layer.out, layer.out_bias, mixed.data(), m.heads * m.size / PER);
        norm_all(layer.norm_2);
        // A tile holds LANES rows of the gate and the same ones of `up`.
        product(layer.gate_up, 2 * inner, normed.data(), units, tokens, [&](int token, int tile, vec a, vec b) {
            const vec gate = with_bias(a, layer.gate_up_bias, tile * ROWS);
            const vec up = with_bias(b, layer.gate_up_bias, tile * ROWS + LANES);
            const vec small = exponential(gate > 0.0f ? -gate : gate);  // e to -|gate|: silu without overflow
            float y[LANES];
            store(y, gate * up * (gate > 0.0f ? all(1.0f) : small) / (1.0f + small));
            rounded(y, gated.data() + ((size_t)token * inner + tile * LANES) / PER, LANES);
        });
        add_to_x(layer.down, layer.down_bias, gated.data(), inner / PER);
    }

    void run() {
        read_mask();
#pragma omp parallel num_threads(s.threads)
        {
            float* score = scores.data() + (size_t)omp_get_thread_num() * (s.held + LANES);
            for (int i = 0; i < m.layers; i++) layer_of(i, score);
            Unit* hidden = (Unit*)s.hidden;
#pragma omp for schedule(static)
            for (int i = 0; i < kept; i++) {
                const int token = i / s.keep * s.n + s.n - s.keep + i % s.keep;
                norm(s.x + (size_t)token * wide, m.last_norm, hidden + (size_t)i * m.hidden / PER);
            }
            const int stride = padded(m.vocabulary, ROWS);
            product(m.lm_head, m.vocabulary, hidden, m.hidden / PER, kept, [&](int token, int tile, vec a, vec b) {
                store(s.logits + (size_t)token * stride + tile * ROWS, a);
                store(s.logits + (size_t)token * stride + tile * ROWS + LANES, b);
            });
        }
    }
};

}  // namespace

// y = W x for x (n, in) and y (n, rows), of bfloat16 or float.
template <class Unit> static void linear(const void* w, int rows, const void* x, int in, int n, void* y, int threads) {
    typedef typename Run<Unit>::Number Number;
#pragma omp parallel num_threads(threads)
    product(w, rows, (const Unit*)x, in / IN_UNIT<Unit>, n, [&](int token, int tile, vec a, vec b) {
        float sums[ROWS];
        store(sums, a);
        store(sums + LANES, b);
        Number* to = (Number*)y + (size_t)token * rows + tile * ROWS;
        for (int i = 0; i < std::min(ROWS, rows - tile * ROWS); i++) to[i] = as<Number>(sums[i]);
    });
}

extern "C" void linear_float32(const void* w, int rows, const void* x, int in, int n, void* y, int threads) {
    linear<float>(w, rows, x, in, n, y, threads);
}
extern "C" void linear_bfloat16(const void* w, int rows, const void* x, int in, int n, void* y, int threads) {
    linear<bf16_pair>(w, rows, x, in, n, y, threads);
}

extern "C" void step_float32(const Model* model, const Step* step) { Run<float>(*model, *step).run(); }
extern "C" void step_bfloat16(const Model* model, const Step* step) { Run<bf16_pair>(*model, *step).run(); }
