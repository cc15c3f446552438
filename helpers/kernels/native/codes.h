// What a weight is stored as, and how it becomes numbers in registers: as they are, or from codes of 8 or 4 bits.

#pragma once

#include "vectors.h"

// A weight in tiles: numbers, float or bfloat16; codes of 8 bits (signs and magnitudes) or of 4 (places in a table of
// 16 bfloat16 levels), which become bfloat16 numbers, times a scale for each row and `group` of units, bfloat16 or
// float; or bytes, for inputs that are bytes, too. Scales follow their group's codes.
enum Kind { NUMBERS, CODES_8, CODES_4, BYTES };
struct Weight {
    const void* tiles;
    const uint16_t* levels;
    int32_t kind, group, scale_bytes;
};

namespace {

// What a tile holds of one unit of columns, LANES rows each.
template <class Vector> struct Halves { Vector upper, lower; };

// The ways in which a tile holds its numbers: `SIZE` bytes of it are those of one unit, `behind(units)` bytes more are
// scales; a token's sums are of the type Sum.
template <class Unit> struct Numbers {
    static constexpr int SIZE = ROWS * sizeof(Unit);
    typedef vec Sum;
    static size_t behind(const Weight&, int) { return 0; }
    auto operator()(const char* w) const {
        const auto upper = load((const Unit*)w), lower = load((const Unit*)w + LANES);
        return Halves<typename std::remove_const<decltype(upper)>::type>{upper, lower};
    }
};

struct Scaled {
    typedef vec Sum;
    static size_t behind(const Weight& w, int units) { return (size_t)units / w.group * ROWS * w.scale_bytes; }
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

struct Codes8 : Scaled {  // a sign bit and a magnitude; 8 bytes of the upper rows, 8 of the lower ones, and so on
    static constexpr int SIZE = 2 * ROWS;
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

struct Codes4 : Scaled {  // two to a byte: the upper rows' in the low bits, the lower rows' in the high ones
    static constexpr int SIZE = ROWS;
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

// Codes of 8 bits for inputs that are such codes, too. A lane multiplies four columns of its row at once, and adds
// whole numbers: exactly, in any order. Inputs are codes plus 128, since the processor wants one side without signs;
// what that adds to each row's sum follows the tile, and then the rows' scales, in float.
struct Bytes {
    static constexpr int SIZE = 4 * ROWS;
    typedef ints Sum;
    static size_t behind(const Weight&, int) { return 2 * ROWS * sizeof(float); }
    Halves<ints> operator()(const char* w) const { return {load((const bytes4*)w), load((const bytes4*)w + LANES)}; }
};

inline Halves<vec> scales(const char* at, bool wide) {
    if (wide) return {load((const float*)at), load((const float*)at + LANES)};
    typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
    halves upper, lower;
    std::memcpy(&upper, at, sizeof upper), std::memcpy(&lower, at + sizeof upper, sizeof lower);
    return {(vec)(__builtin_convertvector(upper, bits) << 16), (vec)(__builtin_convertvector(lower, bits) << 16)};
}

}  // namespace
