// Tracer: from the events of 32 lanes to executions of the warp.
//
// Lanes that are at the same place in the code execute it together, and the lowest place goes
// first. As the traced build keeps the code in the source's order, that brings lanes which went
// different ways together again where the ways meet, as a GPU does it for structured code.
#pragma once

#include "tracer.hpp"

inline Tracer::Tracer(const TraceRequest& request)
    : pen(*request.pen),
      asked_(request),
      arrays_(request.arrays, request.arrays + request.array_count),
      shared_(request.shared, request.shared + request.shared_count) {
    if (request.blocks) blocks_.assign(request.blocks, request.blocks + request.block_count);
    for (const TraceArray& array : arrays_) {
        cells_.emplace_back(array.has_cells ? (array.end - (array.begin & ~uint64_t{3}) + 3) / 4
                                            : 0);
    }
}

inline void Tracer::begin_launch(Worker& worker, const SharedMemory& memory) {
    worker_ = &worker;
    thread_count_ = worker.thread_count;
    auto code = reinterpret_cast<uint64_t>(worker.run);
    struct Search {
        uint64_t inside, begin, end;
    } search{code, 0, 0};
    dl_iterate_phdr(
        [](dl_phdr_info* library, size_t, void* data) {
            auto* search = static_cast<Search*>(data);
            uint64_t end = 0;
            for (int i = 0; i < library->dlpi_phnum; ++i) {
                const auto& part = library->dlpi_phdr[i];
                if (part.p_type != PT_LOAD) continue;
                end = std::max(end, uint64_t{library->dlpi_addr} + part.p_vaddr + part.p_memsz);
            }
            if (search->inside < library->dlpi_addr || search->inside >= end) return 0;
            search->begin = library->dlpi_addr;
            search->end = end;
            return 1;
        },
        &search);
    pen.code = search.begin;
    code_end_ = search.end;
    access_of_pc_.assign(std::min<uint64_t>(code_end_ - pen.code, 0xFFFFFF) + 1, -1);
    block_of_pc_ = access_of_pc_;

    shared_begin_ = reinterpret_cast<uint64_t>(memory.begin);
    shared_end_ = reinterpret_cast<uint64_t>(memory.end);
    dynamic_begin_ = reinterpret_cast<uint64_t>(memory.dynamic);
    dynamic_end_ = dynamic_begin_ + worker.launch->request.shared_bytes;
    shared_cells_.reset(new Cells((shared_end_ - shared_begin_) / 4 + 1));
    shared_initialised_.assign(words_for(shared_end_ - shared_begin_) + 1, 0);

    // What a kernel reads to know who it is lies in the runtime, and is no memory on a GPU.
    uint64_t own[] = {reinterpret_cast<uint64_t>(&threadIdx), reinterpret_cast<uint64_t>(&blockIdx),
                      reinterpret_cast<uint64_t>(&blockDim), reinterpret_cast<uint64_t>(&gridDim)};
    own_begin_ = *std::min_element(own, own + 4);
    own_end_ = *std::max_element(own, own + 4) + sizeof threadIdx;
}

inline bool Tracer::begin_block(Worker& worker, uint64_t block) {
    on = blocks_.empty() || std::binary_search(blocks_.begin(), blocks_.end(), block);
    current_ = -1;
    pen.next = pen.end = nullptr;
    if (!on) return false;
    ++result_.blocks_traced;
    block_ = block;
    ordering_->begin_block();
    epochs_.emplace_back(ordering_->epoch, block);
    for (uint32_t t = 0; t < thread_count_; ++t) {
        lanes_[t].passed = warp_primitives_;
        lanes_[t].fenced = false;
    }
    seen_blocks_.clear();
    for (uint32_t w = 0; w < worker.warp_count; ++w) stopped_[w] = forever_[w] = 0;
    for (const TraceShared& array : shared_) {
        uint64_t words = words_for(array.offset + array.bytes);
        for (uint64_t word = array.offset / 64; word < words; ++word) shared_initialised_[word] = 0;
    }
    if (dynamic_end_ > dynamic_begin_) {
        uint64_t first = (dynamic_begin_ - shared_begin_) / 64;
        uint64_t words = words_for(dynamic_end_ - shared_begin_);
        for (uint64_t word = first; word < words; ++word) shared_initialised_[word] = 0;
    }
    return true;
}

