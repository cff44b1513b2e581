// Products of a warpgroup from shared memory: what they do is done at the wait for them.
//
// A GPU reads the factors and writes the sums at any time between. So the factors are read twice,
// when the product begins and at the wait: where they differ the sums become NaN. Until the wait
// the sums' registers hold NaN, too.
#pragma once

#include <stdio.h>
#include <string.h>

#include <iterator>
#include <memory>
#include <unordered_map>
#include <vector>

#include "../device/abi.hpp"
#include "fibers.hpp"

// A module's static shared memory in this OS thread, around its dynamic one.
struct SharedMemory {
    char *begin = nullptr, *end = nullptr, *dynamic = nullptr;

    // Addresses in shared memory, which a descriptor has, count from here.
    char* origin() const {
        return reinterpret_cast<char*>(reinterpret_cast<uintptr_t>(begin) & ~uintptr_t{127});
    }
};

constexpr size_t dynamic_shared_bytes = 227 << 10;  // CUDA's most, on compute capability 9.0
constexpr size_t dynamic_canary_bytes = 1024;
constexpr uint64_t address_end = 1 << 18;  // of what a descriptor's fields can say
constexpr uint32_t core_rows = 8, vector_bytes = 16;

// A matrix descriptor's fields. (PTX ISA, matrix descriptors of wgmma: bits 0-13 the address, 16-29
// and 32-45 the leading and the stride dimension's offsets, all in units of 16 bytes; 49-51 the
// base offset and 62-63 the swizzle, here none.)
struct Matrix {
    uint32_t start, leading, stride;
    bool is_plain;

    explicit Matrix(uint64_t descriptor)
        : start((descriptor & 0x3fff) * 16),
          leading((descriptor >> 16 & 0x3fff) * 16),
          stride((descriptor >> 32 & 0x3fff) * 16),
          is_plain(!(descriptor & ~uint64_t{0x3fff3fff3fff})) {}

    uint32_t offset(uint32_t row, uint32_t vector) const {
        return start + row / core_rows * stride + row % core_rows * vector_bytes + vector * leading;
    }
    const char* row(const SharedMemory& shared, uint32_t row, uint32_t vector) const {
        return shared.origin() + offset(row, vector);
    }
};

inline bool describe(const SharedMemory& shared, const void* start, int leading, int stride,
                     uint64_t& descriptor, char (&why)[256]) {
    const uint64_t address =
        static_cast<uint64_t>(static_cast<const char*>(start) - shared.origin());
    if (start < shared.begin || start >= shared.end || address >= address_end) {
        snprintf(why, sizeof why, "the matrix does not begin in shared memory");
        return false;
    }
    const struct {
        const char* name;
        int64_t bytes;
    } fields[] = {{"the matrix's address", static_cast<int64_t>(address)},
                  {"leading_bytes", leading},
                  {"stride_bytes", stride}};
    for (const auto& field : fields) {
        if (field.bytes % 16 == 0 && field.bytes >= 0 &&
            field.bytes < static_cast<int64_t>(address_end)) {
            continue;
        }
        snprintf(why, sizeof why, "%s is %lld; expected a multiple of 16 from 0 to %llu",
                 field.name, static_cast<long long>(field.bytes),
                 static_cast<unsigned long long>(address_end - 16));
        return false;
    }
    descriptor = address >> 4 | static_cast<uint64_t>(leading >> 4) << 16 |
                 static_cast<uint64_t>(stride >> 4) << 32;
    return true;
}

class Products {
  public:
    void begin_block() {
        if (!used_) return;
        used_ = false;
        for (Warp& warp : warps_) warp = Warp();
        for (std::vector<Asked>& group : asked_) group.clear();
        places_.reset();
    }

    // ---- what copies brought, and other ways to memory do not yet see ----

    void landed(const SharedMemory& shared, const void* to, uint32_t thread) {
        if (to < shared.begin || to >= shared.end) return;
        if (!places_) places_.reset(new Place[(address_end + (64 << 10)) / vector_bytes]());
        used_ = true;
        const auto at = static_cast<size_t>(static_cast<const char*>(to) - shared.origin());
        places_[at / vector_bytes] = {thread + 1, fences_[thread]};
    }
    void async_proxy_fence(int thread) { ++fences_[thread]; }
    void warpgroup_fence(int thread) {
        used_ = true;
        warps_[thread / 32].fenced |= 1u << thread % 32;
    }

    // ---- a warp's part: 16 rows of the warpgroup's ----

