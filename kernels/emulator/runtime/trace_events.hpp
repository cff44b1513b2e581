// What a compiled kernel tells of each CUDA thread: its events, in their order.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "trace_abi.hpp"

// An event is known by a word, its key, which orders code as a warp executes it: the lowest is
// next. Its low 4 bits say what happened, the next 24 where in the code; above them deeper calls
// come first, so that a called function ends before its caller goes on.
using Word = uint32_t;

enum Code : uint32_t {
    block_code,
    sync_code,
    read_code,
    write_code = 7,
    atomic_code = 12,
    fence_code = 14
};

constexpr Word no_key = 0xFFFFFFFF;  // behind the last event
constexpr Word jump_key = no_key - 1;

inline uint32_t code_of(Word key) {
    return key & 15;
}
inline bool is_access(Word key) {
    return code_of(key) >= read_code && code_of(key) < fence_code;
}
inline uint32_t pc_of(Word key) {
    return key >> 4 & 0xFFFFFF;
}
inline TraceKind kind_of(uint32_t code) {
    return code < write_code    ? TraceKind::read
           : code < atomic_code ? TraceKind::write
                                : TraceKind::atomic;
}
inline uint32_t bytes_of(uint32_t code) {
    return code < write_code    ? 1u << (code - read_code)
           : code < atomic_code ? 1u << (code - write_code)
                                : 4u << (code - atomic_code);
}

// One event of a warp, and a bit for each lane that took part in it. The first lane to run writes
// the nodes, one behind the other; those that run after it mostly find their own events there, and
// set their bits. A jump has in the place of the lanes how many nodes further the next one is.
struct Node {
    Word key;
    uint32_t lanes;
};

template <class N>
inline N* follow(N* at) {
    while (at->key == jump_key) at += static_cast<int32_t>(at->lanes);
    return at;
}
// The first event from `at` on that does not come before one with this key.
inline Node* skip(Node* at, Word key) {
    for (at = follow(at); at->key < key;) at = follow(at + 1);
    return at;
}

// Where the running thread is among its warp's events, and where its next address goes. One OS
// thread traces, so that none of this is its own.
struct Pen {
    Node nowhere = {no_key, 0};  // matches no event: all goes to the runtime
    Node* at = &nowhere;
    Node *free = nullptr, *free_end = nullptr;  // where nodes can go
    uint64_t *next = nullptr, *end = nullptr;
    uint64_t code = 0;                    // where the kernel's library was loaded
    uint64_t stack = 0, stack_bytes = 0;  // accesses there are no events
    uint32_t lane = 0;                    // its bit
    Word bias = 0;
    int calls = 0;

    // What a key has beside its place: both at once, so that a key costs one sum.
    void set_calls(int count) {
        calls = count;
        bias =
            (static_cast<Word>(count < 15 ? 15 - count : 0) << 28) - static_cast<Word>(code << 4);
    }
    Word key(uint64_t pc, uint32_t code) const { return static_cast<Word>(pc << 4) + bias + code; }
};

// In the runtime: notes an event that is not among those that are there, or has no room.
extern "C" void traced_event(Word key, uint64_t address);

// Every traced module has its pen and its hooks in itself, so that they cost a plain call.
template <bool has_address>
inline bool is_at(const Pen& pen, const Node* at, Word key) {
    return at->key == key && (!has_address || pen.next != pen.end);
}
template <bool has_address>
inline void note_at(Pen& pen, Node* at, uint64_t address) {
    if (has_address) {
        *pen.next = address;
        __atomic_signal_fence(__ATOMIC_SEQ_CST);  // a signal may end the kernel anywhere
        ++pen.next;
    }
    at->lanes |= pen.lane;
    pen.at = at + 1;
}
template <bool has_address>
__attribute__((noinline)) void note_further(Pen& pen, Word key, uint64_t address) {
    Node* at = pen.at = skip(pen.at, key);
    if (at->key == no_key && at + 1 == pen.free && pen.free != pen.free_end) {
        *pen.free++ = *at;
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        at->key = key;
    }
    if (!is_at<has_address>(pen, at, key)) return traced_event(key, address);
    note_at<has_address>(pen, at, address);
}
template <bool has_address>
inline void note(Pen& pen, uint32_t code, uint64_t pc, uint64_t address) {
    const Word key = pen.key(pc, code);
    const bool is_next = is_at<has_address>(pen, pen.at, key);
    if (__builtin_expect(!is_next, 0)) return note_further<has_address>(pen, key, address);
    note_at<has_address>(pen, pen.at, address);
}
inline void note_short(Pen& pen, uint32_t code, uint64_t pc) {
    note<false>(pen, code, pc, 0);
}
inline void note_access(Pen& pen, uint32_t code, uint64_t pc, const void* address) {
    const auto at = reinterpret_cast<uint64_t>(address);
    if (at - pen.stack < pen.stack_bytes) return;
    note<true>(pen, code, pc, at);
}

#define EMULATOR_CALLER reinterpret_cast<uint64_t>(__builtin_return_address(0))
