// What Python asks of a traced launch, and what it gets: plain structs that ctypes reads.
#pragma once

#include <cstdint>

extern "C" {

// One array a kernel was given: its memory, the guard zones around it, and one bit a byte that
// says which of its bytes hold a value (null: all of them).
struct TraceArray {
    uint64_t begin, end, guard_begin, guard_end;
    uint8_t* initialised;
    uint32_t is_const, has_cells;
};

// One shared array, by its offset in the module's thread-local memory.
struct TraceShared {
    uint64_t offset, bytes;
};

// Two calls that tell of one access of the source: offsets from the table they stand in.
struct TraceCopy {
    int32_t copy, first;
};

struct Pen;

struct TraceRequest {
    Pen* pen;
    const TraceArray* arrays;
    const TraceShared* shared;
    const uint64_t* blocks;  // those to trace, ascending; null for all
    const TraceCopy* copies;
    uint64_t array_count, shared_count, block_count, copy_count;
    uint64_t most_events;   // of a warp between two barriers; the rest is cut off
    uint64_t local_arrays;  // whether a thread's accesses to its own stack are events
};

enum class TraceKind : uint8_t { read, write, atomic };
enum class TraceSpace : uint32_t { global, shared, local, ignored };

// One access of the code to one array. `pc` counts from where the library was loaded.
struct TraceAccess {
    uint32_t pc;
    TraceKind operation;
    uint32_t bytes;
    TraceSpace space;
    int32_t array;  // of the arrays, then of the shared ones; -1 for local memory
    int32_t next;   // of the same pc
    uint64_t begin, end;
    uint64_t requests, lanes, unique_bytes, sectors, ideal_sectors, wavefronts, ideal_wavefronts,
        conflicts;
    uint64_t example_cost, example_block;
    uint32_t example_mask, example_warp;
    uint64_t example[32];
};

// One basic block, or what follows a barrier in one.
struct TraceBlock {
    uint32_t pc, first_successor, is_branch, spare;
    uint64_t executions, lanes, divergent;
};

enum class TraceFault : uint32_t { bounds, foreign, misaligned, race, uninitialised };

struct TraceFinding {
    TraceFault kind;
    uint32_t pc;
    int32_t array;
    TraceKind operation;
    uint32_t bytes, thread;
    uint64_t block, address, count;
    int64_t offset;  // in bytes, from the start of the array
    uint32_t other_pc, other_thread;
    TraceKind other_operation;
    uint32_t spare;
    uint64_t other_block;
};

struct TraceUse {
    uint64_t read_bytes, written_bytes, read_sectors, written_sectors;
};

struct TraceResult {
    const TraceAccess* accesses;
    const TraceBlock* blocks;
    const TraceFinding* findings;
    const TraceUse* uses;  // of each array
    uint64_t access_count, block_count, finding_count, blocks_traced, cut, tf32_flops, bf16_flops;
};
}
