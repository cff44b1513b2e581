// Runs one block: starts its threads, switches between those that wait, releases barriers.
#pragma once

#include "warps.hpp"

inline void go_to(Worker& worker, int thread) {
    worker.current = thread;
    threadIdx = worker.coordinates[thread];
    EMULATOR_TRACE(switch_to(worker, thread));
}

// The four warps of a warpgroup begin the same products.
inline bool agree_on_products(Worker& worker) {
    char why[256];
    if (worker.products.agree(worker.warp_count, why)) return true;
    fail(worker, Ending::divergence, false, "%s", why);
    return false;
}

inline void release_barrier(Worker& worker) {
    worker.at_barrier = 0;
    worker.barrier_result = worker.predicates;
    worker.predicates = 0;
    if (worker.launch->request.order == Order::random) {
        worker.random.shuffle(worker.order, worker.thread_count);
    }
    memcpy(worker.ready, worker.order, worker.thread_count * sizeof worker.order[0]);
    worker.ready_head = 0;
    worker.ready_count = worker.thread_count;
    EMULATOR_TRACE(release_barrier(worker));
}

// Every thread has started and none can run: what can be released?
inline bool release(Worker& worker) {
    if (worker.returned == worker.thread_count) return false;
    if (worker.at_barrier == worker.thread_count && !worker.lines_differ) {
        if (!agree_on_products(worker)) return false;
        release_barrier(worker);
        return true;
    }
    for (uint32_t t = 0; t < worker.thread_count; ++t) {
        const Thread& thread = worker.threads[t];
        if (thread.state == State::warp && release_warp(worker, thread.warp, thread.mask)) {
            return true;
        }
    }
    diagnose(worker);
    return false;
}

// Gives the processor to the next thread that can run; comes back when `from` is resumed.
inline void leave(Worker& worker, Fiber& from, bool may_resume_self) {
    for (;;) {
        if (worker.ready_count) {
            int next = worker.pop_ready();
            bool self = may_resume_self && next == worker.current;
            go_to(worker, next);
            if (!self)
                switch_context(from.context, worker.fibers[worker.threads[next].fiber].context);
            return;
        }
        if (worker.unstarted < worker.thread_count) {
            int fiber = worker.fibers.take();
            if (fiber < 0) {
                fail(worker, Ending::system, false, "no memory for the stacks of the threads");
                abandon(worker);
            }
            worker.entering_fiber = fiber;
            switch_context(from.context, worker.fibers[fiber].context);
            return;
        }
        if (!release(worker)) {
            switch_context(from.context, worker.scheduler);
            return;
        }
    }
}

// What every fiber runs, for ever: threads that have not started, one after the other. As long as
// none waits, a whole block is this loop, on one stack.
inline void fiber_entry() {
    for (;;) {
        Worker& worker = *this_worker;
        const int fiber = worker.entering_fiber;
        while (!worker.ready_count && worker.unstarted < worker.thread_count) {
            int current = worker.order[worker.unstarted++];
            Thread& thread = worker.threads[current];
            thread.state = State::running;
            thread.fiber = fiber;
            go_to(worker, current);
            EMULATOR_TRACE(begin_thread(worker, current));
            worker.run(worker.arguments);
            EMULATOR_TRACE(stop(worker, current, true));
            thread.state = State::returned;
            worker.warps[thread.warp].returned |= 1u << thread.lane;
            ++worker.returned;
        }
        worker.fibers.give_back(fiber);
        leave(worker, worker.fibers[fiber], false);
    }
}

inline void wait_here(Worker& worker) {
    leave(worker, worker.fibers[worker.threads[worker.current].fiber], true);
}

// Once a launch: what all its blocks share.
inline void shape_block(Worker& worker, const Request& request) {
    blockDim = request.block;
    gridDim = request.grid;
    worker.run = request.kernel->run;
    worker.arguments = request.arguments;
    worker.thread_count = request.block.x * request.block.y * request.block.z;
    worker.warp_count = (worker.thread_count + 31) / 32;
    uint32_t thread = 0;
    for (uint32_t z = 0; z < request.block.z; ++z) {
        for (uint32_t y = 0; y < request.block.y; ++y) {
            for (uint32_t x = 0; x < request.block.x; ++x, ++thread) {
                worker.coordinates[thread] = {x, y, z};
                worker.threads[thread].lane = static_cast<uint8_t>(thread % 32);
                worker.threads[thread].warp = static_cast<uint16_t>(thread / 32);
                bool reverse = request.order == Order::reverse;
                worker.order[thread] =
                    static_cast<uint16_t>(reverse ? worker.thread_count - 1 - thread : thread);
            }
        }
    }
}

// False where the block failed.
inline bool run_block(Worker& worker, uint64_t block) {
    const Request& request = worker.launch->request;
    blockIdx = {static_cast<uint32_t>(block % request.grid.x),
                static_cast<uint32_t>(block / request.grid.x % request.grid.y),
                static_cast<uint32_t>(block / request.grid.x / request.grid.y)};
    worker.unstarted = worker.returned = worker.at_barrier = 0;
    worker.ready_head = worker.ready_count = 0;
    worker.predicates = 0;
    worker.lines_differ = false;
    for (uint32_t t = 0; t < worker.thread_count; ++t) {
        worker.copies[t].pending.clear();
        worker.copies[t].committed = 0;
    }
    worker.products.begin_block();
    for (uint32_t warp = 0; warp < worker.warp_count; ++warp) {
        uint32_t lanes = worker.thread_count - warp * 32;
        worker.warps[warp] = {lanes >= 32 ? ~0u : (1u << lanes) - 1, 0, 0};
    }
    if (request.order == Order::random) {
        worker.random = Random(request.seed * 0x100000001B3u + block);
        for (uint32_t t = 0; t < worker.thread_count; ++t) {
            worker.order[t] = static_cast<uint16_t>(t);  // what ran here before must not matter
        }
        worker.random.shuffle(worker.order, worker.thread_count);
    }
    int fiber = worker.fibers.take();
    if (fiber < 0) {
        fail(worker, Ending::system, false, "no memory for the stacks of the threads");
        return false;
    }
    worker.entering_fiber = fiber;
    switch_context(worker.scheduler, worker.fibers[fiber].context);
    return worker.returned == worker.thread_count && agree_on_products(worker);
}
