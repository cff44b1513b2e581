// The stacks that CUDA threads run on. A worker keeps its own; none moves to another OS thread.
#pragma once

#include <sys/mman.h>

#include <atomic>

#include "context.hpp"

constexpr int max_threads = 1024;  // CUDA's limit a block

struct Fiber {
    Context context;
    char* stack = nullptr;
    char* top = nullptr;  // where its first frame begins
};

class FiberPool {
  public:
    static constexpr size_t stack_bytes = 256 << 10;
    static constexpr size_t guard_bytes = 4096;

    explicit FiberPool(void (*entry)()) : entry_(entry) {}

    Fiber& operator[](int fiber) { return fibers_[fiber]; }

    // A fiber that waits to start a thread, or -1 where the machine has no more memory.
    int take() {
        if (free_count_) return free_[--free_count_];
        if (made_ == max_threads || !make(made_)) return -1;
        return made_++;
    }

    void give_back(int fiber) { free_[free_count_++] = fiber; }

    // After a block was abandoned half-way: every stack starts anew.
    void reset() {
        free_count_ = 0;
        for (int fiber = made_; fiber-- > 0;) {
            prepare(fiber);
            give_back(fiber);
        }
    }

    bool overflowed(const void* address) const {
        for (int fiber = 0; fiber < made_; ++fiber) {
            const char* stack = fibers_[fiber].stack;
            if (address >= stack && address < stack + guard_bytes) return true;
        }
        return false;
    }

    // Whether these bytes are on a stack, and not in its guard.
    bool holds(const void* address, size_t bytes) const {
        auto* first = static_cast<const char*>(address);
        for (int fiber = 0; fiber < made_; ++fiber) {
            const char* stack = fibers_[fiber].stack;
            if (first >= stack + guard_bytes && first + bytes <= stack + stack_bytes) return true;
        }
        return false;
    }

  private:
    bool make(int fiber) {
        void* stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
        if (stack == MAP_FAILED) return false;
        // Linux allows a process 65530 mappings and a guarded stack takes two: not every stack on
        // a machine of very many cores can have its guard.
        static std::atomic<int> guarded{0};
        if (guarded.fetch_add(1) < 16384) mprotect(stack, guard_bytes, PROT_NONE);
        fibers_[fiber].stack = static_cast<char*>(stack);
        prepare(fiber);
        return true;
    }

    void prepare(int fiber) {
        // Tops at one offset in their pages would fight for the same few sets of the cache.
        size_t colour = static_cast<size_t>(fiber % 29) * 576;
        fibers_[fiber].top = fibers_[fiber].stack + stack_bytes - colour;
        prepare_context(fibers_[fiber].context, fibers_[fiber].stack, stack_bytes - colour, entry_);
    }

    void (*entry_)();
    Fiber fibers_[max_threads];
    int free_[max_threads];
    int free_count_ = 0, made_ = 0;
};
