// Where the runtime tells a tracer what happens. In the plain runtime nobody listens, and nothing
// of this is left in the code.
#pragma once

#ifdef EMULATOR_TRACED

#include "shared_memory.hpp"
#include "tracer.hpp"

inline Tracer* tracer = nullptr;  // of the one launch that runs; Python sees to that

inline void note(TraceKind kind, uint32_t bytes, uint64_t pc, const void* address) {
    Event* event = pen.next;
    if (__builtin_expect(event == pen.end, 0)) {
        event = tracer ? tracer->room() : nullptr;
        if (!event) return;
    }
    event->address = reinterpret_cast<uint64_t>(address);
    event->key = pen.depth | static_cast<uint32_t>(pc - pen.code);
    event->kind = kind;
    event->bytes = static_cast<uint8_t>(bytes);
    pen.next = event + 1;
}

#define EMULATOR_CALLER reinterpret_cast<uint64_t>(__builtin_return_address(0))
#define EMULATOR_TRACE(what)      \
    do {                          \
        if (tracer) tracer->what; \
    } while (false)
// What follows a barrier begins like a basic block.
#define EMULATOR_TRACE_BLOCK() note(TraceKind::block, 0, EMULATOR_CALLER, nullptr)

#else

#define EMULATOR_TRACE(what) static_cast<void>(0)
#define EMULATOR_TRACE_BLOCK() static_cast<void>(0)

#endif
