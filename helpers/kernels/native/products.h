// Products of weights with few tokens, and the vectors that they are made of.
//
// Weights lie in tiles, in the order in which they are read (tiles.py), as numbers or as codes of 8 or 4 bits, which
// become numbers in registers. Every sum is made in an order that does not depend on how many tokens are read together.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <omp.h>
#include <type_traits>
#include <vector>
#ifdef __AVX512BW__
#include <immintrin.h>
#endif

// A weight in tiles. Without codes: its numbers, float or bfloat16. Codes of 8 bits are signs and magnitudes, those of
// 4 bits places in a table of 16 bfloat16 levels; both times a scale for each row and `group` of units. Scales follow
// their group's codes, in bfloat16 or float.
struct Weight {
    const void* tiles;
    const uint16_t* levels;
    int32_t code_bits, group, scale_bytes;
};

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

// x times its sigmoid, without overflow.
inline vec silu(vec x) {
    const vec small = exponential(x > 0.0f ? -x : x);
    return x * (x > 0.0f ? all(1.0f) : small) / (1.0f + small);
}

// What a tile holds of one unit of columns, LANES rows each.
template <class Vector> struct Halves { Vector upper, lower; };

// The three ways in which a tile holds its numbers: BYTES of it are those of one unit.
template <class Unit> struct Numbers {
    static constexpr int BYTES = ROWS * sizeof(Unit);
    static constexpr bool SCALED = false;
    auto operator()(const char* w) const {
        const auto upper = load((const Unit*)w), lower = load((const Unit*)w + LANES);
        return Halves<typename std::remove_const<decltype(upper)>::type>{upper, lower};
    }
};

// The bfloat16 numbers 0 to 127, which it has exactly, as bytes.
struct Magnitudes {
    uint8_t low[128], high[128];
    constexpr Magnitudes() : low(), high() {
        for (int i = 1, exponent = 0; i < 128; i++) {
            if (i >> (exponent + 1)) exponent++;
            const int number = (127 + exponent) << 7 | (i << (7 - exponent) & 127);
            low[i] = number & 255, high[i] = number >> 8;
        }
    }
};
constexpr Magnitudes MAGNITUDES;

struct Codes8 {  // a sign bit and a magnitude; 8 bytes of the upper rows, 8 of the lower ones, and so on
    static constexpr int BYTES = 2 * ROWS;
    static constexpr bool SCALED = true;
#ifdef __AVX512VBMI__
    const __m512i low = _mm512_loadu_si512(MAGNITUDES.low), low_2 = _mm512_loadu_si512(MAGNITUDES.low + 64);
    const __m512i high = _mm512_loadu_si512(MAGNITUDES.high), high_2 = _mm512_loadu_si512(MAGNITUDES.high + 64);
    Halves<bits> operator()(const char* w) const {
        const __m512i codes = _mm512_loadu_si512(w);
        const __m512i lows = _mm512_permutex2var_epi8(low, codes, low_2);
        const __m512i highs = _mm512_permutex2var_epi8(high, codes, high_2);
        const int or_and = 0xf8;  // highs | (codes & sign)
        const __m512i with_sign = _mm512_ternarylogic_epi32(highs, codes, _mm512_set1_epi8((char)0x80), or_and);
        return {(bits)_mm512_unpacklo_epi8(lows, with_sign), (bits)_mm512_unpackhi_epi8(lows, with_sign)};
    }
#else
    Halves<bits> operator()(const char* w) const {
        alignas(64) uint16_t numbers[4 * LANES], halves[2][2 * LANES];
        for (int i = 0; i < 4 * LANES; i++) {
            const int code = (uint8_t)w[i];
            const float magnitude = code & 127;
            uint32_t number;
            std::memcpy(&number, &magnitude, sizeof number);
            numbers[i] = number >> 16 | (code & 128) << 8;
        }
        for (int i = 0; i < 4 * LANES; i += 8) std::memcpy(&halves[i / 8 % 2][i / 16 * 8], numbers + i, 16);
        return {load((const bf16_pair*)halves[0]), load((const bf16_pair*)halves[1])};
    }
#endif
};

