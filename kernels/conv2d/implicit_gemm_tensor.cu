// y[n,k,p,q] = b[k] + sum_{c,r,s} x[n,c,h,w] w[k,c,r,s], and both its gradients, on tensor cores
// x (N,C,H,W), w (K,C,R,S), b (K) or null, y (N,K,P,Q), float32; factors in TF32 or bfloat16
// A block owns TILE_M x TILE_N of the product, a warp 64x64 of that as 4x8 tiles of 16x8 sums.
// Against implicit_gemm: a warp multiplies whole tiles in one instruction. Both sides are packed
// first, rounded and with what is summed over innermost: so an asynchronous copy brings 16 bytes
// of it, two tiles ahead, and an instruction four tiles of it to the lanes that multiply them.
// Limits: C (for dx K, for dw N) counts as a multiple of 8 (TF32: 4). Of the largest tile one block
// is resident: its warps are 8 as well, and what they share is read half as often.
#include "gather.cuh"
#include "tensor_core.cuh"

static_assert(sizeof(scalar) == 4, "tensor cores take no doubles here");

constexpr int N_TILES = 8;
constexpr int WARP_M = 16 * M_TILES, WARP_N = 8 * N_TILES;
constexpr int TILE_M = WARP_M * WARPS_M, TILE_N = WARP_N * WARPS_N;
constexpr int THREADS = 32 * WARPS_M * WARPS_N;
// Room for 255 registers a thread: the sums alone take 128.
constexpr int RESIDENT_BLOCKS = 256 / THREADS;
constexpr int IN_VECTOR = BF16 ? 8 : 4;  // factors in 16 bytes
constexpr int ROW = 4;                   // vectors of a row of a tile: gemm_k for two instructions
constexpr int LINES = THREADS / ROW;     // rows that are copied at a time
constexpr int STAGES = 3;

typedef float Sums[M_TILES][N_TILES][4];

struct Stage {
    uint4 a[TILE_M][ROW], b[TILE_N][ROW];
};

__device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4], unsigned first,
                                    unsigned second) {
    const unsigned b[2] = {first, second};
    if (BF16) {
        mma_bf16(d, a, b);
    } else {
        mma_tf32(d, a, b);
    }
}

// One vector of 8 rows, which an instruction reads at once, is on all 32 banks.
__device__ __forceinline__ int swizzled(int row, int vector) {
    return vector ^ row / 2 % ROW;
}

// gemm_k as vectors (i, j, v): on the left they lie at left + i * left_i + j * left_j + v, on the
// right `vectors` to a pixel, (down, right) + (i * down_i, j * right_j) from a column's origin.
struct Terms {
    int count_i, count_j, vectors;
    int left, left_i, left_j;
    int down, down_i, right, right_j;

    __device__ __forceinline__ int tiles() const {
        return ceil_div(count_i * count_j * vectors, ROW);
    }
};

// A product's sides, and where its sums go: `plane` apart for each row, from a column's place.
struct Sides {
    const unsigned* __restrict__ left;
    const unsigned* __restrict__ right;
    int rows, row_pitch;  // of the left side, the latter in vectors
    Planes image;         // a pixel of the right side has all its planes
    float* __restrict__ output;
    int plane;
    bool in_pairs;  // columns 2i and 2i + 1 are neighbours, and aligned, in the output
};

__device__ __forceinline__ void multiply(const Stage& stage, Sums& sums) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int row = warp / WARPS_N * WARP_M + lane % 16;
    const int col = warp % WARPS_N * WARP_N + lane / 16 * 8 + lane % 8;
#pragma unroll  // all indices into registers are known
    for (int step = 0; step < ROW / 2; step++) {
        // Rows 0-7 and 8-15 of the step's first vector, then of its second.
        unsigned a[M_TILES][4];
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
            load_matrices(a[m], &stage.a[row + m * 16][swizzled(row, step * 2 + lane / 16)]);
        }