    void begin(const SharedMemory& shared, uint32_t index, uint32_t warp_count,
               uint32_t shared_bytes, const emulator::Product* const (&asked)[32],
               char (&why)[256]) {
        used_ = true;
        Warp& warp = warps_[index];
        const emulator::Product& first = *asked[0];
        for (const emulator::Product* one : asked) {
            if (one->a == first.a && one->b == first.b) continue;
            snprintf(why, sizeof why,
                     "the lanes have different descriptors; expected the same in "
                     "all of a warpgroup");
            return;
        }
        const uint32_t group = index / 4;
        if (group * 4 + 4 > warp_count) {
            snprintf(why, sizeof why,
                     "a warpgroup is 4 warps, the first a multiple of 4, but the "
                     "block has %u warps",
                     warp_count);
            return;
        }
        const Asked what{first.a, first.b, first.columns};
        if (warp.begun == asked_[group].size()) asked_[group].push_back(what);
        if (!(asked_[group][warp.begun++] == what)) {
            snprintf(why, sizeof why,
                     "the warps of a warpgroup have different descriptors or sizes");
            return;
        }
        Pending pending{first, {}, warp.committed, {}};
        if (!read(shared, index, first, shared_bytes, pending.factors, why)) return;
        for (int lane = 0; lane < 32; ++lane) pending.d[lane] = asked[lane]->d;
        auto [sums, is_new] = warp.sums.try_emplace(first.d);
        if (is_new) {
            if (warp.fenced != ~0u) {
                snprintf(why, sizeof why,
                         "the sums' registers were the threads' before; expected "
                         "warpgroup_fence() first");
                return;
            }
            exchange(pending, sums->second, true);
        }
        warp.pending.push_back(std::move(pending));
    }
    void commit(uint32_t index) { ++warps_[index].committed; }

    // Ends all groups but the newest `most_pending`.
    void wait(const SharedMemory& shared, uint32_t index, uint32_t most_pending) {
        Warp& warp = warps_[index];
        size_t ended = 0;
        for (; ended < warp.pending.size(); ++ended) {
            Pending& pending = warp.pending[ended];
            if (pending.group + most_pending >= warp.committed) break;
            Factors now;
            read_bytes(shared, index, pending.product, now);
            multiply(pending, now == pending.factors, warp.sums[pending.product.d]);
        }
        const auto first_left = warp.pending.begin() + static_cast<long>(ended);
        const std::vector<Pending> all_done(std::make_move_iterator(warp.pending.begin()),
                                            std::make_move_iterator(first_left));
        warp.pending.erase(warp.pending.begin(), first_left);
        for (const Pending& done : all_done) {
            bool is_pending = false;
            for (const Pending& one : warp.pending) is_pending |= one.product.d == done.product.d;
            auto sums = warp.sums.find(done.product.d);
            if (is_pending || sums == warp.sums.end()) continue;
            exchange(done, sums->second, false);
            warp.sums.erase(sums);
            warp.fenced = 0;
        }
    }

    // Whether the warps of every warpgroup have begun the same products.
    bool agree(uint32_t warp_count, char (&why)[256]) const {
        for (uint32_t index = 0; used_ && index < warp_count; ++index) {
            const size_t all = asked_[index / 4].size();
            if (warps_[index].begun == all) continue;
            snprintf(why, sizeof why,
                     "warp %u of warpgroup %u began %zu of its %zu products; all "
                     "four warps have to",
                     index % 4, index / 4, warps_[index].begun, all);
            return false;
        }
        return true;
    }

  private:
    static constexpr uint32_t depth = 16, rows = 16, most_columns = 256;

    struct Asked {
        uint64_t a, b;
        uint32_t columns;
        bool operator==(const Asked& other) const {
            return a == other.a && b == other.b && columns == other.columns;
        }
    };
    // Vectors of 8 factors: the warp's 16 rows of a, then b.
    using Factors = std::vector<uint16_t>;
    struct Pending {
        emulator::Product product;
        float* d[32];
        uint32_t group;
        Factors factors;
    };
    struct Sums {
        float of[rows][most_columns];
    };
    struct Warp {
        std::vector<Pending> pending;
        std::unordered_map<float*, Sums> sums;  // by the first lane's registers
        uint32_t committed = 0, fenced = 0;
        size_t begun = 0;
    };
    // What was copied to 16 bytes, by which thread (from 1), and how many fences it had done.
    struct Place {
        uint32_t thread, fences;
    };

