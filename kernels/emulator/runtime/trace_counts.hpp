// One request: a warp's addresses at one access, and what a GPU's memory makes of them.
#pragma once

#include <stdint.h>

#include <algorithm>

struct Group {
    uint32_t mask = 0, count = 0, bytes = 0;
    uint64_t low = 0, high = 0;  // first byte, and behind the last
    uint64_t bits = 0;           // of all addresses or-ed: shows misaligned ones
    uint64_t address[32];        // packed: those of the active lanes, in their order
    uint8_t lane[32];

    void add(uint32_t which, uint64_t where) {
        low = count && low < where ? low : where;
        high = count && high > where + bytes ? high : where + bytes;
        mask |= 1u << which;
        bits |= where;
        lane[count] = static_cast<uint8_t>(which);
        address[count++] = where;
    }

    // Adds the next address of each of these lanes.
    void take(uint32_t lanes, const uint64_t** next) {
        if (lanes != ~0u) {
            for (uint32_t rest = lanes; rest; rest &= rest - 1) {
                auto which = static_cast<uint32_t>(__builtin_ctz(rest));
                add(which, *next[which]++);
            }
            return;
        }
        // The usual case: plain loops, of which the compiler makes vectors.
        for (uint32_t i = 0; i < 32; ++i) {
            lane[i] = static_cast<uint8_t>(i);
            address[i] = *next[i]++;
        }
        low = high = bits = address[0];
        for (uint32_t i = 1; i < 32; ++i) {
            low = std::min(low, address[i]);
            high = std::max(high, address[i]);
            bits |= address[i];
        }
        high += bytes;
        mask = lanes;
        count = 32;
    }
};

// The addresses in rising order, each once.
struct Distinct {
    uint32_t count = 0;
    uint64_t address[32];

    explicit Distinct(const Group& group) {
        bool rising = true;
        for (uint32_t i = 1; i < group.count; ++i)
            rising &= group.address[i] >= group.address[i - 1];
        uint64_t sorted[32];
        const uint64_t* from = group.address;
        if (!rising) {
            std::copy(group.address, group.address + group.count, sorted);
            std::sort(sorted, sorted + group.count);
            from = sorted;
        }
        address[count++] = from[0];
        for (uint32_t i = 1; i < group.count; ++i) {
            address[count] = from[i];
            count += from[i] != from[i - 1];
        }
    }
};

// The 32-byte sectors of global memory that the request touches.
inline uint64_t sectors_of(const Distinct& distinct, uint32_t bytes) {
    uint64_t sectors = 0, last = ~uint64_t{0};
    for (uint32_t i = 0; i < distinct.count; ++i) {
        uint64_t first = distinct.address[i] / 32, end = (distinct.address[i] + bytes - 1) / 32;
        if (first != last) ++sectors;
        sectors += end - first;
        last = end;
    }
    return sectors;
}

// The passes over the 32 banks that the request needs: in one pass each bank gives one word of 4
// bytes, to any number of lanes. Of 8 bytes a lane half a warp goes at a time, of 16 a quarter.
inline uint64_t wavefronts_of(const Group& group, const Distinct& distinct) {
    if (group.bytes <= 4 && group.high - (group.low & ~uint64_t{3}) <= 128) return 1;
    auto passes = [](const uint64_t* words, uint32_t count) {
        uint8_t banks[32] = {};
        uint8_t most = 0;
        for (uint32_t i = 0; i < count; ++i) most = std::max(most, ++banks[words[i] % 32]);
        return uint64_t{most};
    };
    uint64_t words[32];
    if (group.bytes <= 4) {
        uint32_t count = 0;
        for (uint32_t i = 0; i < distinct.count; ++i) {
            uint64_t word = distinct.address[i] / 4;
            if (!count || words[count - 1] != word) words[count++] = word;
        }
        return passes(words, count);
    }
    const uint32_t a_lane = group.bytes / 4, together = 32 / a_lane;
    uint64_t total = 0;
    for (uint32_t i = 0; i < group.count;) {
        uint32_t part = group.lane[i] / together, count = 0;
        for (; i < group.count && group.lane[i] / together == part; ++i) {
            for (uint32_t word = 0; word < a_lane; ++word) {
                words[count++] = group.address[i] / 4 + word;
            }
        }
        std::sort(words, words + count);
        total += passes(words, static_cast<uint32_t>(std::unique(words, words + count) - words));
    }
    return total;
}
