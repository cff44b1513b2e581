// The OS threads that run blocks, and the launches they are lent to.
#pragma once

#include "scheduler.hpp"
#include "shared_memory.hpp"
#include "signals.hpp"

class Workers {
  public:
    // Never destroyed: its threads may outlive the end of main().
    static Workers& get() {
        static Workers* workers = make();
        return *workers;
    }

    // Hands `launch` to up to `count` workers; false where the machine gives no thread at all.
    bool start(Launch& launch, int count) {
        std::lock_guard<std::mutex> lock(mutex_);
        std::vector<Worker*> chosen;
        while (static_cast<int>(chosen.size()) < count) {
            Worker* worker;
            if (idle_.empty()) {
                worker = create();
                if (!worker) break;
            } else {
                worker = idle_.back();
                idle_.pop_back();
            }
            chosen.push_back(worker);
        }
        if (chosen.empty()) return false;
        launch.running = chosen;  // whole before the first worker can take itself off it
        for (Worker* worker : chosen) {
            std::lock_guard<std::mutex> mailbox(worker->mutex);
            worker->inbox = &launch;
            worker->wake.notify_one();
        }
        return true;
    }

  private:
    static Workers* make() {
        auto* workers = new Workers;
        // A forked child has the memory of the workers and none of their threads.
        pthread_atfork(nullptr, nullptr, [] { new (&Workers::get()) Workers; });
        return workers;
    }

    static Worker* create() {
        auto* worker = new Worker(fiber_entry);
        sigset_t blocked = signals_of_workers(), before;
        pthread_sigmask(SIG_SETMASK, &blocked, &before);
        int error = pthread_create(
            &worker->os_thread, nullptr,
            [](void* data) -> void* {
                serve(*static_cast<Worker*>(data));
                return nullptr;
            },
            worker);
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        if (error) {
            delete worker;
            return nullptr;
        }
        pthread_detach(worker->os_thread);
        return worker;
    }

    [[noreturn]] static void serve(Worker& worker) {
        this_worker = &worker;
        stack_t for_handlers{};
        for_handlers.ss_size = 64 << 10;
        for_handlers.ss_sp = new char[for_handlers.ss_size];
        sigaltstack(&for_handlers, nullptr);
        for (;;) {
            {
                std::unique_lock<std::mutex> lock(worker.mutex);
                worker.wake.wait(lock, [&] { return worker.inbox != nullptr; });
                worker.launch = worker.inbox;
                worker.inbox = nullptr;
            }
            run_launch(worker);
            Launch& launch = *worker.launch;
            std::unique_lock<std::mutex> lock(launch.mutex);
            {
                Workers& workers = get();
                std::lock_guard<std::mutex> idle(workers.mutex_);
                workers.idle_.push_back(&worker);
            }
            auto& running = launch.running;
            for (size_t i = 0; i < running.size(); ++i) {
                if (running[i] == &worker) running.erase(running.begin() + static_cast<long>(i));
            }
            // Under the lock: as soon as it is free, Python may delete the launch.
            if (running.empty()) launch.finished.notify_all();
        }
    }

    static void run_launch(Worker& worker) {
        Launch& launch = *worker.launch;
        const Request& request = launch.request;
        shape_block(worker, request);
        worker.uninterruptible = 0;
        if (sigsetjmp(worker.escape, 1)) {
            worker.in_kernel = 0;
            EMULATOR_TRACE(flush_all());
            tell_signal(worker);
            worker.fibers.reset();
            return;
        }
        const SharedMemory& memory = shared_memory_of(worker, request.module);
        worker.shared = &memory;
        EMULATOR_TRACE(begin_launch(worker, memory));
        while (!launch.stop) {
            uint64_t position = launch.next_block.fetch_add(1);
            if (position >= launch.block_count) break;
            clear_shared_memory(memory, request.shared_bytes);
            uint64_t block = block_at(position, launch.block_count, request.order, request.seed);
            EMULATOR_TRACE(begin_block(worker, block));
            worker.in_kernel = 1;
            bool done = run_block(worker, block);
            worker.in_kernel = 0;
            EMULATOR_TRACE(flush_all());
            if (!done) {
                worker.fibers.reset();
                break;
            }
            if (!check_shared_memory(worker, memory, request.shared_bytes)) break;
        }
    }

    static void tell_signal(Worker& worker) {
        Ending ending = Ending::illegal_address;
        char text[256];
        const void* address = worker.signal_address;
        if (worker.signal_number == stop_signal()) {
            ending = static_cast<Ending>(worker.launch->stop.load());
            snprintf(text, sizeof text, "still running");
        } else if (worker.signal_number == SIGFPE) {
            ending = Ending::trap;
            snprintf(text, sizeof text, "integer division by zero, or its result overflows");
        } else if (worker.signal_number == SIGILL) {
            ending = Ending::trap;
            snprintf(text, sizeof text, "illegal instruction");
        } else if (worker.fibers.overflowed(address)) {
            snprintf(text, sizeof text, "stack overflow (a thread has %zu KiB)",
                     FiberPool::stack_bytes >> 10);
        } else if (worker.signal_code == SI_KERNEL) {
            snprintf(text, sizeof text,
                     "illegal memory access: a misaligned vector or a wild pointer");
        } else {
            snprintf(text, sizeof text, "illegal memory access at address %p", address);
        }
        Failure failure{};
        failure.ending = ending;
        failure.block = blockIdx;
        failure.thread = threadIdx;
        failure.in_thread = 1;
        memcpy(failure.code, worker.signal_places, sizeof failure.code);
        memcpy(failure.text, text, sizeof text);
        worker.launch->fail(failure);
    }

    std::mutex mutex_;
    std::vector<Worker*> idle_;
};
