// Tracer: from the path of a warp to what it executed.
#pragma once

#include <numeric>

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
    first_of_pc_.resize(access_of_pc_.size());
    std::iota(first_of_pc_.begin(), first_of_pc_.end(), 0);
    const uint64_t table = reinterpret_cast<uint64_t>(asked_.copies) - pen.code;
    for (uint64_t i = 0; i < asked_.copy_count; ++i) {
        const TraceCopy& pair = asked_.copies[i];
        first_of_pc_[table + pair.copy] = static_cast<uint32_t>(table + pair.first);
    }

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
    load_pen();
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
    current_ = -1;
    load_pen();
    // Each block has shared memory of its own.
    for (size_t i = 0; i < accesses_.size(); ++i) {
        TraceAccess& access = accesses_[i];
        if (access.space != TraceSpace::shared) continue;
        size_t words = words_for(access.end - (access.begin & ~uint64_t{63}));
        access.unique_bytes += count_bits(touched_[i].data(), words);
        memset(touched_[i].data(), 0, words * sizeof(uint64_t));
    }
}

inline TraceBlock& Tracer::block_at(uint32_t pc) {
    int32_t& index = block_of_pc_[pc];
    if (index < 0) {
        index = static_cast<int32_t>(block_counts_.size());
        block_counts_.push_back({pc, no_key, 0, 0, 0, 0, 0});
    }
    return block_counts_[static_cast<size_t>(index)];
}

inline void Tracer::flush(uint32_t warp) {
    Path& path = paths_[warp];
    if (path.is_empty()) return;
    Worker& worker = *worker_;
    const auto earlier = worker.uninterruptible;
    worker.uninterruptible = 1;
    save_pen();
    Lane* lanes = &lanes_[warp * 32];
    Streams streams;
    for (uint32_t i = 0; i < 32; ++i) streams.set(i, lanes[i].addresses.data());
    for (const Node* at = follow(path.nodes()); at->key != no_key; at = follow(at + 1)) {
        const Word key = at->key;
        const uint32_t mask = at->lanes, code = code_of(key);
        if (!mask) continue;  // the kernel ended before its lane was in it
        if (is_access(key)) {
            Group group;
            group.bytes = bytes_of(code);
            streams.give(group, mask);
            request(first_of_pc_[pc_of(key)], kind_of(code), warp, group);
        } else if (code == fence_code) {
            for (uint32_t rest = mask; rest; rest &= rest - 1) {
                lanes[__builtin_ctz(rest)].fenced = true;
            }
            has_fences_ = true;
        } else {
            TraceBlock& block = block_at(pc_of(key));
            ++block.executions;
            block.lanes += static_cast<uint64_t>(__builtin_popcount(mask));
            note_successors(block, mask, at);
            if (code == block_code) continue;
            ++warp_primitives_;
            for (uint32_t rest = mask; rest; rest &= rest - 1) {
                auto lane = static_cast<uint32_t>(__builtin_ctz(rest));
                lanes[lane].passed = warp_primitives_;
                ordering_->pass(warp, lane, mask, warp_primitives_);
            }
        }
    }
    for (uint32_t i = 0; i < 32; ++i) {
        Lane& lane = lanes[i];
        if (!lane.addresses.empty()) spare_addresses_.give_back(std::move(lane.addresses));
        lane.addresses.clear();
        lane.next = nullptr;
        lane.at = 0;
        lane.cut = false;
    }
    path.set_size(0);
    spare_paths_.give_back(std::move(path));
    path = Path();
    load_pen();
    worker.uninterruptible = earlier;
}

// Where the lanes that executed a block went from it: to the next of theirs that is a block.
inline void Tracer::note_successors(TraceBlock& block, uint32_t mask, const Node* at) {
    Word first = jump_key;
    bool diverged = false;
    for (uint32_t rest = mask; rest && !diverged;) {
        at = follow(at + 1);
        const bool is_end = at->key == no_key;
        const uint32_t here = is_end ? rest : at->lanes & rest;
        if (!here || (!is_end && code_of(at->key) >= read_code)) continue;
        if (first == jump_key) first = at->key;
        rest &= ~here;
        // Lanes of two groups may go to one warp primitive.
        diverged = at->key != first || (rest && code_of(at->key) == block_code);
    }
    block.divergent += diverged;
    if (block.first_successor == no_key) block.first_successor = first;
    if (diverged || block.first_successor != first) block.is_branch = 1;
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
