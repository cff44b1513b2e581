// What each CUDA thread did, in order: the events of a warp's lanes, until they are merged.
#pragma once

#include <stdlib.h>

#include <vector>

#include "trace_abi.hpp"

// An event is a word, its key; an access's address follows in two more. The key orders code as a
// warp executes it: the lowest is next. Its low 4 bits say what happened, the next 24 where in the
// code; above them deeper calls come first, so that a called function ends before its caller goes
// on.
using Word = uint32_t;

enum Code : uint32_t {
    block_code,
    sync_code,
    read_code,
    write_code = 7,
    atomic_code = 12,
    fence_code = 14
};

constexpr Word no_key = 0xFFFFFFFF;
constexpr size_t longest_event = 3;

inline uint32_t code_of(Word key) {
    return key & 15;
}
inline bool is_short(Word key) {
    return code_of(key) == block_code || code_of(key) == fence_code;
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
inline uint64_t address_at(const Word* event) {
    uint64_t address;
    __builtin_memcpy(&address, event + 1, sizeof address);
    return address;
}
inline Word* put(Word* event, Word key, uint64_t address) {
    *event = key;
    __builtin_memcpy(event + 1, &address, sizeof address);
    return event + longest_event;
}

// Where the running thread writes next. One OS thread traces, so that none of this is its own.
struct Pen {
    Word *next = nullptr, *end = nullptr;
    uint64_t code = 0;  // where the kernel's library was loaded
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

// Every traced module has its pen and its hooks in itself, so that they cost a plain call.
extern "C" Word* traced_room();  // where the pen goes on when it is at its end; null for nowhere

// Rare, and apart from the common way so that this needs no registers saved.
__attribute__((noinline)) inline void note_in_new_room(Pen& pen, Word key, uint64_t address) {
    Word* event = traced_room();
    if (!event) return;
    if (is_short(key)) {
        *event = key;
        pen.next = event + 1;
    } else {
        pen.next = put(event, key, address);
    }
}
inline void note_short(Pen& pen, uint32_t code, uint64_t pc) {
    Word* event = pen.next;
    const Word key = pen.key(pc, code);
    if (__builtin_expect(event >= pen.end, 0)) return note_in_new_room(pen, key, 0);
    *event = key;
    pen.next = event + 1;
}
inline void note_access(Pen& pen, uint32_t code, uint64_t pc, const void* address) {
    Word* event = pen.next;
    const Word key = pen.key(pc, code);
    const auto where = reinterpret_cast<uint64_t>(address);
    if (__builtin_expect(event >= pen.end, 0)) return note_in_new_room(pen, key, where);
    pen.next = put(event, key, where);
}

#define EMULATOR_CALLER reinterpret_cast<uint64_t>(__builtin_return_address(0))

struct Lane {
    Word *begin = nullptr, *next = nullptr, *end = nullptr;
    int calls = 0;
    Word warp_key = 0;    // of the warp primitive it waits in
    uint32_t passed = 0;  // number of the last warp primitive it went through
    bool cut = false, fenced = false;
    const char* stack = nullptr;
};

// Buffers that are not in use; the last given back is the first taken, for it is in the cache.
class Buffers {
  public:
    struct Buffer {
        Word* begin;
        size_t capacity;
    };
    ~Buffers() {
        for (Buffer& buffer : free_) ::free(buffer.begin);
    }
    Buffer take() {
        if (free_.empty()) {
            constexpr size_t capacity = 4096;
            return {static_cast<Word*>(malloc(capacity * sizeof(Word))), capacity};
        }
        Buffer buffer = free_.back();
        free_.pop_back();
        return buffer;
    }
    void give_back(Buffer buffer) { free_.push_back(buffer); }

  private:
    std::vector<Buffer> free_;
};