    static void read_bytes(const SharedMemory& shared, uint32_t index,
                           const emulator::Product& product, Factors& factors) {
        factors.resize((rows + product.columns) * depth);
        char* to = reinterpret_cast<char*>(factors.data());
        for_each_row(index, product, [&](const Matrix& matrix, uint32_t row, uint32_t vector) {
            memcpy(to, matrix.row(shared, row, vector), vector_bytes);
            to += vector_bytes;
            return true;
        });
    }
    template <class F>
    static bool for_each_row(uint32_t index, const emulator::Product& product, F each) {
        const Matrix a(product.a), b(product.b);
        const uint32_t first = index % 4 * rows;
        for (uint32_t row = first; row < first + rows; ++row) {
            if (!each(a, row, 0) || !each(a, row, 1)) return false;
        }
        for (uint32_t row = 0; row < product.columns; ++row) {
            if (!each(b, row, 0) || !each(b, row, 1)) return false;
        }
        return true;
    }
    // Checks where the factors lie, and reads them.
    bool read(const SharedMemory& shared, uint32_t index, const emulator::Product& product,
              uint32_t shared_bytes, Factors& factors, char (&why)[256]) const {
        if (!Matrix(product.a).is_plain || !Matrix(product.b).is_plain) {
            snprintf(why, sizeof why,
                     "a descriptor has a swizzle, a base offset or other bits; "
                     "expected those of matrix_descriptor() and an offset alone");
            return false;
        }
        // Behind the bytes that the launch gave there is room that is nobody's.
        const char* given = shared.dynamic ? shared.dynamic + shared_bytes : shared.end;
        const char* next = shared.dynamic
                               ? shared.dynamic + dynamic_shared_bytes + dynamic_canary_bytes
                               : shared.end;
        const bool is_sound =
            for_each_row(index, product, [&](const Matrix& matrix, uint32_t row, uint32_t vector) {
                const char* at = matrix.row(shared, row, vector);
                const bool is_inside = (at >= shared.begin && at + vector_bytes <= given) ||
                                       (at >= next && at + vector_bytes <= shared.end);
                if (!is_inside || matrix.offset(row, vector) >= address_end) {
                    snprintf(why, sizeof why, "row %u of a matrix is outside of shared memory",
                             row);
                    return false;
                }
                const Place* place = places_ ? &places_[matrix.offset(row, vector) / 16] : nullptr;
                if (!place || !place->thread || place->fences < fences_[place->thread - 1]) {
                    return true;
                }
                snprintf(why, sizeof why,
                         "row %u of a matrix was copied by thread %u without an "
                         "async_proxy_fence() since",
                         row, place->thread - 1);
                return false;
            });
        if (is_sound) read_bytes(shared, index, product, factors);
        return is_sound;
    }

    // Takes the lanes' sums, and leaves NaN; or gives them back.
    static void exchange(const Pending& pending, Sums& sums, bool takes) {
        for (uint32_t lane = 0; lane < 32; ++lane) {
            for (uint32_t i = 0; i < pending.product.columns / 2; ++i) {
                float& d = pending.d[lane][i];
                float& sum = sums.of[lane / 4 + i / 2 % 2 * 8][i / 4 * 8 + lane % 4 * 2 + i % 2];
                if (takes) {
                    sum = d;
                    memset(&d, 0xff, sizeof d);
                } else {
                    d = sum;
                }
            }
        }
    }

    // Products of bfloat16 are exact, and each is added in float32, rounded to nearest, k rising; a
    // GPU's order and rounding NVIDIA does not document.
    static void multiply(const Pending& pending, bool is_known, Sums& sums) {
        const auto number = [&](uint32_t row, uint32_t k) {
            const uint32_t bits = uint32_t{pending.factors[row * depth + k]} << 16;
            float value;
            memcpy(&value, &bits, sizeof value);
            return value;
        };
        const uint32_t columns = pending.product.columns;
        float b[depth][most_columns];
        for (uint32_t col = 0; col < columns; ++col) {
            for (uint32_t k = 0; k < depth; ++k) b[k][col] = number(rows + col, k);
        }
        for (uint32_t row = 0; row < rows; ++row) {
            for (uint32_t k = 0; k < depth; ++k) {
                const float a = number(row, k);
                for (uint32_t col = 0; col < columns; ++col) sums.of[row][col] += a * b[k][col];
            }
            if (!is_known) memset(sums.of[row], 0xff, columns * sizeof(float));
        }
    }

    bool used_ = false;
    Warp warps_[max_threads / 32];
    std::vector<Asked> asked_[max_threads / 128];
    std::unique_ptr<Place[]> places_;
    uint32_t fences_[max_threads] = {};
};
