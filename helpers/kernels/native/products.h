// Products of weights with few tokens.
//
// Weights lie in tiles, in the order in which they are read (tiles.py). Every sum is made in an order that does not
// depend on how many tokens are read together.

#pragma once

#include <omp.h>
#include <vector>

#include "codes.h"

namespace {

// Where memory is fetched ahead, and how many times what is here will be read: each time fetches its part.
struct Fetch {
    const char* at;
    int passes;
};

// Sums of a tile's rows over some units for N tokens x, which lie `stride` apart: upper and lower, in registers. G such
// stretches of a tile, `apart` bytes from each other, have sums of their own: one sum alone would wait for itself.
template <class Format, class Unit, int N, int G>
inline __attribute__((always_inline)) void add_up(
    const Format& format, const char* w, size_t apart,
    const Unit* x, int stride, int units, Fetch& ahead,
    typename Format::Sum (&upper)[G][N], typename Format::Sum (&lower)[G][N]) {
    const int step = Format::SIZE / ahead.passes;
    for (int k = 0; k < units; k++, w += Format::SIZE)
#pragma GCC unroll 4
        for (int g = 0; g < G; g++, ahead.at += step) {
            for (int i = 0; i < Format::SIZE; i += 64) __builtin_prefetch(ahead.at + i);
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
    const size_t codes = weight.group * Format::SIZE, apart = codes + ROWS * weight.scale_bytes;
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
    typename Format::Sum upper[1][N] = {}, lower[1][N] = {};
    if constexpr (std::is_base_of<Scaled, Format>::value) {
        constexpr int G = N <= 3 ? 4 : N <= 6 ? 2 : 1;
        int k = 0;
        for (; k + G * weight.group <= units; k += G * weight.group)
            add_groups<Format, Unit, N, G>(format, weight, w, x + k, units, ahead, upper, lower);
        for (; k < units; k += weight.group)
            add_groups<Format, Unit, N, 1>(format, weight, w, x + k, units, ahead, upper, lower);
    } else add_up<Format, Unit, N, 1>(format, w, 0, x, units, units, ahead, upper, lower);

    const auto floats = [&](typename Format::Sum sum, int row) {
        if constexpr (std::is_same<Format, Bytes>::value) {
            const char* end = w + (size_t)units * Format::SIZE;
            const vec whole = __builtin_convertvector(sum - load((const bytes4*)end + row), vec);
            return whole * load((const float*)end + ROWS + row);
        } else return sum;
    };
#pragma GCC unroll 12
    for (int t = 0; t < N; t++) {
        store(sums + t * ROWS, floats(upper[0][t], 0));
        store(sums + t * ROWS + LANES, floats(lower[0][t], LANES));
    }
}

// The same for n tokens up to N: each number of them has code of its own.
template <class Format, class Unit, int N>
void up_to(int n, const Format& format, const Weight& weight, const char* w, const Unit* x, int units, Fetch ahead,
           float* sums) {
    if constexpr (N > 1)
        if (n < N) return up_to<Format, Unit, N - 1>(n, format, weight, w, x, units, ahead, sums);
    tile_product<Format, Unit, N>(format, weight, w, x, units, ahead, sums);
}

// The tokens x (n, units) of a product, and room for them as bytes, (n, units / 2) and their scales (n): where a weight
// wants them so.
template <class Unit> struct Inputs {
    const Unit* x;
    int units, n;
    bytes4* bytes;
    float* scales;
};

// y = W x: use(token, tile, upper, lower). Within a parallel region: the threads share the tiles, and wait for each
// other at the end.
template <class Format, class Unit, class Use>
void product(const Format& format, const Weight& weight, int rows, const Unit* x, int units, int n, const Use& use) {
    const int passes = (n + TOKENS - 1) / TOKENS;
    const size_t bytes = (size_t)units * Format::SIZE + format.behind(weight, units);
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
void product(const Weight& weight, int rows, const Inputs<Unit>& in, const Use& use) {
    if constexpr (IN_UNIT<Unit> == 2) {  // codes become bfloat16 numbers
        if (weight.kind == CODES_8) return product(Codes8(), weight, rows, in.x, in.units, in.n, use);
        if (weight.kind == CODES_4) return product(Codes4(weight.levels), weight, rows, in.x, in.units, in.n, use);
        if (weight.kind == BYTES) {
            const int units = in.units / 2;
#pragma omp for schedule(static)
            for (int t = 0; t < in.n; t++)
                to_bytes(in.x + (size_t)t * in.units, in.units, in.bytes + (size_t)t * units, in.scales + t);
            return product(Bytes(), weight, rows, in.bytes, units, in.n, [&](int t, int tile, vec upper, vec lower) {
                use(t, tile, upper * in.scales[t], lower * in.scales[t]);
            });
        }
    }
    product(Numbers<Unit>(), weight, rows, in.x, in.units, in.n, use);
}

}  // namespace