inline void Tracer::end_block() {
    if (!on) return;
    on = false;
    pen.next = pen.end = nullptr;
    // Each block has shared memory of its own.
    for (size_t i = 0; i < accesses_.size(); ++i) {
        TraceAccess& access = accesses_[i];
        if (access.space != TraceSpace::shared) continue;
        size_t words = words_for(access.end - (access.begin & ~uint64_t{63}));
        access.unique_bytes += count_bits(touched_[i].data(), words);
        memset(touched_[i].data(), 0, words * sizeof(uint64_t));
    }
}

// ---- which thread runs ----

inline void Tracer::save_pen() {
    if (current_ < 0) return;
    lanes_[current_].next = pen.next;
    lanes_[current_].calls = pen.calls;
}

inline void Tracer::switch_to(Worker&, int thread) {
    if (!on) return;
    save_pen();
    current_ = thread;
    pen.next = lanes_[thread].next;
    pen.end = lanes_[thread].end;
    pen.set_calls(lanes_[thread].calls);
}

inline void Tracer::begin_thread(Worker& worker, int thread) {
    if (!on) return;
    pen.set_calls(0);
    lanes_[thread].stack = worker.fibers[worker.threads[thread].fiber].stack;
}

inline void Tracer::stop(Worker& worker, int thread, bool forever) {
    if (!on) return;
    uint32_t warp = static_cast<uint32_t>(thread) / 32, bit = 1u << (thread % 32);
    stopped_[warp] |= bit;
    if (forever) forever_[warp] |= bit;
    if (stopped_[warp] == worker.warps[warp].existing) flush(warp);
}

inline void Tracer::release_barrier(Worker& worker) {
    if (!on) return;
    ++ordering_->epoch;
    for (uint32_t w = 0; w < worker.warp_count; ++w) stopped_[w] = forever_[w];
}

inline void Tracer::release_warp(Worker&, uint32_t warp, uint32_t group) {
    if (!on) return;
    save_pen();
    ++warp_primitives_;
    for (uint32_t rest = group; rest; rest &= rest - 1) {
        int thread = static_cast<int>(warp * 32) + __builtin_ctz(rest);
        uint64_t which = uint64_t{group} << 32 | warp_primitives_;
        append(thread, lanes_[thread].warp_key, which);
    }
    if (current_ >= 0) {
        pen.next = lanes_[current_].next;
        pen.end = lanes_[current_].end;
    }
}

inline void Tracer::append(int thread, Word key, uint64_t address) {
    int before = current_;
    Pen kept = pen;
    current_ = thread;
    pen.next = lanes_[thread].next;
    pen.end = lanes_[thread].end;
    Word* place = pen.next >= pen.end ? room() : pen.next;
    if (place) pen.next = put(place, key, address);
    lanes_[thread].next = pen.next;
    current_ = before;
    pen = kept;
}