#pragma unroll
        for (int n = 0; n < N_TILES; n += 2) {
            // Both vectors of 8 columns, then of the next 8.
            unsigned b[4];
            load_matrices(b, &stage.b[col + n * 8][swizzled(col, step * 2 + lane / 8 % 2)]);
#pragma unroll
            for (int m = 0; m < M_TILES; m++) {
                mma(sums[m][n], a[m], b[0], b[1]);
                mma(sums[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

template <class ColumnAt>
__device__ __forceinline__ void packed_product(const Sides& sides, const Terms& terms,
                                               const float* __restrict__ bias, bool adds, int block,
                                               int first_tile, int tiles, ColumnAt column_at) {
    extern __shared__ uint4 shared[];
    Stage* stages = reinterpret_cast<Stage*>(shared);
    __shared__ int place[TILE_N];

    const int tiles_m = ceil_div(sides.rows, TILE_M);
    const int m0 = block % tiles_m * TILE_M, n0 = block / tiles_m * TILE_N;
    const uint4* left = reinterpret_cast<const uint4*>(sides.left);
    const uint4* right = reinterpret_cast<const uint4*>(sides.right);

    // A thread copies the same vector of several rows and columns. They come by way of L1: the taps
    // beside each other read many of the same pixels.
    const int line = threadIdx.x / ROW, vector = threadIdx.x % ROW;
    const int at_vector = swizzled(line, vector);
    Column columns[TILE_N / LINES];
#pragma unroll
    for (int i = 0; i < TILE_N / LINES; i++) {
        columns[i] = column_at(n0 + line + i * LINES);
        columns[i].offset *= terms.vectors;
        if (vector == 0) place[line + i * LINES] = columns[i].place;
    }
    const int count_j = max(terms.count_j, 1);  // a phase may be without taps
    const Index4 begin = unflatten(first_tile * ROW + vector, 1, count_j, terms.vectors);
    const Index4 next = unflatten(ROW, 1, count_j, terms.vectors);
    int i = begin.a, j = begin.c, v = begin.d;
    const auto copy = [&](Stage& stage) {
        const bool is_term = i < terms.count_i;
        const int from_left = terms.left + i * terms.left_i + j * terms.left_j + v;
#pragma unroll
        for (int a = 0; a < TILE_M / LINES; a++) {
            const int row = m0 + line + a * LINES;
            copy_async(&stage.a[line + a * LINES][at_vector],
                       left + row * sides.row_pitch + from_left, is_term && row < sides.rows);
        }
        const int down = terms.down + i * terms.down_i;
        const int to_right = is_term ? terms.right + j * terms.right_j : NOWHERE;
        const int shift = (down * sides.image.cols + to_right) * terms.vectors + v;
#pragma unroll
        for (int b = 0; b < TILE_N / LINES; b++) {
            copy_async(&stage.b[line + b * LINES][at_vector], right + columns[b].offset + shift,
                       in_image(sides.image, columns[b].row, columns[b].col, down, to_right));
        }
        // The next tile, with carries.
        v += next.d;
        const int more_j = v >= terms.vectors;
        v -= more_j ? terms.vectors : 0;
        j += next.c + more_j;
        const int more_i = j >= count_j;
        j -= more_i ? count_j : 0;
        i += next.a + more_i;
    };

    for (int tile = 0; tile < STAGES - 1; tile++) {
        if (tile < tiles) copy(stages[tile]);
        copy_commit();
    }
    Sums sums = {};
    for (int tile = 0; tile < tiles; tile++) {
        // This tile is there when each thread has waited for its own copies; and all have read the
        // tile before, whose place the next copies take.
        copy_wait<STAGES - 2>();
        __syncthreads();
        if (tile + STAGES - 1 < tiles) copy(stages[(tile + STAGES - 1) % STAGES]);
        copy_commit();  // an empty group too: the wait counts them
        multiply(stages[tile % STAGES], sums);
    }
    __syncthreads();  // all store to the places that others worked out

    // Store: 4 lanes have 8 neighbours in a row.
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int a = 0; a < M_TILES * 2; a++) {
        const int row = m0 + warp / WARPS_N * WARP_M + a * 8 + lane / 4;
        if (row >= sides.rows) continue;
        const float start = bias ? bias[row] : 0.0f;
        float* out = sides.output + row * sides.plane;
#pragma unroll
        for (int b = 0; b < N_TILES; b++) {
            const int* to = &place[warp % WARPS_N * WARP_N + b * 8 + lane % 4 * 2];
            float2 pair = make_float2(sums[a / 2][b][a % 2 * 2] + start,
                                      sums[a / 2][b][a % 2 * 2 + 1] + start);
            if (sides.in_pairs) {
                if (to[0] < 0) continue;
                float2& there = *reinterpret_cast<float2*>(out + to[0]);
                if (adds) pair.x += there.x, pair.y += there.y;
                there = pair;
                continue;
            }
            if (to[0] >= 0) out[to[0]] = pair.x + (adds ? out[to[0]] : 0.0f);
            if (to[1] >= 0) out[to[1]] = pair.y + (adds ? out[to[1]] : 0.0f);
        }
    }
}

// The columns of a gathered product, from pixels that have all planes.
__device__ __forceinline__ void gathered_product(const unsigned* __restrict__ left,
                                                 const unsigned* __restrict__ right,
                                                 const float* __restrict__ bias,
                                                 float* __restrict__ output, Gather gather,
                                                 int row_pitch, const Terms& terms, int block) {
    const int plane = gather.to.rows * gather.to.cols;
    const bool in_pairs = gather.is_dense() && plane % 2 == 0 && (size_t)output % 8 == 0;
    gather.from.count = 1;  // offsets count pixels
    // A phase may have fewer columns than the largest.
    const bool is_there = block / ceil_div(gather.to.count, TILE_M) * TILE_N < gather.columns();
    packed_product({left, right, gather.to.count, row_pitch, gather.from, output, plane, in_pairs},
                   terms, bias, false, block, 0, is_there ? terms.tiles() : 0,
                   [&](int n) { return column_at(gather, n); });
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT_BLOCKS)
    conv2d_implicit_gemm_tensor_forward(const unsigned* __restrict__ packed_w,
                                        const unsigned* __restrict__ packed_x,
                                        const float* __restrict__ b, float* __restrict__ y,
                                        const Conv2dShape shape) {
    const int vectors = ceil_div(shape.c, IN_VECTOR), row = shape.s * vectors;
    const Terms terms{shape.r, shape.s, vectors,          0, row,
                      vectors, 0,       shape.dilation_h, 0, shape.dilation_w};
    gathered_product(packed_w, packed_x, b, y, gather_forward(shape, 1), shape.r * row, terms,
                     blockIdx.x);
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT_BLOCKS)
    conv2d_implicit_gemm_tensor_backward_data(const unsigned* __restrict__ packed_w,
                                              const unsigned* __restrict__ packed_dy,
                                              float* __restrict__ dx, const Conv2dShape shape,
                                              const int blocks_a_phase) {
    const int phase = blockIdx.x / blocks_a_phase, block = blockIdx.x % blocks_a_phase;
    const Gather gather = gather_backward_data(shape, phase, 1);
    const Hits in_r =
        find_hits(gather.first_h + shape.pad_top, shape.stride_h, shape.dilation_h, shape.r, 0);
    const Hits in_s =
        find_hits(gather.first_w + shape.pad_left, shape.stride_w, shape.dilation_w, shape.s, 0);
    const int vectors = ceil_div(shape.k, IN_VECTOR), row = shape.s * vectors;
    const Terms terms{ceil_div(shape.r - in_r.first, in_r.step),
                      ceil_div(shape.s - in_s.first, in_s.step),
                      vectors,
                      in_r.first * row + in_s.first * vectors,
                      in_r.step * row,
                      in_s.step * vectors,
                      in_r.at,
                      -in_r.move,
                      in_s.at,
                      -in_s.move};
    gathered_product(packed_w, packed_dy, nullptr, dx, gather, shape.r * row, terms, block);
}

// dw[k,c,r,s] = sum_{n,p,q} dy[n,k,p,q] x[n,c,h,w]: gemm_n = C*R*S, and gemm_k = P*Q*N in `slices`.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT_BLOCKS)
    conv2d_implicit_gemm_tensor_backward_filter(const unsigned* __restrict__ packed_x,
                                                const unsigned* __restrict__ packed_dy,
                                                float* __restrict__ partial,
                                                const Conv2dShape shape, const int slices,
                                                const int adds) {
    const int depth = shape.c * shape.r * shape.s;
    const int blocks = ceil_div(shape.k, TILE_M) * ceil_div(depth, TILE_N);
    const int slice = blockIdx.x / blocks, block = blockIdx.x % blocks;
    const int vectors = ceil_div(shape.n, IN_VECTOR), row = shape.q * vectors;
    const Terms terms{shape.p, shape.q, vectors,        0, row,
                      vectors, 0,       shape.stride_h, 0, shape.stride_w};
    const int begin = (int)((long long)terms.tiles() * slice / slices);
    const int end = (int)((long long)terms.tiles() * (slice + 1) / slices);
    float* dw = partial + slice * shape.k * depth;
    const bool in_pairs = depth % 2 == 0 && (size_t)dw % 8 == 0;
    packed_product(
        {packed_dy, packed_x, shape.k, shape.p * row, {1, shape.h, shape.w}, dw, depth, in_pairs},
        terms, nullptr, adds != 0, block, begin, end - begin, [&](int n) {
            const Index4 at = unflatten(n, shape.c, shape.r, shape.s);
            const int h = input_row(shape, 0, at.c), w = input_col(shape, 0, at.d);
            const bool in_filters = n < depth;
            return Column{x_offset(shape, 0, at.b, h, w), in_filters ? h : NOWHERE, w,
                          in_filters ? n : -1};
        });
}