struct Codes4 {  // two to a byte: the upper rows' in the low bits, the lower rows' in the high ones
    static constexpr int BYTES = ROWS;
    static constexpr bool SCALED = true;
#ifdef __AVX512BW__
    const __m512i levels;  // twice: five bits of a place count
    explicit Codes4(const uint16_t* table)
        : levels(_mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i*)table))) {}
    Halves<bits> operator()(const char* w) const {
        const __m512i codes = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)w));
        return {(bits)_mm512_permutexvar_epi16(codes, levels),
                (bits)_mm512_permutexvar_epi16(_mm512_srli_epi16(codes, 4), levels)};
    }
#else
    const uint16_t* levels;
    explicit Codes4(const uint16_t* table) : levels(table) {}
    Halves<bits> operator()(const char* w) const {
        uint16_t numbers[2][2 * LANES];
        for (int i = 0; i < 2 * LANES; i++) {
            const uint8_t codes = w[i];
            numbers[0][i] = levels[codes & 15], numbers[1][i] = levels[codes >> 4];
        }
        return {load((const bf16_pair*)numbers[0]), load((const bf16_pair*)numbers[1])};
    }
#endif
};

inline Halves<vec> scales(const char* at, bool wide) {
    if (wide) return {load((const float*)at), load((const float*)at + LANES)};
    typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
    halves upper, lower;
    std::memcpy(&upper, at, sizeof upper), std::memcpy(&lower, at + sizeof upper, sizeof lower);
    return {(vec)(__builtin_convertvector(upper, bits) << 16), (vec)(__builtin_convertvector(lower, bits) << 16)};
}

// Where memory is fetched ahead, and how many times what is here will be read: each time fetches its part.
struct Fetch {
    const char* at;
    int passes;
};

// Sums of a tile's rows over some units for N tokens x, which lie `stride` apart: upper and lower, in registers. G such
// stretches of a tile, `apart` bytes from each other, have sums of their own: one sum alone would wait for itself.
template <class Format, class Unit, int N, int G>
inline __attribute__((always_inline)) void add_up(
    const Format& format, const char* w, size_t apart, const Unit* x, int stride,
    int units, Fetch& ahead, vec (&upper)[G][N], vec (&lower)[G][N]) {
    const int step = Format::BYTES / ahead.passes;
    for (int k = 0; k < units; k++, w += Format::BYTES)
#pragma GCC unroll 4
        for (int g = 0; g < G; g++, ahead.at += step) {
            for (int i = 0; i < Format::BYTES; i += 64) __builtin_prefetch(ahead.at + i);
            const auto half = format(w + g * apart);
#pragma GCC unroll 12
            for (int t = 0; t < N; t++) {
                const Unit x_t = x[(size_t)t * stride + g * units + k];
                upper[g][t] = multiply_add(upper[g][t], half.upper, x_t);
                lower[g][t] = multiply_add(lower[g][t], half.lower, x_t);
            }
        }
}  // add_up

// G groups of codes: their sums times their scales are added to upper and lower, one group after the other.
template <class Format, class Unit, int N, int G>
inline void add_groups(const Format& format, const Weight& weight, const char*& w, const Unit* x, int stride,
                       Fetch& ahead, vec (&upper)[1][N], vec (&lower)[1][N]) {
    const size_t codes = weight.group * Format::BYTES, apart = codes + ROWS * weight.scale_bytes;
    vec of_upper[G][N] = {}, of_lower[G][N] = {};
    add_up<Format, Unit, N, G>(format, w, apart, x, stride, weight.group, ahead, of_upper, of_lower);
#pragma GCC unroll 4
    for (int g = 0; g < G; g++, w += apart) {
        const Halves<vec> scale = scales(w + codes, weight.scale_bytes == 4);
#pragma GCC unroll 12
        for (int t = 0; t < N; t++) {
            upper[0][t] = multiply_add(upper[0][t], of_upper[g][t], scale.upper);
            lower[0][t] = multiply_add(lower[0][t], of_lower[g][t], scale.lower);
        }
    }
    ahead.at += G * ROWS * weight.scale_bytes / ahead.passes;
}

