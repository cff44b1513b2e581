// losses[step] = loss, hits[step] = right, rate = rates[step + 1], step = step + 1
// losses, hits and rates (steps); position (2): epoch and step; loss, right and rate (1)
// One thread in all.
// The step's figures stay on the device until the epoch's end, and the next step finds its number
// and its rate there: so one recorded step serves for all.
// The last launch of a step, on the stream of the others.
#include "index.cuh"

extern "C" __global__ void end_step(const scalar* __restrict__ loss, const int* __restrict__ right,
                                    scalar* __restrict__ losses, int* __restrict__ hits,
                                    const scalar* __restrict__ rates, scalar* __restrict__ rate,
                                    int* __restrict__ position, const int steps) {
    const bool only = grid_index() == 0;
    if (only) {
        const int step = position[1];
        losses[step] = *loss;
        hits[step] = *right;
        if (step + 1 < steps) *rate = rates[step + 1];
        position[1] = step + 1;
    }
}
