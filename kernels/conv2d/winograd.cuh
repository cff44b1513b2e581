// What both Winograd kernels have in common: 16 matrix products at once in registers, one for each
// point at which the tiles' polynomials are taken (row * 4 + column of a 4 x 4 tile).
#pragma once
#include "conv2d/window.cuh"

constexpr int POINTS = 16;
constexpr int SIDE = 32;                       // a block's products are SIDE x SIDE
constexpr int THREADS = 256;                   // 8 warps of 2 points each
constexpr int STEPS = 8 * 4 / sizeof(scalar);  // of the sums in shared memory at a time

// A lane owns LEFT x RIGHT sums of each of its warp's points.
constexpr int LEFT = 8, RIGHT = 4;
// A lane's left rows are LEFT / LANES runs of LANES: run v of all lanes is a round of `exchange`.
constexpr int ROUNDS = LEFT / LANES, ROUND_ROWS = SIDE / ROUNDS;

// sums += left * right over some steps; both are [step][point][SIDE], steps STEP words apart.
template <int STEP>
__device__ __forceinline__ void multiply_points(scalar (&sums)[2][LEFT][RIGHT], const scalar* left,
                                                const scalar* right, int steps) {
    const int first = threadIdx.x / 32 * 2 * SIDE;
    const Vector* a = reinterpret_cast<const Vector*>(left + first) + lane_left();
    const Vector* b = reinterpret_cast<const Vector*>(right + first) + lane_right() * RIGHT / LANES;
#pragma unroll 1
    for (int step = 0; step < steps; step++) {
#pragma unroll
        for (int point = 0; point < 2; point++) {
            Vector rows[LEFT / LANES], cols[RIGHT / LANES];
#pragma unroll
            for (int v = 0; v < LEFT / LANES; v++) {
                rows[v] = a[(point * SIDE + v * ROUND_ROWS) / LANES];
            }
#pragma unroll
            for (int v = 0; v < RIGHT / LANES; v++) cols[v] = b[point * SIDE / LANES + v];
#pragma unroll
            for (int i = 0; i < LEFT; i++) {
#pragma unroll
                for (int j = 0; j < RIGHT; j++) {
                    sums[point][i][j] +=
                        rows[i / LANES].at[i % LANES] * cols[j / LANES].at[j % LANES];
                }
            }
        }
        a += STEP / LANES;
        b += STEP / LANES;
    }
}

// Rows of sums in shared memory: SIDE and a pad, so that lanes with different rows store to
// different banks.
constexpr int PITCH = SIDE + 4;

// Put one run of every lane's rows to shared memory as [point][row of the round][SIDE]: a thread
// that wants all points of one sum finds them there.
__device__ __forceinline__ void exchange(scalar* shared, const scalar (&sums)[2][LEFT][RIGHT],
                                         int round) {
#pragma unroll
    for (int point = 0; point < 2; point++) {
#pragma unroll
        for (int i = 0; i < LANES; i++) {
            const int row = (threadIdx.x / 32 * 2 + point) * ROUND_ROWS + lane_left() * LANES + i;
            Vector* to =
                reinterpret_cast<Vector*>(shared + row * PITCH) + lane_right() * RIGHT / LANES;
#pragma unroll
            for (int v = 0; v < RIGHT / LANES; v++) {
                Vector columns;
#pragma unroll
                for (int j = 0; j < LANES; j++) {
                    columns.at[j] = sums[point][round * LANES + i][v * LANES + j];
                }
                to[v] = columns;
            }
        }
    }
}

// The transforms of F(2, 3), one dimension at a time: to[..] = matrix * from[..].
// Data, B^T: 4 -> 4.
__device__ __forceinline__ void data_points(const scalar (&d)[4], scalar (&to)[4]) {
    to[0] = d[0] - d[2];
    to[1] = d[1] + d[2];
    to[2] = d[2] - d[1];
    to[3] = d[1] - d[3];
}
// Filters, G: 3 -> 4.
__device__ __forceinline__ void filter_points(const scalar (&g)[3], scalar (&to)[4]) {
    const scalar ends = scalar(0.5) * (g[0] + g[2]), middle = scalar(0.5) * g[1];
    to[0] = g[0];
    to[1] = ends + middle;
    to[2] = ends - middle;
    to[3] = g[2];
}
// Outputs, A^T: 4 -> 2.
__device__ __forceinline__ void outputs_of(const scalar (&m)[4], scalar (&to)[2]) {
    to[0] = m[0] + m[1] + m[2];
    to[1] = m[1] - m[2] - m[3];
}
// A gradient goes the same ways back. Of outputs, A: 2 -> 4.
__device__ __forceinline__ void gradient_points(const scalar (&e)[2], scalar (&to)[4]) {
    to[0] = e[0];
    to[1] = e[0] + e[1];
    to[2] = e[0] - e[1];
    to[3] = -e[1];
}
// Of filters, G^T: 4 -> 3.
__device__ __forceinline__ void gradients_of(const scalar (&m)[4], scalar (&to)[3]) {
    const scalar ends = scalar(0.5) * (m[1] + m[2]);
    to[0] = m[0] + ends;
    to[1] = scalar(0.5) * (m[1] - m[2]);
    to[2] = m[3] + ends;
}

