// order = a permutation of 0 .. n-1, a function of (seed, epoch) alone
// order (n); position (2): epoch and step; a * a >= n, a * b >= n
// One thread an element: each computes its own image, nothing is sorted or exchanged.
// A Feistel network over pairs (low below a, high below b) permutes 0 .. a*b-1; what falls past n
// is sent through it again until it falls below: Black and Rogaway, Ciphers with Arbitrary Finite
// Domains (CT-RSA 2002), methods "generalized Feistel" and "cycle-walking". Below 2^31 elements.
#include "index.cuh"
#include "training/counter_hash.cuh"

#ifndef ROUNDS
#define ROUNDS 12
#endif

extern "C" __global__ void shuffle(int* __restrict__ order, const int* __restrict__ position,
                                   const int n, const int a, const int b,
                                   const unsigned int seed_low, const unsigned int seed_high) {
    const int i = grid_index();
    const bool in_order = i < n;
    if (in_order) {
        const unsigned int key = epoch_key(seed_low, seed_high, position[0], SHUFFLE);
        const unsigned int lows = a, highs = b;
        unsigned int image = i;
        do {  // a*b exceeds n by less than a + b, so a second time is rare
            unsigned int low = image % lows, high = image / lows;
            // Of the hash 31 bits: a sum that wrapped around would not be one to one.
#pragma unroll
            for (int round = 0; round < ROUNDS; round += 2) {
                low = (low + (absorb(absorb(key, round), high) >> 1)) % lows;
                high = (high + (absorb(absorb(key, round + 1), low) >> 1)) % highs;
            }
            image = high * lows + low;
        } while (image >= (unsigned int)n);
        order[i] = image;
    }
}
