// Random bits without a generator's state: a hash of (seed, epoch, purpose, counter), 32 bits each
// time. The mixer is the finaliser of Appleby's MurmurHash3. counter_hash.py has the same integers.
#pragma once

// What the numbers are for: streams that do not repeat each other.
enum Purpose { SHUFFLE = 1, SHIFT = 2, DISTORT = 3 };

__device__ __forceinline__ unsigned int mix(unsigned int bits) {
    bits ^= bits >> 16;
    bits *= 0x85ebca6bu;
    bits ^= bits >> 13;
    bits *= 0xc2b2ae35u;
    return bits ^ bits >> 16;
}

// A hash of what `key` is the hash of and of one more word. The odd constant, 2^32 over the golden
// ratio, keeps zeros from hashing to zero.
__device__ __forceinline__ unsigned int absorb(unsigned int key, unsigned int word) {
    return mix((key ^ word) + 0x9e3779b9u);
}

__device__ __forceinline__ unsigned int epoch_key(unsigned int seed_low, unsigned int seed_high,
                                                  int epoch, Purpose purpose) {
    return absorb(absorb(absorb(mix(seed_low + purpose), seed_low), seed_high), epoch);
}
