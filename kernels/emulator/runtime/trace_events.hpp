// What each CUDA thread did, in order: the events of a warp's lanes, until they are merged.
#pragma once

#include <stdlib.h>

#include <vector>

#include "trace_abi.hpp"

// The key orders code as a warp executes it: the lowest is next. Its low 24 bits are the place in
// the code; above them deeper calls come first, so that a called function ends before its caller
// goes on.
struct Event {
    uint64_t address;
    uint32_t key;
    TraceKind kind;
    uint8_t bytes;
};
static_assert(sizeof(Event) == 16);

constexpr uint32_t pc_mask = 0xFFFFFF;
constexpr uint32_t no_key = 0xFFFFFFFF;

inline uint32_t depth_key(int depth) {
    return static_cast<uint32_t>(depth < 255 ? 255 - depth : 0) << 24;
}

// Where the running thread writes next. One OS thread traces, so that none of this is its own.
struct Pen {
    Event *next = nullptr, *end = nullptr;
    uint64_t code = 0;  // where the kernel's library was loaded
    uint32_t depth = depth_key(0);
    int calls = 0;
};
inline Pen pen __attribute__((visibility("hidden")));

struct Lane {
    Event *begin = nullptr, *next = nullptr, *end = nullptr;
    int calls = 0;
    uint32_t warp_key = 0;  // of the warp primitive it waits in
    uint32_t passed = 0;    // number of the last warp primitive it went through
    bool cut = false;
    const char* stack = nullptr;
};

// Buffers that are not in use; the last given back is the first taken, for it is in the cache.
class Buffers {
  public:
    struct Buffer {
        Event* begin;
        size_t capacity;
    };
    ~Buffers() {
        for (Buffer& buffer : free_) ::free(buffer.begin);
    }
    Buffer take() {
        if (free_.empty()) {
            constexpr size_t capacity = 1024;
            return {static_cast<Event*>(malloc(capacity * sizeof(Event))), capacity};
        }
        Buffer buffer = free_.back();
        free_.pop_back();
        return buffer;
    }
    void give_back(Buffer buffer) { free_.push_back(buffer); }

  private:
    std::vector<Buffer> free_;
};
