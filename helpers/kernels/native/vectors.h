// Vectors of numbers, float and bfloat16, and what is computed with them.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#ifdef __AVX512BW__
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
typedef int32_t bytes4;  // four whole numbers of 8 bits
typedef int32_t ints __attribute__((vector_size(4 * LANES)));

inline vec load(const float* p) { vec v; std::memcpy(&v, p, sizeof v); return v; }
inline bits load(const bf16_pair* p) { bits v; std::memcpy(&v, p, sizeof v); return v; }
inline ints load(const bytes4* p) { ints v; std::memcpy(&v, p, sizeof v); return v; }
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

// Four products a lane, of bytes without signs (x) and with signs (w).
inline ints multiply_add(ints sum, ints w, bytes4 x) {
#ifdef __AVX512VNNI__
    return (ints)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(x), (__m512i)w);
#else
    for (int i = 0; i < 4; i++) sum += (w << (24 - 8 * i) >> 24) * (int32_t)((uint32_t)x >> (8 * i) & 255);
    return sum;
#endif
}

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

// The codes of units of bfloat16 (a multiple of LANES), plus 128, and their scale: the largest of them gets 127.
inline void to_bytes(const bf16_pair* x, int units, bytes4* to, float* scale) {
    vec most = {};
    for (int k = 0; k < units; k += LANES)
        for (const vec part : {even(load(x + k)), odd(load(x + k))}) {
            const vec size = part < 0.0f ? -part : part;
            most = size > most ? size : most;
        }
    float largest = 1e-30f;
    for (int i = 0; i < LANES; i++) largest = std::max(largest, most[i]);
    *scale = largest / 127;
    const vec magic = all(12582912.0f);  // rounds to a whole number, ties to even
    const auto codes = [&](vec part) { return __builtin_convertvector(part / *scale + magic - magic, ints) + 128; };
    typedef uint16_t pairs __attribute__((vector_size(2 * LANES)));
    for (int k = 0; k < units; k += LANES) {
        const bits read = load(x + k);
        const pairs both = __builtin_convertvector(codes(even(read)) | codes(odd(read)) << 8, pairs);
        std::memcpy((char*)to + 2 * k, &both, sizeof both);
    }
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

// x times its sigmoid, without overflow.
inline vec silu(vec x) {
    const vec small = exponential(x > 0.0f ? -x : x);
    return x * (x > 0.0f ? all(1.0f) : small) / (1.0f + small);
}

}  // namespace