// Both dimensions: matrix * from * transposed matrix.
template <int FROM, int TO>
__device__ __forceinline__ void both_ways(void (&transform)(const scalar (&)[FROM], scalar (&)[TO]),
                                          const scalar (&from)[FROM][FROM], scalar (&to)[TO][TO]) {
    scalar half[FROM][TO];
#pragma unroll
    for (int row = 0; row < FROM; row++) transform(from[row], half[row]);
#pragma unroll
    for (int col = 0; col < TO; col++) {
        scalar column[FROM], done[TO];
#pragma unroll
        for (int row = 0; row < FROM; row++) column[row] = half[row][col];
        transform(column, done);
#pragma unroll
        for (int row = 0; row < TO; row++) to[row][col] = done[row];
    }
}

// The tile of 2 x 2 outputs that a flat number means, and its 4 x 4 part of the input.
struct WinogradTile {
    int n, p, q;
    bool exists;
};
__device__ __forceinline__ WinogradTile tile_of(int i, const Conv2dShape& shape) {
    const Index4 at = unflatten(i, shape.n, ceil_div(shape.p, 2), ceil_div(shape.q, 2));
    return WinogradTile{at.b, at.c * 2, at.d * 2, at.a == 0};
}

// Read a tile of one channel, zero outside the image, and transform it. WIDTH lanes beside each
// other have tiles that follow each other; all of a warp take part.
template <int WIDTH>
__device__ __forceinline__ void load_data(scalar (&points)[4][4], const scalar* __restrict__ x,
                                          const Conv2dShape& shape, const WinogradTile& tile, int c,
                                          bool is_wanted) {
    const int top = tile.p - shape.pad_top, left = tile.q - shape.pad_left;
    const scalar* plane = x + x_offset(shape, tile.n, c, 0, 0);
    const int lane = threadIdx.x % WIDTH;
    const bool in_pairs = shape.w % 2 == 0 && reinterpret_cast<size_t>(x) % sizeof(Pair) == 0;
    const bool is_first = lane == 0 || tile.q == 0;
    const bool is_last = lane == WIDTH - 1 || tile.q + 2 >= shape.q;
    scalar data[4][4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const bool in_rows = is_wanted && tile.exists && inside(top + i, shape.h);
        const scalar* row = plane + (top + i) * shape.w + left;
        const auto one = [&](int j) {
            return in_rows && inside(left + j, shape.w) ? row[j] : scalar(0);
        };
        const auto two = [&](int j) {
            Pair pair = {};
            if (in_rows && inside(left + j, shape.w)) {
                pair = *reinterpret_cast<const Pair*>(row + j);
            }
            return pair;
        };
        if (in_pairs && left % 2 == 0) {
            const Pair begin = two(0), end = two(2);
            data[i][0] = begin.first;
            data[i][1] = begin.second;
            data[i][2] = end.first;
            data[i][3] = end.second;
        } else if (in_pairs) {
            // The middle is a pair; what is left and right of it the neighbours have read.
            const Pair middle = two(1);
            const scalar before = __shfl_up_sync(~0u, middle.second, 1, WIDTH);
            const scalar behind = __shfl_down_sync(~0u, middle.first, 1, WIDTH);
            data[i][0] = is_first ? one(0) : before;
            data[i][1] = middle.first;
            data[i][2] = middle.second;
            data[i][3] = is_last ? one(3) : behind;
        } else {
#pragma unroll
            for (int j = 0; j < 4; j++) data[i][j] = one(j);
        }
    }
    both_ways(data_points, data, points);
}
