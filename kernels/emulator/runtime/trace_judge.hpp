// Tracer: what a request costs, and what is wrong with it.
#pragma once

#include "tracer.hpp"

inline TraceAccess& Tracer::access_at(uint32_t pc, TraceKind kind, uint32_t bytes, TraceSpace space,
                                      int32_t array, uint64_t begin, uint64_t end) {
    int32_t* link = &access_of_pc_[pc];
    while (*link >= 0) {
        TraceAccess& access = accesses_[static_cast<size_t>(*link)];
        if (access.operation == kind && access.bytes == bytes && access.space == space &&
            access.array == array && access.begin == begin) {
            return access;
        }
        link = &access.next;
    }
    *link = static_cast<int32_t>(accesses_.size());
    TraceAccess access{};
    access.pc = pc;
    access.operation = kind;
    access.bytes = bytes;
    access.space = space;
    access.array = array;
    access.next = -1;
    access.begin = begin;
    access.end = end;
    accesses_.push_back(access);
    bool counted = space == TraceSpace::global || space == TraceSpace::shared;
    touched_.emplace_back(counted ? words_for(end - (begin & ~uint64_t{63})) : 0);
    return accesses_.back();
}

inline void Tracer::request(uint32_t pc, TraceKind kind, uint32_t warp, const Group& group) {
    for (int32_t at = access_of_pc_[pc]; at >= 0;) {
        TraceAccess& access = accesses_[static_cast<size_t>(at)];
        if (access.operation == kind && access.bytes == group.bytes && group.low >= access.begin &&
            group.high <= access.end) {
            execute(access, warp, group);
            return;
        }
        at = access.next;
    }
    split(pc, kind, warp, group);
}

inline Tracer::Place Tracer::find_shared(uint64_t address, uint32_t bytes) const {
    const uint64_t end = address + bytes;
    Place near{TraceSpace::shared, none, 0, 0, false};
    const auto count = static_cast<int32_t>(arrays_.size());
    for (size_t i = 0; i < shared_.size(); ++i) {
        uint64_t first = shared_begin_ + shared_[i].offset, last = first + shared_[i].bytes;
        if (first == dynamic_begin_) last = dynamic_end_;
        Place here{TraceSpace::shared, count + static_cast<int32_t>(i), first, last, false};
        if (address >= first && end <= last) {
            here.inside = true;
            return here;
        }
        // The array it misses: the last that begins before it.
        if (first <= address && (near.array == none || first > near.begin)) near = here;
    }
    if (near.array == none && !shared_.empty()) {
        for (size_t i = 0; i < shared_.size(); ++i) {
            uint64_t first = shared_begin_ + shared_[i].offset;
            if (near.array != none && first >= near.begin) continue;
            near = {TraceSpace::shared, count + static_cast<int32_t>(i), first,
                    first + shared_[i].bytes, false};
        }
    }
    return near;
}

inline Tracer::Place Tracer::find(uint64_t address, uint32_t bytes, int thread) const {
    const uint64_t end = address + bytes;
    Place guarded{TraceSpace::global, foreign, 0, 0, false};
    for (size_t i = 0; i < arrays_.size(); ++i) {
        const TraceArray& array = arrays_[i];
        if (address < array.guard_begin || address >= array.guard_end) continue;
        const bool inside = address >= array.begin && end <= array.end;
        Place here{TraceSpace::global, static_cast<int32_t>(i), array.begin, array.end, inside};
        if (inside) return here;
        guarded = here;
    }
    if (guarded.array >= 0) return guarded;
    if (address >= shared_begin_ && address < shared_end_) return find_shared(address, bytes);
    const auto stack = reinterpret_cast<uint64_t>(lanes_[thread].stack);
    if (address >= stack && end <= stack + FiberPool::stack_bytes) {
        return {TraceSpace::local, none, 0, 0, true};
    }
    const bool is_own = address >= own_begin_ && end <= own_end_;
    if (is_own) return {TraceSpace::ignored, none, own_begin_, own_end_, true};
    const bool is_constant = address >= pen.code && end <= code_end_;
    if (is_constant) return {TraceSpace::ignored, none, pen.code, code_end_, true};
    return guarded;
}

