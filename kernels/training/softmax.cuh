// A row's softmax and loss, and the sum of all rows' losses, for the kernels that end in them.
#pragma once
#include "shape.cuh"

// Over ROW_LANES neighbouring lanes; all of them get the result.
template <int ROW_LANES>
__device__ __forceinline__ scalar sum_of_lanes(scalar value) {
#pragma unroll
    for (int other = ROW_LANES / 2; other > 0; other /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, other);
    }
    return value;
}

// A row's largest element, the first place that has it, and the sum of exp(z - best).
struct Row {
    scalar best;
    int best_at;
    scalar total;

    __device__ __forceinline__ scalar loss(scalar of_label) const {
        return log(total) - (of_label - best);
    }
    // A row with a NaN is no hit.
    __device__ __forceinline__ bool is_hit(int label) const {
        return best_at == label && total == total;
    }
};

// Look at a row by ROW_LANES neighbouring lanes, each from `lane` on; `at(c)` is an element, `end`
// their number: 0 for lanes that only take part in the shuffles.
template <int ROW_LANES, class At>
__device__ __forceinline__ Row look_at_row(int lane, int end, int classes, At at) {
    Row row{0, classes, 0};
    for (int c = lane; c < end; c += ROW_LANES) {
        if (row.best_at == classes || at(c) > row.best) {
            row.best = at(c);
            row.best_at = c;
        }
    }
#pragma unroll
    for (int other = ROW_LANES / 2; other > 0; other /= 2) {
        const scalar theirs = __shfl_xor_sync(0xffffffffu, row.best, other);
        const int theirs_at = __shfl_xor_sync(0xffffffffu, row.best_at, other);
        const bool is_greater =
            theirs > row.best || (theirs == row.best && theirs_at < row.best_at);
        if (theirs_at < classes && (row.best_at == classes || is_greater)) {
            row.best = theirs;
            row.best_at = theirs_at;
        }
    }
    scalar total = 0;
    for (int c = lane; c < end; c += ROW_LANES) total += exp(at(c) - row.best);
    row.total = sum_of_lanes<ROW_LANES>(total);
    return row;
}

// Over the block; thread 0 gets the result, the others 0. Every thread must come here.
template <int BLOCK_THREADS, class T>
__device__ __forceinline__ T sum_of_block(T* of_warps, T value) {
#pragma unroll
    for (int other = 16; other > 0; other /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, other);
    }
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
    __syncthreads();  // thread 0 adds what the warps stored
    T sum = 0;
    if (threadIdx.x == 0) {
        for (int warp = 0; warp < BLOCK_THREADS / 32; warp++) sum += of_warps[warp];
    }
    return sum;
}

// What blocks leave for the one that ends last, and where that puts the batch's figures.
struct Figures {
    scalar *losses, *block_losses;
    int *hits, *block_hits;
    unsigned* ticket;
    const int* step;  // null: 0
};

// Add up loss and hits of all threads of all blocks: losses[step] is the mean over `rows`. Always
// in the same order; the block that comes last does it. Every thread must come here.
template <int BLOCK_THREADS>
__device__ __forceinline__ void add_up(const Figures& to, scalar loss, int hit, int rows) {
    __shared__ scalar of_warps[BLOCK_THREADS / 32];
    __shared__ int hits_of_warps[BLOCK_THREADS / 32];
    __shared__ bool is_last;
    const scalar block_loss = sum_of_block<BLOCK_THREADS>(of_warps, loss);
    const int block_hit = sum_of_block<BLOCK_THREADS>(hits_of_warps, hit);
    if (threadIdx.x == 0) {
        to.block_losses[blockIdx.x] = block_loss;
        to.block_hits[blockIdx.x] = block_hit;
        __threadfence();  // whoever sees the ticket sees the two
        is_last = atomicInc(to.ticket, gridDim.x - 1) == gridDim.x - 1;  // which sets it back to 0
    }
    __syncthreads();  // is_last is for all
    if (is_last) {
        __threadfence();  // and the last one reads no earlier than it saw the ticket
        scalar all_losses = 0;
        int all_hits = 0;
        for (int i = threadIdx.x; i < gridDim.x; i += BLOCK_THREADS) {
            all_losses += to.block_losses[i];
            all_hits += to.block_hits[i];
        }
        all_losses = sum_of_block<BLOCK_THREADS>(of_warps, all_losses);
        all_hits = sum_of_block<BLOCK_THREADS>(hits_of_warps, all_hits);
        if (threadIdx.x == 0) {
            const int at = to.step ? *to.step : 0;
            to.losses[at] = all_losses / rows;
            to.hits[at] = all_hits;
        }
    }
}
