// One request: a warp's addresses at one access, and what a GPU's memory makes of them.
#pragma once

#include <stdint.h>

#include <algorithm>

struct Group {
    uint32_t mask = 0, count = 0, bytes = 0;
    uint64_t low = 0, high = 0;  // first byte, and behind the last
    uint64_t bits = 0;           // of all addresses or-ed: shows misaligned ones
    // Packed: those of the active lanes, in their order.
    alignas(64) uint64_t address[32] = {};
    uint8_t lane[32];

    void add(uint32_t which, uint64_t where) {
        mask |= 1u << which;
        lane[count] = static_cast<uint8_t>(which);
        address[count++] = where;
    }
    // When all are there.
    void set_range() {
        low = high = bits = address[0];
        for (uint32_t i = 1; i < count; ++i) {
            low = std::min(low, address[i]);
            high = std::max(high, address[i]);
            bits |= address[i];
        }
        high += bytes;
    }
};

// The addresses of a warp's lanes, of each in the order of its accesses.
class Streams {
  public:
    void set(uint32_t lane, const uint64_t* addresses) { next_[lane] = addresses; }

    // Gives a group the next address of each of these lanes.
    void give(Group& group, uint32_t lanes) {
        if (lanes != ~0u) {
            uint32_t count = 0;
            for (uint32_t rest = lanes; rest; rest &= rest - 1, ++count) {
                const auto lane = static_cast<uint32_t>(__builtin_ctz(rest));
                group.lane[count] = static_cast<uint8_t>(lane);
                group.address[count] = *(next_[lane]++ + together_);
            }
            group.count = count;
        } else {
            for (uint32_t lane = 0; lane < 32; ++lane) {
                group.lane[lane] = static_cast<uint8_t>(lane);
                group.address[lane] = next_[lane][together_];
            }
            ++together_;
            group.count = 32;
        }
        group.mask = lanes;
        group.set_range();
    }

  private:
    alignas(64) const uint64_t* next_[32];
    size_t together_ = 0;  // how often all lanes went on at once
};

// The addresses in rising order, and which of them are not what the one before is.
class Distinct {
  public:
    explicit Distinct(const Group& group) : bytes_(group.bytes), count_(group.count) {
        // Loops over all 32, active or not: the compiler makes vectors of them.
        const uint32_t active = static_cast<uint32_t>((uint64_t{1} << count_) - 1);
        uint32_t falls = 0, differs = 0, apart = 0;
        for (uint32_t i = 0; i < 32; ++i) address_[i] = group.address[i];
        for (uint32_t i = 1; i < 32; ++i) {
            falls |= static_cast<uint32_t>(address_[i] < address_[i - 1]) << i;
        }
        if (falls & active) std::sort(address_, address_ + count_);
        for (uint32_t i = 1; i < 32; ++i) {
            const uint64_t step = address_[i] - address_[i - 1];
            differs |= static_cast<uint32_t>(step != 0) << i;
            apart |= static_cast<uint32_t>(step != 0 && step != bytes_) << i;
        }
        differs_ = (differs & active) | 1;
        apart_ = (apart & active) | 1;
    }
    Distinct(const Distinct&) = delete;

    uint32_t count() const { return static_cast<uint32_t>(__builtin_popcount(differs_)); }

    // Calls `each(address)` for each once.
    template <class F>
    void for_each(F each) const {
        for (uint32_t rest = differs_; rest; rest &= rest - 1) each(address_[__builtin_ctz(rest)]);
    }
    // Whether `is_so(address)` of each.
    template <class F>
    bool all(F is_so) const {
        for (uint32_t rest = differs_; rest; rest &= rest - 1) {
            if (!is_so(address_[__builtin_ctz(rest)])) return false;
        }
        return true;
    }
    // Calls `each(first byte, behind the last)` for each piece of memory without a gap.
    template <class F>
    void for_each_piece(F each) const {
        for (uint32_t rest = apart_; rest;) {
            const uint64_t first = address_[__builtin_ctz(rest)];
            rest &= rest - 1;
            const uint32_t end = rest ? static_cast<uint32_t>(__builtin_ctz(rest)) : count_;
            each(first, address_[end - 1] + bytes_);
        }
    }

  private:
    uint32_t bytes_, count_, differs_, apart_;
    alignas(64) uint64_t address_[32];
};

// The 32-byte sectors of global memory that the request touches.
inline uint64_t sectors_of(const Distinct& distinct) {
    uint64_t sectors = 0, last = ~uint64_t{0};
    distinct.for_each_piece([&](uint64_t begin, uint64_t end) {
        const uint64_t first = begin / 32;
        if (first != last) ++sectors;
        last = (end - 1) / 32;
        sectors += last - first;
    });
    return sectors;
}

// Whether each lane has the address of its neighbour (lane ^ 1), or each that of lane ^ 2.
inline bool is_paired(const Group& group) {
    uint64_t of_lane[32];
    for (uint32_t i = 0; i < group.count; ++i) of_lane[group.lane[i]] = group.address[i];
    for (uint32_t apart : {1u, 2u}) {
        bool all = true;
        for (uint32_t i = 0; all && i < group.count; ++i) {
            const uint32_t other = group.lane[i] ^ apart;
            all = !(group.mask >> other & 1) || of_lane[other] == group.address[i];
        }
        if (all) return true;
    }
    return false;
}

// The passes over the 32 banks that the request needs: in one pass each bank gives one word of 4
// bytes, to any number of lanes. Of 8 bytes a lane half a warp goes at a time, of 16 a quarter; of
// a load twice as many where lanes are paired. (So an engineer of NVIDIA's on its developer forum,
// topic 77228, of compute capability 7.x; taken to hold for what came after.)
inline uint64_t wavefronts_of(const Group& group, const Distinct& distinct, bool is_load) {
    if (group.bytes <= 4 && group.high - (group.low & ~uint64_t{3}) <= 128) return 1;
    auto passes = [](const uint64_t* words, uint32_t count) {
        uint8_t banks[32] = {};
        uint8_t most = 0;
        for (uint32_t i = 0; i < count; ++i) most = std::max(most, ++banks[words[i] % 32]);
        return uint64_t{most};
    };
    uint64_t words[64];
    if (group.bytes <= 4) {
        uint32_t count = 0;
        distinct.for_each([&](uint64_t address) {
            const uint64_t word = address / 4;
            if (!count || words[count - 1] != word) words[count++] = word;
        });
        return passes(words, count);
    }
    const uint32_t a_lane = group.bytes / 4;
    const uint32_t together = 32 / a_lane * (is_load && is_paired(group) ? 2 : 1);
    uint64_t total = 0;
    for (uint32_t i = 0; i < group.count;) {
        const uint32_t first = i, part = group.lane[i] / together;
        uint64_t low = group.address[i], high = low;
        for (; i < group.count && group.lane[i] / together == part; ++i) {
            low = std::min(low, group.address[i]);
            high = std::max(high, group.address[i]);
        }
        if (high + group.bytes - low <= 128) {
            ++total;
            continue;
        }
        uint32_t count = 0;
        for (uint32_t lane = first; lane < i; ++lane) {
            for (uint32_t word = 0; word < a_lane; ++word) {
                words[count++] = group.address[lane] / 4 + word;
            }
        }
        std::sort(words, words + count);
        total += passes(words, static_cast<uint32_t>(std::unique(words, words + count) - words));
    }
    return total;
}
