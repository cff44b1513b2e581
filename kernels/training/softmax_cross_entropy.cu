// loss = mean over n of log(sum_c exp(z[n,c])) - z[n,label[n]]; dz = (softmax(z) - onehot(label)) /
// N z and dz (N,classes), label (N); losses and hits: one element each, that of step[0] LANES
// threads a row, side by side in a warp; rows in blocks of THREADS. Against a launch for each
// operation: one launch, and z is read from memory once. The block that ends last adds up what all
// found, always in the same order. Limits: any N and any classes; a row's largest value is taken
// off before exp, so that none overflows. A row with a NaN is no hit.
#include "training/softmax.cuh"

// The 2: without a least number of resident blocks ptxas aims at more of them, and spills for it.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    softmax_cross_entropy(const scalar* __restrict__ z, const long long* __restrict__ labels,
                          scalar* __restrict__ dz, scalar* __restrict__ losses,
                          int* __restrict__ hits, scalar* block_losses, int* block_hits,
                          unsigned* ticket, const int* __restrict__ step, const int rows,
                          const int classes) {
    const int n = (blockIdx.x * THREADS + threadIdx.x) / LANES, lane = threadIdx.x % LANES;
    const bool in_batch = n < rows;
    const int end = in_batch ? classes : 0;  // lanes without a row take part in the shuffles
    const scalar* const from = z + n * classes;
    const Row row = look_at_row<LANES>(lane, end, classes, [&](int c) { return from[c]; });

    const int label = in_batch ? (int)labels[n] : -1;
    for (int c = lane; c < end; c += LANES) {
        const scalar share = exp(from[c] - row.best) / row.total;
        dz[n * classes + c] = (share - (c == label ? scalar(1) : scalar(0))) / rows;
    }

    const bool speaks = in_batch && lane == 0;  // for its row
    add_up<THREADS>({losses, block_losses, hits, block_hits, ticket, step},
                    speaks ? row.loss(from[label]) : scalar(0), speaks && row.is_hit(label), rows);
}
