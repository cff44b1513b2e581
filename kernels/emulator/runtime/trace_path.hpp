// What the lanes of a warp did since its last barrier, as one sequence of events.
//
// It is that of a warp in which the lowest of its lanes' next events is always next, and all lanes
// that are at it execute it together. As the traced build keeps the code in the source's order,
// that brings lanes which went different ways together again where the ways meet, as a GPU does it
// for structured code. Lanes are merged in one at a time, as they run: the lowest of all is the
// lowest of the merged ones' lowest and the new one's.
#pragma once

#include <vector>

#include "trace_events.hpp"

class Path {
  public:
    bool is_empty() const { return !size_; }
    uint32_t size() const { return size_; }
    Node* nodes() { return nodes_.data(); }
    Node* end() { return nodes_.data() + nodes_.size(); }
    void set_size(uint32_t size) { size_ = size; }

    void begin() {
        grow();
        nodes_[0] = {no_key, 0};
        size_ = 1;
    }
    // Puts an event before the one at `at`, which is no jump, and returns its index. If that one is
    // the last of those put in, it makes room; so does the jump behind it, which was at `moved`.
    uint32_t insert(uint32_t at, Word key, uint32_t& moved) {
        grow();
        const Node behind = nodes_[at];
        if (behind.key == no_key && at + 1 == size_) {
            nodes_[size_++] = behind;
        } else if (at + 2 == size_ && nodes_[at + 1].key == jump_key) {
            moved = at + 1;
            nodes_[size_++] = {jump_key, nodes_[moved].lanes - 1};
            nodes_[moved] = behind;
        } else {
            const uint32_t put = size_;
            nodes_[at] = {jump_key, put - at};
            nodes_[put] = {key, 0};
            nodes_[put + 1] = behind;
            nodes_[put + 2] = {jump_key, at + 1 - (put + 2)};
            size_ += behind.key == no_key ? 2 : 3;
            return put;
        }
        nodes_[at] = {key, 0};
        return at;
    }

  private:
    void grow() {
        if (size_ + 3 > nodes_.size()) nodes_.resize(nodes_.empty() ? 4096 : 2 * nodes_.size());
    }

    std::vector<Node> nodes_;
    uint32_t size_ = 0;
};

struct Lane {
    uint32_t at = 0;  // in its warp's path
    std::vector<uint64_t> addresses;
    uint64_t* next = nullptr;
    int calls = 0;
    Word warp_key = 0;    // of the warp primitive it waits in
    uint32_t passed = 0;  // number of the last warp primitive it went through
    bool cut = false, fenced = false;
    const char *stack = nullptr, *top = nullptr;
};

// What is not in use; the last given back is the first taken, for it is in the cache.
template <class T>
class Spare {
  public:
    T take() {
        if (spare_.empty()) return T{};
        T taken = static_cast<T&&>(spare_.back());
        spare_.pop_back();
        return taken;
    }
    void give_back(T&& one) { spare_.push_back(static_cast<T&&>(one)); }

  private:
    std::vector<T> spare_;
};
