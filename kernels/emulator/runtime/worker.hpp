// One OS thread's state: the CUDA threads of the block it is running, and where each of them is.
#pragma once

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>

#include <unordered_map>

#include "copies.hpp"
#include "fibers.hpp"
#include "launch.hpp"
#include "products.hpp"

enum class State : uint8_t { running, barrier, warp, returned };

struct Thread {
    State state;
    uint8_t lane;
    uint16_t warp;
    int fiber;
    // Where it waits, and in a warp primitive what it asks for.
    const char* file;
    int line;
    uint32_t mask;
    emulator::WarpOp op;
    int source_lane;
    uint64_t value, result;
    const char* name;
};

struct Warp {
    uint32_t existing, waiting, returned;  // one bit a lane
};

struct Worker {
    explicit Worker(void (*fiber_entry)()) : fibers(fiber_entry) {}

    // The block.
    Launch* launch = nullptr;
    void (*run)(void**) = nullptr;
    void** arguments = nullptr;
    uint32_t thread_count = 0, warp_count = 0;
    uint32_t unstarted = 0, returned = 0, at_barrier = 0;
    int current = 0;         // the CUDA thread that runs now
    int entering_fiber = 0;  // the fiber just switched to for starting a thread
    int predicates = 0;      // how many threads gave the barrier a true predicate
    int barrier_result = 0;
    bool lines_differ = false;
    const char* barrier_file = nullptr;
    int barrier_line = 0;
    Random random{0};

    Thread threads[max_threads];
    Index3 coordinates[max_threads];
    uint16_t order[max_threads];
    Warp warps[max_threads / 32];
    Copies copies[max_threads];
    Products products;
    const SharedMemory* shared = nullptr;  // the running block's

    // Threads that may go on: a ring, each thread in it once at most.
    uint16_t ready[max_threads];
    uint32_t ready_head = 0, ready_count = 0;

    void push_ready(int thread) {
        ready[(ready_head + ready_count++) % max_threads] = static_cast<uint16_t>(thread);
    }
    int pop_ready() {
        int thread = ready[ready_head];
        ready_head = (ready_head + 1) % max_threads;
        --ready_count;
        return thread;
    }

    // The OS thread.
    pthread_t os_thread{};
    FiberPool fibers;
    Context scheduler;
    sigjmp_buf escape;  // out of a kernel that a signal ended
    volatile sig_atomic_t in_kernel = 0;
    volatile sig_atomic_t uninterruptible = 0;  // holds a lock: a stop has to wait
    volatile int signal_number = 0, signal_code = 0;
    void* volatile signal_address = nullptr;
    uint64_t signal_places[16] = {};
    std::unordered_map<const emulator::Module*, SharedMemory> shared_memory;

    // The mailbox of an idle worker.
    std::mutex mutex;
    std::condition_variable wake;
    Launch* inbox = nullptr;
};

extern "C" {
// Initial-exec: each is one load relative to the thread pointer, in kernels too.
#define EMULATOR_TLS __attribute__((tls_model("initial-exec"), visibility("default")))
extern __thread Index3 threadIdx EMULATOR_SYMBOL(threadIdx) EMULATOR_TLS;
extern __thread Index3 blockIdx EMULATOR_SYMBOL(blockIdx) EMULATOR_TLS;
extern __thread Index3 blockDim EMULATOR_SYMBOL(blockDim) EMULATOR_TLS;
extern __thread Index3 gridDim EMULATOR_SYMBOL(gridDim) EMULATOR_TLS;
}
extern __thread Worker* this_worker __attribute__((tls_model("initial-exec")));
