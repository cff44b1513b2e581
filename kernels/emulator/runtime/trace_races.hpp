// Who touched each word of writeable memory last, and whether two threads' accesses collide.
#pragma once

#include "trace_abi.hpp"
#include "trace_bits.hpp"

// One thread's access to one word. `epoch` counts barriers over all blocks, so that it tells the
// block as well; `passed` numbers the last warp primitive the thread had been through.
struct Party {
    uint32_t epoch, passed, pc;
    uint16_t thread;
    uint8_t bytes;  // a bit each
    TraceKind operation;
};
static_assert(sizeof(Party) == 16);

// Of each word of some memory: its last writer, and two of those that have read it since.
struct Cells {
    struct Readers {
        Party party[2];
    };
    explicit Cells(size_t words) : writer(words), readers(words) {}

    Zeros<Party> writer;
    Zeros<Readers> readers;
    bool has_readers = false;  // else they take no memory: most outputs are never read
};

class Ordering {
  public:
    uint32_t epoch = 0, block_began = 0;

    void begin_block() { block_began = ++epoch; }

    // Lane `lane` of a warp goes through primitive `number` together with those of `group`.
    void pass(uint32_t warp, uint32_t lane, uint32_t group, uint32_t number) {
        last_passed_ = epoch;
        uint32_t* met = met_[warp][lane];
        for (uint32_t other = 0; other < 32; ++other) {
            met[other] = group >> other & 1 ? number : met[other];
        }
    }

    bool collide(const Party& earlier, const Party& now, bool is_global) const {
        if (!earlier.epoch || !(earlier.bytes & now.bytes)) return false;
        if (earlier.operation == TraceKind::atomic && now.operation == TraceKind::atomic) {
            return false;
        }
        if (earlier.epoch < block_began) return is_global;  // nothing orders two blocks
        if (earlier.epoch != epoch || earlier.thread == now.thread) return false;
        if (earlier.thread / 32 != now.thread / 32) return true;
        return met_[now.thread / 32][now.thread % 32][earlier.thread % 32] <= earlier.passed;
    }

    // Whether one more read of a word, by any thread, changes nothing: it collides with no writer,
    // and since the last barrier two have read all of the word and no warp primitive was there.
    bool is_read_enough(const Cells& cells, size_t word, bool is_global) const {
        const uint32_t written = cells.writer[word].epoch;
        const bool is_ordered =
            written != epoch && (!is_global || !written || written >= block_began);
        if (!is_ordered || last_passed_ == epoch) return false;
        const Party* readers = cells.readers[word].party;
        return readers[0].epoch == epoch && readers[1].epoch == epoch &&
               (readers[0].bytes & readers[1].bytes) == 15;
    }

    // Enters an access; returns the earlier one that it collides with, or null. What is returned
    // is valid until the next call.
    const Party* enter(Cells& cells, size_t word, const Party& now, bool is_global) {
        const Party* collision = nullptr;
        auto check = [&](const Party& earlier) {
            if (collision || !collide(earlier, now, is_global)) return;
            collided_ = earlier;
            collision = &collided_;
        };
        Party& writer = cells.writer[word];
        check(writer);
        if (now.operation != TraceKind::read) {
            const bool is_same = writer.epoch == epoch && writer.thread == now.thread &&
                                 writer.operation == now.operation;
            const uint8_t earlier_bytes = is_same ? writer.bytes : 0;
            writer = now;
            writer.bytes |= earlier_bytes;
            if (!cells.has_readers) return collision;
            for (Party& reader : cells.readers[word].party) {
                check(reader);
                if (reader.epoch) reader.epoch = 0;
            }
            return collision;
        }
        cells.has_readers = true;
        auto& readers = cells.readers[word].party;
        // Two readers are kept: one of them at least is not the thread that writes later.
        for (Party& reader : readers) {
            bool is_here = reader.epoch >= block_began;
            bool is_past = is_here ? reader.epoch != epoch : !is_global || !reader.epoch;
            bool is_own = is_here && reader.thread == now.thread;
            if (!is_past && !is_own) continue;
            uint8_t earlier_bytes = is_past ? 0 : reader.bytes;
            reader = now;
            reader.bytes |= earlier_bytes;
            return collision;
        }
        for (Party& reader : readers) {
            if (!collide_as_write(reader, now, is_global)) {
                reader = now;
                break;
            }
        }
        return collision;
    }

  private:
    bool collide_as_write(const Party& reader, Party now, bool is_global) const {
        now.operation = TraceKind::write;
        return collide(reader, now, is_global);
    }

    Party collided_{};
    uint32_t last_passed_ = 0;  // the epoch of the last warp primitive
    uint32_t met_[32][32][32] = {};
};