// A request whose lanes are not all in one array that this access is known to touch.
inline void Tracer::split(uint32_t pc, TraceKind kind, uint32_t warp, const Group& group) {
    uint32_t rest = (1ull << group.count) - 1;
    while (rest) {
        Place place{};
        Group part;
        part.bytes = group.bytes;
        uint32_t later = 0;
        for (uint32_t left = rest; left; left &= left - 1) {
            auto i = static_cast<uint32_t>(__builtin_ctz(left));
            const int thread = static_cast<int>(warp * 32) + group.lane[i];
            const Place here = find(group.address[i], group.bytes, thread);
            if (!part.count) place = here;
            const bool same = here.space == place.space && here.array == place.array &&
                              here.inside == place.inside;
            if (same) {
                part.add(group.lane[i], group.address[i]);
            } else {
                later |= 1u << i;
            }
        }
        rest = later;
        part.set_range();
        if (place.inside) {
            execute(
                access_at(pc, kind, group.bytes, place.space, place.array, place.begin, place.end),
                warp, part);
            continue;
        }
        for (uint32_t i = 0; i < part.count; ++i) {
            found(place.array == foreign ? TraceFault::foreign : TraceFault::bounds, pc, kind,
                  group.bytes, place.array, place.begin, part.address[i], warp * 32 + part.lane[i]);
        }
    }
}

// Of local memory a GPU keeps the words of 32 lanes that are at one place side by side: a sector
// holds a word of 8 lanes.
inline uint64_t Tracer::local_sectors(uint32_t warp, const Group& group) const {
    uint64_t sectors[32 * 5];  // 16 bytes that are not aligned are in 5 words
    size_t count = 0;
    for (uint32_t i = 0; i < group.count; ++i) {
        const auto top = reinterpret_cast<uint64_t>(lanes_[warp * 32 + group.lane[i]].top);
        const uint64_t first = group.address[i] - top + (uint64_t{1} << 32);  // it is below the top
        for (uint64_t word = first / 4; word <= (first + group.bytes - 1) / 4; ++word) {
            sectors[count++] = word * 4 + group.lane[i] / 8;
        }
    }
    std::sort(sectors, sectors + count);
    return static_cast<uint64_t>(std::unique(sectors, sectors + count) - sectors);
}

inline void Tracer::execute(TraceAccess& access, uint32_t warp, const Group& group) {
    if (access.space == TraceSpace::ignored) return;
    ++access.requests;
    access.lanes += group.count;
    if (access.space == TraceSpace::local) {
        access.sectors += local_sectors(warp, group);
        access.ideal_sectors += (uint64_t{group.count} * group.bytes + 31) / 32;
        return;
    }
    const Distinct distinct(group);
    const uint64_t bytes = uint64_t{distinct.count()} * group.bytes;
    uint64_t cost;
    if (access.space == TraceSpace::global) {
        cost = sectors_of(distinct);
        access.sectors += cost;
        access.ideal_sectors += (bytes + 31) / 32;
    } else {
        cost = wavefronts_of(group, distinct, access.operation == TraceKind::read);
        access.wavefronts += cost;
        access.ideal_wavefronts += (bytes + 127) / 128;
    }
    if (access.operation == TraceKind::atomic) access.conflicts += group.count - distinct.count();
    if (cost > access.example_cost) {
        access.example_cost = cost;
        access.example_block = block_;
        access.example_warp = warp;
        access.example_mask = group.mask;
        for (uint32_t i = 0; i < group.count; ++i) access.example[group.lane[i]] = group.address[i];
    }
    uint64_t* touched = touched_[static_cast<size_t>(&access - accesses_.data())].data();
    const uint64_t base = access.begin & ~uint64_t{63};
    distinct.for_each_piece(
        [&](uint64_t begin, uint64_t end) { set_bits(touched, begin - base, end - base); });
    judge(access, warp, group, distinct);
}