// The event's place where the pen's buffer is full, or null where nothing is to be kept.
inline Word* Tracer::room() {
    if (!on || current_ < 0) return nullptr;
    Lane& lane = lanes_[current_];
    if (lane.cut) return nullptr;
    Worker& worker = *worker_;
    const auto earlier = worker.uninterruptible;
    worker.uninterruptible = 1;  // malloc must not be left half-way
    Word* place = nullptr;
    size_t capacity = 0;
    if (!lane.begin) {
        Buffers::Buffer buffer = buffers_.take();
        lane.begin = place = buffer.begin;
        capacity = buffer.capacity;
        lane.cut = !place;
    } else {
        size_t used = static_cast<size_t>(pen.next - lane.begin);
        capacity = 2 * static_cast<size_t>(lane.end - lane.begin + longest_event + 1);
        auto* larger = used < asked_.most_words
                           ? static_cast<Word*>(realloc(lane.begin, capacity * sizeof(Word)))
                           : nullptr;
        if (larger) {
            lane.begin = larger;
            place = larger + used;
        } else {
            lane.cut = true;
            ++result_.cut;
        }
    }
    if (place) {
        lane.end = lane.begin + capacity - longest_event - 1;  // and one for what ends them
        pen.next = place;
        pen.end = lane.end;
    }
    worker.uninterruptible = earlier;
    return place;
}

// ---- merging ----

inline TraceBlock& Tracer::block_at(uint32_t pc) {
    int32_t& index = block_of_pc_[pc];
    if (index < 0) {
        index = static_cast<int32_t>(block_counts_.size());
        block_counts_.push_back({pc, no_key, 0, 0, 0, 0, 0});
    }
    return block_counts_[static_cast<size_t>(index)];
}

inline void Tracer::flush(uint32_t warp) {
    save_pen();
    Worker& worker = *worker_;
    const auto earlier = worker.uninterruptible;
    worker.uninterruptible = 1;
    Lane* lanes = &lanes_[warp * 32];
    constexpr Word parked = no_key - 1;
    Word nothing = no_key;
    // Plain loops over all 32 lanes, active or not: the compiler makes vectors of them.
    alignas(64) Word keys[32];
    alignas(64) Word* heads[32];
    for (uint32_t i = 0; i < 32; ++i) {
        heads[i] = &nothing;
        if (worker.warps[warp].existing >> i & 1 && lanes[i].begin) {
            heads[i] = lanes[i].begin;
            *lanes[i].next = no_key;
        }
        keys[i] = *heads[i];
    }
    TraceBlock* last = nullptr;  // the block just executed, by the lanes of `last_mask`
    uint32_t last_mask = 0, waiting = 0;
    for (uint32_t step = 0;; ++step) {
        // 32 streams are more than the processor foresees by itself.
        if (step % 8 == 0) {
            for (uint32_t i = 0; i < 32; ++i) __builtin_prefetch(heads[i] + 64);
        }
        Word key = no_key;
        for (uint32_t i = 0; i < 32; ++i) key = keys[i] < key ? keys[i] : key;
        const uint32_t code = code_of(key);
        if (last && (code < read_code || key >= parked)) {
            note_successors(*last, last_mask, keys);
            last = nullptr;
        }
        if (key >= parked) break;
        uint32_t mask = 0;
        for (uint32_t i = 0; i < 32; ++i) mask |= static_cast<uint32_t>(keys[i] == key) << i;

        if (code == sync_code) {
            // Executed by all its lanes at once, as soon as the last of them is there.
            const auto first = static_cast<uint32_t>(__builtin_ctz(mask));
            const uint64_t which = address_at(heads[first]);
            if (!all_there(which, heads)) {
                keys[first] = parked;
                waiting |= 1u << first;
                continue;
            }
            mask = static_cast<uint32_t>(which >> 32);
            waiting &= ~mask;
            for (uint32_t rest = mask; rest; rest &= rest - 1) {
                auto lane = static_cast<uint32_t>(__builtin_ctz(rest));
                lanes[lane].passed = static_cast<uint32_t>(which);
                ordering_->pass(warp, lane, mask, lanes[lane].passed);
            }
        }
        if (code < read_code) {
            last = &block_at(pc_of(key));
            last_mask = mask;
            ++last->executions;
            last->lanes += static_cast<uint64_t>(__builtin_popcount(mask));
        } else if (code == fence_code) {
            for (uint32_t rest = mask; rest; rest &= rest - 1) {
                lanes[__builtin_ctz(rest)].fenced = true;
            }
            has_fences_ = true;
        } else {
            Group group;
            group.bytes = bytes_of(code);
            for (uint32_t rest = mask; rest; rest &= rest - 1) {
                auto lane = static_cast<uint32_t>(__builtin_ctz(rest));
                group.add(lane, address_at(heads[lane]));
            }
            request(pc_of(key), kind_of(code), warp, group);
        }
        const size_t length = is_short(key) ? 1 : longest_event;
        for (uint32_t i = 0; i < 32; ++i) heads[i] += mask >> i & 1 ? length : 0;
        if (!waiting) {
            for (uint32_t i = 0; i < 32; ++i) keys[i] = *heads[i];
        } else {
            for (uint32_t rest = mask; rest; rest &= rest - 1) {
                keys[__builtin_ctz(rest)] = *heads[__builtin_ctz(rest)];
            }
        }
    }
    for (uint32_t i = 0; i < 32; ++i) {
        Lane& lane = lanes[i];
        if (lane.begin) {
            buffers_.give_back(
                {lane.begin, static_cast<size_t>(lane.end - lane.begin) + longest_event + 1});
        }
        lane.begin = lane.next = lane.end = nullptr;
        lane.cut = false;
    }
    if (current_ >= 0 && static_cast<uint32_t>(current_) / 32 == warp) {
        pen.next = pen.end = nullptr;
    }
    worker.uninterruptible = earlier;
}

