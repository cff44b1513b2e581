// Faults inside a kernel, and kernels that have to be stopped, end the launch and not the process.
#pragma once

#include <errno.h>
#include <signal.h>
#include <ucontext.h>

#include "worker.hpp"

inline int stop_signal() {
#ifdef EMULATOR_TRACED
    return SIGRTMIN + 8;
#else
    return SIGRTMIN + 7;
#endif
}

constexpr int fault_signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
inline struct sigaction earlier_handlers[NSIG];

inline void note_place(Worker& worker, void* context) {
    auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext;
    uint64_t* places = worker.signal_places;
    for (int i = 0; i < 16; ++i) places[i] = 0;
#if defined(__x86_64__)
    places[0] = static_cast<uint64_t>(registers.gregs[REG_RIP]);
    auto* stack = reinterpret_cast<const uint64_t*>(registers.gregs[REG_RSP]);
#elif defined(__aarch64__)
    places[0] = registers.pc;
    places[1] = registers.regs[30];  // the link register
    const uint64_t* stack = nullptr;
#else
    (void)registers;
    const uint64_t* stack = nullptr;
#endif
    if (!worker.fibers.holds(stack, 15 * sizeof *stack)) return;
    for (int i = 1; i < 16; ++i) places[i] = stack[i - 1];
}

// The handlers leave through siglongjmp: the kernel's stack is abandoned where it stands.
inline void on_fault(int number, siginfo_t* info, void* context) {
    Worker* worker = this_worker;
    if (worker && worker->in_kernel) {
        worker->signal_number = number;
        worker->signal_code = info->si_code;
        worker->signal_address = info->si_addr;
        note_place(*worker, context);
        siglongjmp(worker->escape, 1);
    }
    const struct sigaction& earlier = earlier_handlers[number];
    if (earlier.sa_flags & SA_SIGINFO) {
        earlier.sa_sigaction(number, info, context);
    } else if (earlier.sa_handler != SIG_DFL && earlier.sa_handler != SIG_IGN) {
        earlier.sa_handler(number);
    } else {
        sigaction(number, &earlier, nullptr);  // and the instruction faults again
        if (info->si_code <= 0) raise(number);
    }
}

inline void on_stop(int number, siginfo_t*, void* context) {
    Worker* worker = this_worker;
    if (!worker || !worker->in_kernel || worker->uninterruptible || !worker->launch->stop) return;
    worker->signal_number = number;
    note_place(*worker, context);
    siglongjmp(worker->escape, 1);
}

// Before every launch, for others (faulthandler) set handlers of their own at any time.
inline void install_handlers() {
    static std::mutex mutex;
    std::lock_guard<std::mutex> lock(mutex);
    struct sigaction action{};
    sigfillset(&action.sa_mask);
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    for (int number : fault_signals) {
        struct sigaction now;
        sigaction(number, nullptr, &now);
        if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault) continue;
        earlier_handlers[number] = now;
        action.sa_sigaction = on_fault;
        sigaction(number, &action, nullptr);
    }
    action.sa_sigaction = on_stop;
    sigaction(stop_signal(), &action, nullptr);
}

// Gives the faults back to whom they were taken from: two runtimes that took them in turn would
// hand a fault to each other for ever.
inline void restore_handlers() {
    for (int number : fault_signals) {
        struct sigaction now;
        sigaction(number, nullptr, &now);
        const bool is_ours = (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault;
        if (is_ours) sigaction(number, &earlier_handlers[number], nullptr);
    }
}

// A worker leaves all other signals (Ctrl-C, timers) to the threads of Python.
inline sigset_t signals_of_workers() {
    sigset_t blocked;
    sigfillset(&blocked);
    for (int number : fault_signals) sigdelset(&blocked, number);
    sigdelset(&blocked, stop_signal());
    return blocked;
}
