// Products of weights with few tokens, and the vectors that they are made of.
//
// Weights lie in tiles, in the order in which they are read (tiles.py). Every sum is made in an order that does not
// depend on how many tokens are read together.

#pragma once

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

inline void as_floats(const float* x, float* to, int n) { std::memcpy(to, x, n * sizeof *x); }
inline void as_floats(const bf16_pair* x, float* to, int n) {
    for (int i = 0; i < n; i++) {
        const uint32_t b = i % 2 ? x[i / 2] & 0xffff0000u : x[i / 2] << 16;
        std::memcpy(to + i, &b, sizeof b);
    }
}

inline int padded(int n, int to) { return (n + to - 1) / to * to; }

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
