// A bit for each byte of a piece of memory.
#pragma once

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

// Memory of zeros that takes no room until it is written.
template <class T>
class Zeros {
  public:
    explicit Zeros(size_t count) : bytes_(count * sizeof(T)) {
        if (!bytes_) return;
        void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        data_ = memory == MAP_FAILED ? nullptr : static_cast<T*>(memory);
    }
    Zeros(Zeros&& other) noexcept : data_(other.data_), bytes_(other.bytes_) {
        other.data_ = nullptr;
    }
    Zeros(const Zeros&) = delete;
    ~Zeros() {
        if (data_) munmap(data_, bytes_);
    }
    T* data() const { return data_; }
    T& operator[](size_t i) const { return data_[i]; }

  private:
    T* data_ = nullptr;
    size_t bytes_;
};

inline size_t words_for(uint64_t bytes) {
    return (bytes + 63) / 64;
}

// Sets the bits of bytes `first` to `end`.
inline void set_bits(uint64_t* words, uint64_t first, uint64_t end) {
    uint64_t word = first / 64, last = (end - 1) / 64;
    uint64_t head = ~uint64_t{0} << (first % 64), tail = ~uint64_t{0} >> (63 - (end - 1) % 64);
    if (word == last) {
        words[word] |= head & tail;
        return;
    }
    words[word] |= head;
    for (++word; word < last; ++word) words[word] = ~uint64_t{0};
    words[last] |= tail;
}

inline bool all_bits(const uint64_t* words, uint64_t first, uint64_t end) {
    for (uint64_t word = first / 64, last = (end - 1) / 64; word <= last; ++word) {
        uint64_t wanted = ~uint64_t{0};
        if (word == first / 64) wanted &= ~uint64_t{0} << (first % 64);
        if (word == last) wanted &= ~uint64_t{0} >> (63 - (end - 1) % 64);
        if ((words[word] & wanted) != wanted) return false;
    }
    return true;
}

inline uint64_t count_bits(const uint64_t* words, size_t count) {
    uint64_t bits = 0;
    for (size_t i = 0; i < count; ++i)
        bits += static_cast<uint64_t>(__builtin_popcountll(words[i]));
    return bits;
}

// How many groups of 32 bits, which are 32 bytes of memory, have any; bit 0 is on such an edge.
inline uint64_t count_sectors(const uint64_t* words, size_t count) {
    uint64_t sectors = 0;
    for (size_t i = 0; i < count; ++i) {
        sectors += static_cast<uint64_t>((words[i] & 0xFFFFFFFF) != 0) + (words[i] >> 32 != 0);
    }
    return sectors;
}
