// Switching from one stack to another.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) && !defined(EMULATOR_UCONTEXT)

struct Context {
    void* stack_pointer = nullptr;
};

extern "C" void emulator_switch(void** saved, void* loaded);

// The callee-saved registers are all that a call must preserve; they lie on the stack left behind.
asm(R"(
    .text
    .globl emulator_switch
    .type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emulator_switch, .-emulator_switch
)");

inline void switch_context(Context& from, const Context& to) {
    emulator_switch(&from.stack_pointer, to.stack_pointer);
}

inline void prepare_context(Context& context, char* stack, size_t bytes, void (*entry)()) {
    auto top = reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t{15};
    auto** word = reinterpret_cast<void**>(top);
    *--word = nullptr;  // where `entry` would return to; it never does
    *--word = reinterpret_cast<void*>(entry);
    for (int reg = 0; reg < 6; ++reg) *--word = nullptr;
    context.stack_pointer = word;
}

#else

#include <ucontext.h>

struct Context {
    ucontext_t registers;
};

inline void switch_context(Context& from, Context& to) {
    swapcontext(&from.registers, &to.registers);
}

inline void prepare_context(Context& context, char* stack, size_t bytes, void (*entry)()) {
    getcontext(&context.registers);
    context.registers.uc_stack.ss_sp = stack;
    context.registers.uc_stack.ss_size = bytes;
    context.registers.uc_link = nullptr;
    makecontext(&context.registers, entry, 0);
}

#endif