inline void Tracer::judge(TraceAccess& access, uint32_t warp, const Group& group,
                          const Distinct& distinct) {
    const bool is_global = access.space == TraceSpace::global;
    auto tell = [&](TraceFault kind, uint32_t i, const Party* other = nullptr) {
        found(kind, access.pc, access.operation, group.bytes, access.array, access.begin,
              group.address[i], warp * 32 + group.lane[i], other);
    };
    if (group.bits & (group.bytes - 1)) {
        for (uint32_t i = 0; i < group.count; ++i) {
            if (group.address[i] & (group.bytes - 1)) tell(TraceFault::misaligned, i);
        }
    }
    // Which bytes hold a value.
    uint64_t* initialised = shared_initialised_.data();
    uint64_t base = shared_begin_;
    Cells* cells = shared_cells_.get();
    uint64_t first_word = shared_begin_ / 4;
    if (is_global) {
        const TraceArray& array = arrays_[static_cast<size_t>(access.array)];
        initialised = reinterpret_cast<uint64_t*>(array.initialised);
        base = array.begin & ~uint64_t{63};
        cells = array.has_cells ? &cells_[static_cast<size_t>(access.array)] : nullptr;
        first_word = array.begin / 4;
    }
    if (initialised) {
        const uint64_t low = group.low - base, high = group.high - base;
        const bool is_read = access.operation != TraceKind::write;
        if (is_read && !all_bits(initialised, low, high)) {
            for (uint32_t i = 0; i < group.count; ++i) {
                const uint64_t at = group.address[i] - base;
                if (all_bits(initialised, at, at + group.bytes)) continue;
                tell(TraceFault::uninitialised, i);
            }
        }
        if (access.operation != TraceKind::read) {
            for (uint32_t i = 0; i < group.count; ++i) {
                const uint64_t at = group.address[i] - base;
                set_bits(initialised, at, at + group.bytes);
            }
        }
    }
    if (!cells) return;
    if (has_fences_ && is_global && access.operation == TraceKind::atomic) meet_blocks(warp, group);
    Party now{};
    now.epoch = ordering_->epoch;
    now.pc = access.pc;
    now.operation = access.operation;
    auto adds_nothing = [&](uint64_t address) {
        if (access.operation != TraceKind::read || !cells->has_readers) return false;
        const uint64_t last = (address + group.bytes - 1) / 4 - first_word;
        for (uint64_t word = address / 4 - first_word; word <= last; ++word) {
            if (!ordering_->is_read_enough(*cells, word, is_global)) return false;
        }
        return true;
    };
    if (distinct.all(adds_nothing)) return;
    for (uint32_t i = 0; i < group.count; ++i) {
        if (adds_nothing(group.address[i])) continue;
        now.thread = static_cast<uint16_t>(warp * 32 + group.lane[i]);
        now.passed = lanes_[now.thread].passed;
        const uint64_t end = group.address[i] + group.bytes;
        for (uint64_t at = group.address[i]; at < end; at = (at | 3) + 1) {
            const uint64_t in_word = std::min(end - at, 4 - at % 4);
            now.bytes = static_cast<uint8_t>(((1u << in_word) - 1) << at % 4);
            const Party* other = ordering_->enter(*cells, at / 4 - first_word, now, is_global);
            const bool is_met = other && other->epoch < ordering_->block_began &&
                                seen_blocks_.count(block_of(other->epoch));
            if (other && !is_met) {
                tell(TraceFault::race, i, other);
                break;
            }
        }
    }
}

// A fence and an atomic operation, then another block's atomic operation at the same address: the
// way a last block to finish knows that it is, and may read what the others wrote.
inline void Tracer::meet_blocks(uint32_t warp, const Group& group) {
    for (uint32_t i = 0; i < group.count; ++i) {
        auto& told = told_blocks_[group.address[i]];
        seen_blocks_.insert(told.begin(), told.end());
        if (lanes_[warp * 32 + group.lane[i]].fenced) told.insert(block_);
    }
}

inline uint64_t Tracer::block_of(uint32_t epoch) const {
    auto after = std::upper_bound(epochs_.begin(), epochs_.end(), epoch,
                                  [](uint32_t e, const auto& entry) { return e < entry.first; });
    return after == epochs_.begin() ? 0 : (after - 1)->second;
}

// Once for each fault, place and array: the first is kept, the others are counted.
inline void Tracer::found(TraceFault kind, uint32_t pc, TraceKind operation, uint32_t bytes,
                          int32_t array, uint64_t begin, uint64_t address, uint32_t thread,
                          const Party* other) {
    const uint64_t key =
        uint64_t{pc} << 32 | static_cast<uint64_t>(array + 2) << 8 | static_cast<uint64_t>(kind);
    auto [known, is_new] = finding_at_.emplace(key, findings_.size());
    if (!is_new) {
        ++findings_[known->second].count;
        return;
    }
    TraceFinding finding{};
    finding.kind = kind;
    finding.pc = pc;
    finding.array = array;
    finding.operation = operation;
    finding.bytes = bytes;
    finding.thread = thread;
    finding.block = block_;
    finding.address = address;
    finding.count = 1;
    finding.offset = static_cast<int64_t>(address - begin);
    if (other) {
        finding.other_pc = other->pc;
        finding.other_thread = other->thread;
        finding.other_operation = other->operation;
        finding.other_block = block_of(other->epoch);
    }
    findings_.push_back(finding);
}
