// What went wrong, in words.
#pragma once

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "worker.hpp"

inline const char* base_name(const char* path) {
    const char* slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

[[gnu::format(printf, 4, 5)]]
inline void fail(Worker& worker, Ending ending, bool in_thread, const char* format, ...) {
    Failure failure{};
    failure.ending = ending;
    failure.block = blockIdx;
    failure.thread = threadIdx;
    failure.in_thread = in_thread;
    va_list values;
    va_start(values, format);
    vsnprintf(failure.text, sizeof failure.text, format, values);
    va_end(values);
    worker.uninterruptible = 1;
    worker.launch->fail(failure);
    worker.uninterruptible = 0;
}

// Leaves the running thread for good; the worker goes on to throw its block away.
[[noreturn]] inline void abandon(Worker& worker) {
    static __thread Context nowhere;
    switch_context(nowhere, worker.scheduler);
    __builtin_unreachable();
}

inline int where(const Thread& thread, char* text, size_t size) {
    switch (thread.state) {
        case State::returned:
            return snprintf(text, size, "has returned");
        case State::barrier:
            return snprintf(text, size, "waits at the __syncthreads at %s:%d",
                            base_name(thread.file), thread.line);
        case State::warp:
            return snprintf(text, size, "waits in %s(0x%08x) at %s:%d", thread.name, thread.mask,
                            base_name(thread.file), thread.line);
        default:
            return snprintf(text, size, "runs");
    }
}

inline bool at_barrier_line(const Worker& worker, const Thread& thread) {
    return thread.state == State::barrier && thread.line == worker.barrier_line &&
           (thread.file == worker.barrier_file || !strcmp(thread.file, worker.barrier_file));
}

// Nothing can run and the block has not ended: say who waits for whom.
inline void diagnose(Worker& worker) {
    char what[512];
    if (worker.at_barrier) {
        uint32_t arrived = 0, other = worker.thread_count;
        for (uint32_t t = 0; t < worker.thread_count; ++t) {
            if (at_barrier_line(worker, worker.threads[t])) {
                ++arrived;
            } else if (other == worker.thread_count) {
                other = t;
            }
        }
        where(worker.threads[other], what, sizeof what);
        Index3 at = worker.coordinates[other];
        fail(worker, Ending::divergence, false,
             "%u of %u threads arrived at the __syncthreads at %s:%d; thread (%u, %u, %u) %s",
             arrived, worker.thread_count, base_name(worker.barrier_file), worker.barrier_line,
             at.x, at.y, at.z, what);
        return;
    }
    for (uint32_t t = 0; t < worker.thread_count; ++t) {
        const Thread& thread = worker.threads[t];
        if (thread.state != State::warp) continue;
        const Warp& warp = worker.warps[thread.warp];
        for (uint32_t lane = 0; lane < 32; ++lane) {
            if (!((thread.mask & warp.existing & ~warp.returned) >> lane & 1)) continue;
            const Thread& other = worker.threads[thread.warp * 32 + lane];
            if (other.state == State::warp && other.mask == thread.mask) continue;
            where(other, what, sizeof what);
            Index3 at = worker.coordinates[thread.warp * 32 + lane];
            fail(worker, Ending::divergence, false,
                 "%s(0x%08x) at %s:%d waits for lane %u of warp %u; thread (%u, %u, %u) %s",
                 thread.name, thread.mask, base_name(thread.file), thread.line, lane, thread.warp,
                 at.x, at.y, at.z, what);
            return;
        }
    }
    fail(worker, Ending::divergence, false, "no thread of the block can go on");
}
