// loss = mean over n of log(sum_c exp(z[n,c])) - z[n,label[n]]; dz = (softmax(z) - onehot(label)) /
// N z and dz (N,classes), label (N); losses and hits: one element each, that of step[0] LANES
// threads a row, side by side in a warp; rows in blocks of THREADS. Against a launch for each
// operation: one launch, and z is read from memory once. The block that ends last adds up what all
// found, always in the same order. Limits: any N and any classes; a row's largest value is taken
// off before exp, so that none overflows. A row with a NaN is no hit.
#include "shape.cuh"

constexpr unsigned ALL = 0xffffffffu;

// Over LANES neighbouring lanes; all of them get the result.
__device__ __forceinline__ scalar sum_of_lanes(scalar value) {
#pragma unroll
    for (int other = LANES / 2; other > 0; other /= 2) value += __shfl_xor_sync(ALL, value, other);
    return value;
}

// Over the block; thread 0 gets the result, the others 0. Every thread must come here.
template <class T>
__device__ __forceinline__ T sum_of_block(T* shared, T value) {
    shared[threadIdx.x] = value;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();  // a thread adds what another one stored
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    }
    return threadIdx.x == 0 ? shared[0] : T(0);
}

// The 2: without a least number of resident blocks ptxas aims at more of them, and spills for it.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    softmax_cross_entropy(const scalar* __restrict__ z, const long long* __restrict__ labels,
                          scalar* __restrict__ dz, scalar* __restrict__ losses,
                          int* __restrict__ hits, scalar* block_losses, int* block_hits,
                          unsigned* ticket, const int* __restrict__ step, const int rows,
                          const int classes) {
    __shared__ scalar shared_losses[THREADS];
    __shared__ int shared_hits[THREADS];
    __shared__ bool is_last;
    const int row = (blockIdx.x * THREADS + threadIdx.x) / LANES, lane = threadIdx.x % LANES;
    const bool in_batch = row < rows;
    const int end = in_batch ? classes : 0;  // lanes without a row take part in the shuffles
    const scalar* const from = z + row * classes;

    // The row's maximum and the first place that has it.
    scalar best = 0;
    int best_at = classes;
    for (int c = lane; c < end; c += LANES) {
        if (best_at == classes || from[c] > best) {
            best = from[c];
            best_at = c;
        }
    }
#pragma unroll
    for (int other = LANES / 2; other > 0; other /= 2) {
        const scalar theirs = __shfl_xor_sync(ALL, best, other);
        const int theirs_at = __shfl_xor_sync(ALL, best_at, other);
        const bool is_greater = theirs > best || (theirs == best && theirs_at < best_at);
        if (theirs_at < classes && (best_at == classes || is_greater)) {
            best = theirs;
            best_at = theirs_at;
        }
    }

    scalar total = 0;
    for (int c = lane; c < end; c += LANES) total += exp(from[c] - best);
    total = sum_of_lanes(total);

    const int label = in_batch ? (int)labels[row] : -1;
    for (int c = lane; c < end; c += LANES) {
        const scalar share = exp(from[c] - best) / total;
        dz[row * classes + c] = (share - (c == label ? scalar(1) : scalar(0))) / rows;
    }

    // The row's first lane speaks for it, thread 0 for the block.
    const bool speaks = in_batch && lane == 0;
    const scalar loss =
        sum_of_block(shared_losses, speaks ? log(total) - (from[label] - best) : scalar(0));
    const int right = sum_of_block(shared_hits, int(speaks && best_at == label && total == total));
    if (threadIdx.x == 0) {
        block_losses[blockIdx.x] = loss;
        block_hits[blockIdx.x] = right;
        __threadfence();  // whoever sees the ticket sees the two
        is_last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;  // which sets it back to 0
    }
    __syncthreads();  // is_last is for all
    if (is_last) {
        __threadfence();  // and the last one reads no earlier than it saw the ticket
        scalar all_losses = 0;
        int all_hits = 0;
        for (int i = threadIdx.x; i < gridDim.x; i += THREADS) {
            all_losses += block_losses[i];
            all_hits += block_hits[i];
        }
        all_losses = sum_of_block(shared_losses, all_losses);
        all_hits = sum_of_block(shared_hits, all_hits);
        if (threadIdx.x == 0) {
            const int at = step ? *step : 0;
            losses[at] = all_losses / rows;
            hits[at] = all_hits;
        }
    }
}
