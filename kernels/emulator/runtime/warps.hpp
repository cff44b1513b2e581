// Warp primitives: the last lane of a mask to arrive does the exchange for all of them.
#pragma once

#include "failures.hpp"
#include "tensor.hpp"
#include "tracing.hpp"

// What a lane reads from one that is not there: undefined in CUDA, so made hard to overlook
// (a NaN, or -1).
constexpr uint64_t undefined_value = ~uint64_t{0};

inline uint64_t combine(emulator::WarpOp op, uint64_t a, uint64_t b) {
    auto sa = static_cast<int64_t>(a), sb = static_cast<int64_t>(b);
    switch (op) {
        case emulator::WarpOp::add:
            return a + b;
        case emulator::WarpOp::min_signed:
            return sa < sb ? a : b;
        case emulator::WarpOp::max_signed:
            return sa > sb ? a : b;
        case emulator::WarpOp::min_unsigned:
            return a < b ? a : b;
        case emulator::WarpOp::max_unsigned:
            return a > b ? a : b;
        case emulator::WarpOp::bit_and:
            return a & b;
        case emulator::WarpOp::bit_or:
            return a | b;
        default:
            return a ^ b;
    }
}

inline bool is_mma(emulator::WarpOp op) {
    return op == emulator::WarpOp::mma_tf32 || op == emulator::WarpOp::mma_bf16;
}

// Whether an operation is one of all 32 lanes, whatever the mask.
inline bool needs_whole_warp(emulator::WarpOp op) {
    return op >= emulator::WarpOp::mma_tf32;
}

inline void exchange(Thread* lanes, uint32_t group) {
    const emulator::WarpOp op = lanes[__builtin_ctz(group)].op;
    if (is_mma(op)) return multiply_fragments(lanes, op == emulator::WarpOp::mma_bf16);
    if (op == emulator::WarpOp::load_matrices) return exchange_rows(lanes);
    uint32_t ballot = 0;
    bool first = true, same = true;
    uint64_t total = 0;
    for (uint32_t rest = group; rest; rest &= rest - 1) {
        uint32_t lane = static_cast<uint32_t>(__builtin_ctz(rest));
        uint64_t value = lanes[lane].value;
        if (value) ballot |= 1u << lane;
        same = same && value == lanes[__builtin_ctz(group)].value;
        total = first ? value : combine(op, total, value);
        first = false;
    }
    for (uint32_t rest = group; rest; rest &= rest - 1) {
        Thread& thread = lanes[__builtin_ctz(rest)];
        switch (op) {
            case emulator::WarpOp::sync:
                break;
            case emulator::WarpOp::shuffle:
                thread.result = group >> thread.source_lane & 1 ? lanes[thread.source_lane].value
                                                                : undefined_value;
                break;
            case emulator::WarpOp::ballot:
                thread.result = ballot;
                break;
            case emulator::WarpOp::any:
                thread.result = ballot != 0;
                break;
            case emulator::WarpOp::all:
                thread.result = ballot == group;
                break;
            case emulator::WarpOp::match_any:
                thread.result = 0;
                for (uint32_t other = group; other; other &= other - 1) {
                    uint32_t lane = static_cast<uint32_t>(__builtin_ctz(other));
                    if (lanes[lane].value == thread.value) thread.result |= uint64_t{1} << lane;
                }
                break;
            case emulator::WarpOp::match_all:
                thread.result = same ? group : 0;
                break;
            default:
                thread.result = total;
        }
    }
}

// A warp begins a product, closes a group of them, or waits.
inline void advance_products(Worker& worker, uint32_t warp, Thread* lanes) {
    char why[256] = "";
    worker.uninterruptible = 1;  // it may allocate
    switch (lanes[0].op) {
        case emulator::WarpOp::multiply_commit:
            worker.products.commit(warp);
            break;
        case emulator::WarpOp::multiply_wait:
            worker.products.wait(*worker.shared, warp, static_cast<uint32_t>(lanes[0].value));
            break;
        default: {
            const emulator::Product* asked[32];
            for (int i = 0; i < 32; ++i) {
                asked[i] = reinterpret_cast<const emulator::Product*>(lanes[i].value);
            }
            worker.products.begin(*worker.shared, warp, worker.warp_count,
                                  worker.launch->request.shared_bytes, asked, why);
            EMULATOR_TRACE(multiply(emulator::WarpOp::mma_bf16, asked[0]->columns / 8));
        }
    }
    worker.uninterruptible = 0;
    if (!why[0]) return;
    fail(worker, Ending::trap, true, "%s at %s:%d: %s", lanes[0].name, base_name(lanes[0].file),
         lanes[0].line, why);
    abandon(worker);
}

// Lets the lanes of `mask` go on if all are there; lanes that have returned are not waited for.
inline bool release_warp(Worker& worker, uint32_t index, uint32_t mask) {
    Warp& warp = worker.warps[index];
    Thread* lanes = &worker.threads[index * 32];
    uint32_t group = mask & warp.existing & ~warp.returned;
    if (!group || (warp.waiting & group) != group) return false;
    const Thread& first = lanes[__builtin_ctz(group)];
    for (uint32_t rest = group; rest; rest &= rest - 1) {
        const Thread& thread = lanes[__builtin_ctz(rest)];
        if (thread.mask != mask) return false;
        if (thread.op == first.op && !strcmp(thread.name, first.name)) continue;
        fail(worker, Ending::divergence, true,
             "lanes of one mask 0x%08x disagree: lane %d calls %s at %s:%d, lane %d calls %s at "
             "%s:%d",
             mask, first.lane, first.name, base_name(first.file), first.line, thread.lane,
             thread.name, base_name(thread.file), thread.line);
        abandon(worker);
    }
    if (needs_whole_warp(first.op) && group != 0xffffffffu) {
        fail(worker, Ending::divergence, true, "%s at %s:%d needs all 32 lanes but has 0x%08x",
             first.name, base_name(first.file), first.line, group);
        abandon(worker);
    }
    if (first.op >= emulator::WarpOp::multiply_async) {
        advance_products(worker, index, lanes);
    } else {
        exchange(lanes, group);
    }
    EMULATOR_TRACE(release_warp(worker, index, group));
    if (is_mma(first.op)) EMULATOR_TRACE(multiply(first.op));
    warp.waiting &= ~group;
    uint16_t released[32];
    uint32_t count = 0;
    for (uint32_t lane = 0; lane < 32; ++lane) {
        if (!(group >> lane & 1)) continue;
        lanes[lane].state = State::running;
        released[count++] = static_cast<uint16_t>(index * 32 + lane);
    }
    Order order = worker.launch->request.order;
    if (order == Order::random) worker.random.shuffle(released, count);
    for (uint32_t i = 0; i < count; ++i) {
        worker.push_ready(released[order == Order::reverse ? count - 1 - i : i]);
    }
    return true;
}
