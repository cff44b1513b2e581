// Tracer: which thread runs, and how its events get into its warp's path.
#pragma once

#include "tracer.hpp"

inline void Tracer::save_pen() {
    if (current_ < 0) return;
    Lane& lane = lanes_[current_];
    if (pen.at != &pen.nowhere) {
        Path& path = paths_[current_ / 32];
        lane.at = static_cast<uint32_t>(pen.at - path.nodes());
        path.set_size(static_cast<uint32_t>(pen.free - path.nodes()));
    }
    lane.next = pen.next;
    lane.calls = pen.calls;
}

inline void Tracer::load_pen() {
    pen.at = &pen.nowhere;
    pen.free = pen.free_end = nullptr;
    pen.next = pen.end = nullptr;
    pen.stack_bytes = 0;
    if (current_ < 0) return;
    pen.stack_bytes = asked_.local_arrays ? 0 : FiberPool::stack_bytes;
    Lane& lane = lanes_[current_];
    Path& path = paths_[current_ / 32];
    if (!path.is_empty() && !lane.cut) {
        pen.at = path.nodes() + lane.at;
        pen.free = path.nodes() + path.size();
        pen.free_end = path.size() < asked_.most_events ? path.end() : pen.free;
    }
    pen.lane = 1u << (current_ % 32);
    pen.next = lane.next;
    pen.stack = reinterpret_cast<uint64_t>(lane.stack);
    pen.end = lane.addresses.data() + lane.addresses.size();
}

inline void Tracer::switch_to(Worker&, int thread) {
    if (!on) return;
    save_pen();
    current_ = thread;
    load_pen();
    pen.set_calls(lanes_[thread].calls);
}

inline void Tracer::begin_thread(Worker& worker, int thread) {
    if (!on) return;
    pen.set_calls(0);
    const Fiber& fiber = worker.fibers[worker.threads[thread].fiber];
    lanes_[thread].stack = fiber.stack;
    lanes_[thread].top = fiber.top;
    pen.stack = reinterpret_cast<uint64_t>(fiber.stack);
}

inline void Tracer::stop(Worker& worker, int thread, bool forever) {
    if (!on) return;
    uint32_t warp = static_cast<uint32_t>(thread) / 32, bit = 1u << (thread % 32);
    stopped_[warp] |= bit;
    if (forever) forever_[warp] |= bit;
    if (stopped_[warp] == worker.warps[warp].existing) flush(warp);
}

inline void Tracer::release_barrier(Worker& worker) {
    if (!on) return;
    ++ordering_->epoch;
    for (uint32_t w = 0; w < worker.warp_count; ++w) stopped_[w] = forever_[w];
}

// An event that is not where the pen is: further on, or not there yet.
inline void Tracer::note(Word key, uint64_t address) {
    if (!on || current_ < 0) return;
    Lane& lane = lanes_[current_];
    if (lane.cut) return;
    const auto earlier = worker_->uninterruptible;
    worker_->uninterruptible = 1;  // none of this must be left half-way
    const uint32_t warp = static_cast<uint32_t>(current_) / 32;
    save_pen();
    lane.cut = is_access(key) && pen.next == pen.end && !make_room(lane);
    if (!lane.cut) {
        const uint32_t at = place(warp, lane.at, key);
        lane.cut = at == no_place;
        if (!lane.cut) {
            paths_[warp].nodes()[at].lanes |= 1u << (current_ % 32);
            lane.at = at + 1;
            if (is_access(key)) *lane.next++ = address;
        }
    }
    result_.cut += lane.cut;
    load_pen();
    worker_->uninterruptible = earlier;
}

inline bool Tracer::make_room(Lane& lane) {
    const auto used = static_cast<size_t>(lane.next - lane.addresses.data());
    if (used >= asked_.most_events) return false;
    if (lane.addresses.empty()) lane.addresses = spare_addresses_.take();
    if (used == lane.addresses.size()) lane.addresses.resize(used ? 2 * used : 2048);
    lane.next = lane.addresses.data() + used;
    return true;
}

// Where in its warp's path a lane at `at` has an event, which is put in if it is not there.
inline uint32_t Tracer::place(uint32_t warp, uint32_t at, Word key) {
    Path& path = paths_[warp];
    if (path.is_empty()) {
        path = spare_paths_.take();
        path.begin();
    }
    at = static_cast<uint32_t>(skip(path.nodes() + at, key) - path.nodes());
    if (path.nodes()[at].key == key && code_of(key) != sync_code) return at;
    if (path.size() >= asked_.most_events) return no_place;
    uint32_t moved = no_place;
    at = path.insert(at, key, moved);
    if (moved != no_place) {
        Lane* lanes = &lanes_[warp * 32];
        for (uint32_t i = 0; i < 32; ++i) lanes[i].at += lanes[i].at == moved;
    }
    return at;
}

// Lanes that wait in a warp primitive execute it at once, behind all that any of them did before.
inline void Tracer::release_warp(Worker& worker, uint32_t warp, uint32_t group) {
    if (!on) return;
    const auto earlier = worker.uninterruptible;
    worker.uninterruptible = 1;
    save_pen();
    Lane* lanes = &lanes_[warp * 32];
    Word key = 0;
    for (uint32_t i = 0; i < 32; ++i) {
        if (lanes[i].cut) group &= ~(1u << i);
        if (group >> i & 1) key = std::max(key, lanes[i].warp_key);
    }
    if (group) {
        const uint32_t at = place(warp, last_of(warp, group), key);
        for (uint32_t rest = group; rest; rest &= rest - 1) {
            Lane& lane = lanes[__builtin_ctz(rest)];
            lane.cut = at == no_place;
            result_.cut += lane.cut;
            lane.at = at + 1;
        }
        if (at != no_place) paths_[warp].nodes()[at].lanes = group;
    }
    load_pen();
    worker.uninterruptible = earlier;
}

// Where the lane is that is furthest on.
inline uint32_t Tracer::last_of(uint32_t warp, uint32_t group) {
    if (paths_[warp].is_empty()) return 0;
    Node* nodes = paths_[warp].nodes();
    Lane* lanes = &lanes_[warp * 32];
    auto index = [&](uint32_t at) { return static_cast<uint32_t>(follow(nodes + at) - nodes); };
    for (uint32_t i = 0; i < 32; ++i) lanes[i].at = index(lanes[i].at);
    auto lanes_at = [&](uint32_t at) {
        uint32_t found = 0;
        for (uint32_t i = 0; i < 32; ++i) found |= static_cast<uint32_t>(lanes[i].at == at) << i;
        return found & group;
    };
    uint32_t last = lanes[__builtin_ctz(group)].at, left = group & ~lanes_at(last);
    for (uint32_t at = last; left && nodes[at].key != no_key;) {
        at = index(at + 1);
        if (const uint32_t here = lanes_at(at)) {
            last = at;
            left &= ~here;
        }
    }
    return last;
}