// Whether all lanes of a warp primitive, which is known by its group and number, are at it.
inline bool Tracer::all_there(uint64_t which, Word* const* heads) {
    for (auto rest = static_cast<uint32_t>(which >> 32); rest; rest &= rest - 1) {
        const Word* head = heads[__builtin_ctz(rest)];
        if (*head == no_key || code_of(*head) != sync_code || address_at(head) != which)
            return false;
    }
    return true;
}

// Where the lanes that executed a block went from it.
inline void Tracer::note_successors(TraceBlock& block, uint32_t mask, const Word* keys) {
    const Word next = keys[__builtin_ctz(mask)];
    uint32_t same = 0;
    for (uint32_t i = 0; i < 32; ++i) same |= static_cast<uint32_t>(keys[i] == next) << i;
    const bool diverged = (same & mask) != mask;
    block.divergent += diverged;
    if (block.first_successor == no_key) block.first_successor = next;
    if (diverged || block.first_successor != next) block.is_branch = 1;
}

// After a block that ended early: what its threads did until then.
inline void Tracer::flush_all() {
    if (!on) return;
    save_pen();
    current_ = -1;
    for (uint32_t w = 0; w < worker_->warp_count; ++w) flush(w);
    end_block();
}

inline const TraceResult& Tracer::result() {
    uses_.assign(arrays_.size(), {});
    for (size_t a = 0; a < arrays_.size(); ++a) {
        size_t count = words_for(arrays_[a].end - (arrays_[a].begin & ~uint64_t{63}));
        std::vector<uint64_t> read(count), written(count);
        for (size_t i = 0; i < accesses_.size(); ++i) {
            const TraceAccess& access = accesses_[i];
            if (access.space != TraceSpace::global || access.array != static_cast<int32_t>(a))
                continue;
            const uint64_t* bits = touched_[i].data();
            for (size_t word = 0; word < count; ++word) {
                if (access.operation != TraceKind::write) read[word] |= bits[word];
                if (access.operation != TraceKind::read) written[word] |= bits[word];
            }
            accesses_[i].unique_bytes = count_bits(bits, count);
        }
        uses_[a] = {count_bits(read.data(), count), count_bits(written.data(), count),
                    count_sectors(read.data(), count), count_sectors(written.data(), count)};
    }
    result_.accesses = accesses_.data();
    result_.blocks = block_counts_.data();
    result_.findings = findings_.data();
    result_.uses = uses_.data();
    result_.access_count = accesses_.size();
    result_.block_count = block_counts_.size();
    result_.finding_count = findings_.size();
    return result_;
}
