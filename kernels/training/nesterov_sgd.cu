// g = gradient + weight_decay w;  v = momentum v + g;  w -= rate (g + momentum v)
// weights, gradient and velocity: all parameters, one flat vector each; rate is rates[step[0]]
// A thread an element; of parts that are in many slices, a block 32 elements.
// Against an operation a launch: each vector is read once and written once, and a gradient that
// kernels left in slices of the batch is added up on the way. The rate is read by the kernel, not
// passed to it, and the block that ends last adds 1 to the step: a CUDA graph of a training step
// can be replayed as it is. Limits: none; without a step the rate is rates[0].
#include "index.cuh"

// Elements begin to end of the gradient are the sum of `slices` pieces of `partial`, one behind the
// other from `offset` on. With a first block they are added up by blocks of 32 elements.
struct Piece {
    int begin, end, slices, offset, first_block;
};
struct Pieces {
    Piece of[MOST_PIECES];
    int count, blocks;  // the latter of those that have a first one
};

// The element that this thread owns, and its gradient; -1 for none. Every thread must come here.
struct Owned {
    int element;
    scalar gradient;
};
__device__ __forceinline__ Owned add_up(const scalar* __restrict__ gradient,
                                        const scalar* __restrict__ partial, int size,
                                        const Pieces& pieces) {
    constexpr int WARPS = THREADS / 32;
    __shared__ scalar sums[WARPS][32];
    const int block = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (block >= pieces.blocks) {
        const int i = (block - pieces.blocks) * THREADS + threadIdx.x;
        if (i >= size) return {-1, 0};
        for (int p = 0; p < pieces.count; p++) {
            const Piece& piece = pieces.of[p];
            if (i < piece.begin || i >= piece.end) continue;
            if (piece.first_block >= 0) return {-1, 0};
            const scalar* from = partial + piece.offset + i - piece.begin;
            const int length = piece.end - piece.begin;
            scalar sum = 0;
#pragma unroll 8
            for (int slice = 0; slice < piece.slices; slice++) sum += from[slice * length];
            return {i, sum};
        }
        return {i, gradient[i]};
    }
    int p = 0;
    while (p + 1 < pieces.count && block >= pieces.of[p + 1].first_block &&
           pieces.of[p + 1].first_block >= 0) {
        p++;
    }
    const Piece& piece = pieces.of[p];
    const int length = piece.end - piece.begin;
    const int i = (block - piece.first_block) * 32 + lane;
    const bool in_piece = i < length;
    scalar sum = 0;
    if (in_piece) {
        const scalar* from = partial + piece.offset + i;
#pragma unroll 8
        for (int slice = warp; slice < piece.slices; slice += WARPS) sum += from[slice * length];
    }
    sums[warp][lane] = sum;
    __syncthreads();  // the first warp adds up the others
    if (!in_piece || warp > 0) return {-1, 0};
    for (int other = 1; other < WARPS; other++) sum += sums[other][lane];
    return {piece.begin + i, sum};
}

extern "C" __global__ void __launch_bounds__(THREADS)
    nesterov_sgd(scalar* __restrict__ weights, const scalar* __restrict__ gradient,
                 const scalar* __restrict__ partial, scalar* __restrict__ velocity,
                 const scalar* __restrict__ rates, int* step, unsigned* ticket,
                 const scalar momentum, const scalar weight_decay, const int size,
                 const Pieces pieces) {
    const scalar rate = rates[step ? *step : 0];
    const Owned own = add_up(gradient, partial, size, pieces);
    if (own.element >= 0) {
        const int i = own.element;
        const scalar g = own.gradient + weight_decay * weights[i];
        const scalar v = momentum * velocity[i] + g;
        velocity[i] = v;
        weights[i] -= rate * (g + momentum * v);
    }
    if (step) {
        __syncthreads();  // the whole block has read the step
        if (threadIdx.x == 0) {
            __threadfence();  // before it says so with its ticket
            const bool is_last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;  // back to 0
            __threadfence();  // all blocks have said so before the step changes
            if (is_last) *step += 1;
        }
    }
}

// The gradient alone, for who wants to see it before the update.
extern "C" __global__ void __launch_bounds__(THREADS)
    sum_pieces(scalar* gradient, const scalar* __restrict__ partial, const int size,
               const Pieces pieces) {
    const Owned own = add_up(gradient, partial, size, pieces);
    if (own.element >= 0) gradient[own.element] = own.gradient;
}
