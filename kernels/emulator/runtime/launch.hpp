// One launch: what Python asked for, how far it is, and how it ended.
#pragma once

#include <atomic>
#include <condition_variable>
#include <chrono>
#include <mutex>
#include <string>
#include <vector>

#include "../device/abi.hpp"

enum class Order : int32_t { forward, reverse, random };
enum class Ending : int32_t { done, divergence, timeout, illegal_address, trap, cancelled, system };

struct Index3 {
    uint32_t x, y, z;
};

extern "C" {

struct Request {
    const emulator::Module* module;
    const emulator::Kernel* kernel;
    void** arguments;
    Index3 grid, block;
    uint32_t shared_bytes;
    Order order;
    uint64_t seed;
    int32_t workers;
};

struct Failure {
    Ending ending;
    Index3 block, thread;
    int32_t in_thread;  // whether `thread` says anything
    // Where it was: the program counter, then what lies on top of the stack. The first that is in
    // the kernel's library is its place, also when it ended in a library it had called.
    uint64_t code[16];
    char text[2048];
};
}

struct Worker;

struct Launch {
    Request request;
    uint64_t block_count;
    std::atomic<uint64_t> next_block{0};
    std::atomic<int> stop{0};  // an Ending; blocks not yet begun are left out

    std::mutex mutex;
    std::condition_variable finished;
    std::vector<Worker*> running;
    Failure failure{};
    std::string printed;

    // The first failure is told; the others are most often its consequences.
    void fail(const Failure& what) {
        std::lock_guard<std::mutex> lock(mutex);
        if (failure.ending == Ending::done) failure = what;
        stop.store(static_cast<int>(what.ending));
    }
};

// xorshift64*: small, fast and seeded.
class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 0x632BE59BD9B4E019u) {
        if (!state_) state_ = 1;
        next();
    }
    uint64_t next() {
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return state_ * 0x2545F4914F6CDD1Du;
    }
    uint32_t below(uint32_t bound) {
        return static_cast<uint32_t>(((next() >> 32) * uint64_t{bound}) >> 32);
    }
    template <class T>
    void shuffle(T* items, uint32_t count) {
        for (uint32_t i = count; i > 1; --i) {
            uint32_t j = below(i);
            T item = items[i - 1];
            items[i - 1] = items[j];
            items[j] = item;
        }
    }

  private:
    uint64_t state_;
};

// The block that runs at `position`. The random order is a bijection on the next power of two,
// walked until it falls into the grid, so that no table of a huge grid's blocks is needed.
inline uint64_t block_at(uint64_t position, uint64_t count, Order order, uint64_t seed) {
    if (order == Order::forward || count == 1) return position;
    if (order == Order::reverse) return count - 1 - position;
    int bits = 64 - __builtin_clzll(count - 1);
    uint64_t mask = bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1;
    int half = bits / 2 ? bits / 2 : 1;
    Random keys(seed + 1);
    uint64_t key[4] = {keys.next(), keys.next(), keys.next(), keys.next()};
    uint64_t block = position;
    do {
        for (int round = 0; round < 4; ++round) {
            block = (block * (key[round] | 1) + key[3 - round]) & mask;
            block ^= block >> half;
        }
    } while (block >= count);
    return block;
}