// A tile of W (units, ROWS) times N tokens x (N, units): sums (N, ROWS).
template <class Format, class Unit, int N>
void tile_product(const Format& format, const Weight& weight, const char* w, const Unit* x, int units, Fetch ahead,
                  float* sums) {
    vec upper[1][N] = {}, lower[1][N] = {};
    if constexpr (!Format::SCALED) add_up<Format, Unit, N, 1>(format, w, 0, x, units, units, ahead, upper, lower);
    else {
        constexpr int G = N <= 3 ? 4 : N <= 6 ? 2 : 1;
        int k = 0;
        for (; k + G * weight.group <= units; k += G * weight.group)
            add_groups<Format, Unit, N, G>(format, weight, w, x + k, units, ahead, upper, lower);
        for (; k < units; k += weight.group)
            add_groups<Format, Unit, N, 1>(format, weight, w, x + k, units, ahead, upper, lower);
    }
#pragma GCC unroll 12
    for (int t = 0; t < N; t++) store(sums + t * ROWS, upper[0][t]), store(sums + t * ROWS + LANES, lower[0][t]);
}

// The same for n tokens up to N: each number of them has code of its own.
template <class Format, class Unit, int N>
void up_to(int n, const Format& format, const Weight& weight, const char* w, const Unit* x, int units, Fetch ahead,
           float* sums) {
    if constexpr (N > 1)
        if (n < N) return up_to<Format, Unit, N - 1>(n, format, weight, w, x, units, ahead, sums);
    tile_product<Format, Unit, N>(format, weight, w, x, units, ahead, sums);
}

// y = W x for n tokens x (n, units): use(token, tile, upper, lower). Within a parallel region: the threads share the
// tiles, and wait for each other at the end.
template <class Format, class Unit, class Use>
void product(const Format& format, const Weight& weight, int rows, const Unit* x, int units, int n, const Use& use) {
    const int passes = (n + TOKENS - 1) / TOKENS, groups = Format::SCALED ? units / weight.group : 0;
    const size_t bytes = (size_t)units * Format::BYTES + (size_t)groups * ROWS * weight.scale_bytes;
    float sums[TOKENS * ROWS];
#pragma omp for schedule(static)
    for (int tile = 0; tile < (rows + ROWS - 1) / ROWS; tile++) {
        const char* w = (const char*)weight.tiles + tile * bytes;
        for (int pass = 0; pass < passes; pass++) {  // of about as many tokens each
            const int from = (int64_t)n * pass / passes, to = (int64_t)n * (pass + 1) / passes;
            // With several passes each of them fetches a part of the next tile.
            const Fetch ahead = {passes == 1 ? w + AHEAD : w + bytes + bytes * pass / passes, passes};
            up_to<Format, Unit, TOKENS>(to - from, format, weight, w, x + (size_t)from * units, units, ahead, sums);
            for (int t = 0; t < to - from; t++) {
                const float* of_token = sums + t * ROWS;
                use(from + t, tile, load(of_token), load(of_token + LANES));
            }
        }
    }
}

template <class Unit, class Use>
void product(const Weight& weight, int rows, const Unit* x, int units, int n, const Use& use) {
    if constexpr (IN_UNIT<Unit> == 2) {  // codes become bfloat16 numbers
        if (weight.code_bits == 8) return product(Codes8(), weight, rows, x, units, n, use);
        if (weight.code_bits == 4) return product(Codes4(weight.levels), weight, rows, x, units, n, use);
    }
    product(Numbers<Unit>(), weight, rows, x, units, n, use);
}

}  // namespace
