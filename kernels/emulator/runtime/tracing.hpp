// Where the runtime tells a tracer what happens. In the plain runtime nobody listens, and nothing
// of this is left in the code.
#pragma once

#ifdef EMULATOR_TRACED

#include "shared_memory.hpp"
#include "tracer.hpp"

inline Tracer* tracer = nullptr;  // of the one launch that runs; Python sees to that

inline Word* room_for_event() {
    Word* event = pen.next;
    if (__builtin_expect(event >= pen.end, 0)) event = tracer ? tracer->room() : nullptr;
    return event;
}
inline void note_block(uint64_t pc) {
    Word* event = room_for_event();
    if (!event) return;
    *event = pen.key(pc, block_code);
    pen.next = event + 1;
}
inline void note_access(uint32_t code, uint64_t pc, const void* address) {
    Word* event = room_for_event();
    if (event) pen.next = put(event, pen.key(pc, code), reinterpret_cast<uint64_t>(address));
}

#define EMULATOR_CALLER reinterpret_cast<uint64_t>(__builtin_return_address(0))
#define EMULATOR_TRACE(what)      \
    do {                          \
        if (tracer) tracer->what; \
    } while (false)
// What follows a barrier begins like a basic block.
#define EMULATOR_TRACE_BLOCK() note_block(EMULATOR_CALLER)

#else

#define EMULATOR_TRACE(what) static_cast<void>(0)
#define EMULATOR_TRACE_BLOCK() static_cast<void>(0)

#endif
