// Where the runtime tells a tracer what happens. In the plain runtime nobody listens, and nothing
// of this is left in the code.
#pragma once

#ifdef EMULATOR_TRACED

#include "shared_memory.hpp"
#include "tracer.hpp"

inline Tracer* tracer = nullptr;  // of the one launch that runs; Python sees to that

#define EMULATOR_TRACE(what)      \
    do {                          \
        if (tracer) tracer->what; \
    } while (false)
// What follows a barrier begins like a basic block.
#define EMULATOR_TRACE_BLOCK()                                            \
    do {                                                                  \
        if (tracer) note_short(tracer->pen, block_code, EMULATOR_CALLER); \
    } while (false)

#else

#define EMULATOR_TRACE(what) static_cast<void>(0)
#define EMULATOR_TRACE_BLOCK() static_cast<void>(0)

#endif
