// g = gradient + weight_decay w;  v = momentum v + g;  w -= rate (g + momentum v)
// weights, gradient and velocity: all parameters, one flat vector each; rate is rates[step[0]]
// A thread an element.
// Against an operation a launch: each vector is read once and written once. The rate is read by the
// kernel, not passed to it, and the block that ends last adds 1 to the step: a CUDA graph of a
// training step can be replayed as it is. Limits: none; without a step the rate is rates[0].
#include "index.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    nesterov_sgd(scalar* __restrict__ weights, const scalar* __restrict__ gradient,
                 scalar* __restrict__ velocity, const scalar* __restrict__ rates, int* step,
                 unsigned* ticket, const scalar momentum, const scalar weight_decay,
                 const int size) {
    const scalar rate = rates[step ? *step : 0];
    const int i = grid_index();
    const bool in_vector = i < size;
    if (in_vector) {
        const scalar g = gradient[i] + weight_decay * weights[i];
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
