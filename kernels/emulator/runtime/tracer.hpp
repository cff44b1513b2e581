// Puts what the lanes of a warp did together to what the warp did, counts it, and judges it.
#pragma once

#include <memory>
#include <unordered_map>
#include <unordered_set>

#include "trace_bits.hpp"
#include "trace_counts.hpp"
#include "trace_path.hpp"
#include "trace_races.hpp"
#include "worker.hpp"

class Tracer {
  public:
    Pen& pen;         // the module's
    bool on = false;  // a traced block runs

    void begin_launch(Worker& worker, const SharedMemory& memory);
    bool begin_block(Worker& worker, uint64_t block);
    void end_block();
    void switch_to(Worker& worker, int thread);
    void begin_thread(Worker& worker, int thread);
    void stop(Worker& worker, int thread, bool forever);
    void release_barrier(Worker& worker);
    void release_warp(Worker& worker, uint32_t warp, uint32_t group);
    void flush_all();
    void note(Word key, uint64_t address);
    // Of a warp, `times` 16x8 sums.
    void multiply(emulator::WarpOp op, uint32_t times = 1) {
        const bool is_bf16 = op == emulator::WarpOp::mma_bf16;
        if (on)
            (is_bf16 ? result_.bf16_flops : result_.tf32_flops) += times * (is_bf16 ? 4096 : 2048);
    }

    void wait_in_warp(uint64_t pc) {
        if (on) lanes_[current_].warp_key = pen.key(pc, sync_code);
    }

    explicit Tracer(const TraceRequest& request);
    const TraceResult& result();

  private:
    static constexpr int32_t none = -1, foreign = -2;
    static constexpr uint32_t no_place = ~0u;

    // Events.
    void flush(uint32_t warp);
    static void note_successors(TraceBlock& block, uint32_t mask, const Node* at);
    uint32_t place(uint32_t warp, uint32_t at, Word key);
    uint32_t last_of(uint32_t warp, uint32_t group);
    bool make_room(Lane& lane);
    void save_pen();
    void load_pen();
    TraceBlock& block_at(uint32_t pc);
    void request(uint32_t pc, TraceKind kind, uint32_t warp, const Group& group);
    void split(uint32_t pc, TraceKind kind, uint32_t warp, const Group& group);
    void execute(TraceAccess& access, uint32_t warp, const Group& group);
    uint64_t local_sectors(uint32_t warp, const Group& group) const;
    void judge(TraceAccess& access, uint32_t warp, const Group& group, const Distinct& distinct);
    TraceAccess& access_at(uint32_t pc, TraceKind kind, uint32_t bytes, TraceSpace space,
                           int32_t array, uint64_t begin, uint64_t end);

    // Where an address is: space and array; `inside` false where it misses the array it is near.
    struct Place {
        TraceSpace space;
        int32_t array;
        uint64_t begin, end;
        bool inside;
    };
    Place find(uint64_t address, uint32_t bytes, int thread) const;
    Place find_shared(uint64_t address, uint32_t bytes) const;
    void found(TraceFault kind, uint32_t pc, TraceKind operation, uint32_t bytes, int32_t array,
               uint64_t begin, uint64_t address, uint32_t thread, const Party* other = nullptr);
    uint64_t block_of(uint32_t epoch) const;
    void meet_blocks(uint32_t warp, const Group& group);

    // What was asked for.
    TraceRequest asked_;
    std::vector<TraceArray> arrays_;
    std::vector<TraceShared> shared_;
    std::vector<uint64_t> blocks_;

    // Where things are.
    uint64_t code_end_ = 0, shared_begin_ = 0, shared_end_ = 0;
    uint64_t dynamic_begin_ = 0, dynamic_end_ = 0;
    uint64_t own_begin_ = 0, own_end_ = 0;

    // The block.
    uint64_t block_ = 0;
    uint32_t thread_count_ = 0;
    int current_ = -1;
    uint32_t warp_primitives_ = 0;
    std::unique_ptr<Lane[]> lanes_{new Lane[max_threads]};
    uint32_t stopped_[max_threads / 32] = {}, forever_[max_threads / 32] = {};
    Path paths_[max_threads / 32];
    Spare<Path> spare_paths_;
    Spare<std::vector<uint64_t>> spare_addresses_;
    Worker* worker_ = nullptr;

    // Shadows: of each writeable array, and of shared memory.
    std::vector<Cells> cells_;
    std::unique_ptr<Cells> shared_cells_;
    std::vector<uint64_t> shared_initialised_;
    std::unique_ptr<Ordering> ordering_{new Ordering};
    std::vector<std::pair<uint32_t, uint64_t>> epochs_;  // first epoch of each block

    // Blocks that did an atomic operation behind a fence, by its address; and of those the ones
    // that the running block has met by an atomic operation of its own: they are before it.
    std::unordered_map<uint64_t, std::unordered_set<uint64_t>> told_blocks_;
    std::unordered_set<uint64_t> seen_blocks_;
    bool has_fences_ = false;

    // What came out.
    std::vector<int32_t> access_of_pc_, block_of_pc_;
    std::vector<uint32_t> first_of_pc_;  // of the copies of one access of the source
    std::vector<TraceAccess> accesses_;
    std::vector<Zeros<uint64_t>> touched_;  // of each access
    std::vector<TraceBlock> block_counts_;
    std::vector<TraceFinding> findings_;
    std::unordered_map<uint64_t, size_t> finding_at_;
    std::vector<TraceUse> uses_;
    TraceResult result_{};
};

#include "trace_notes.hpp"
#include "trace_merge.hpp"
#include "trace_judge.hpp"
