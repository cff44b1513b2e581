// Asynchronous copies to shared memory: their data come to their place at the wait for them.
#pragma once

#include <stdint.h>
#include <string.h>

#include <vector>

struct Copy {
    void* to;
    uint32_t bytes, group;
    unsigned char data[16];
};

// Of one thread. Groups are numbered as they are committed.
struct Copies {
    std::vector<Copy> pending;
    uint32_t committed = 0;

    void begin(void* to, const void* data, uint32_t bytes) {
        Copy copy{to, bytes, committed, {}};
        memcpy(copy.data, data, bytes);
        pending.push_back(copy);
    }
    // Lets all groups but the newest `most_pending` land, and tells `landed` of each place.
    template <class F>
    void wait(uint32_t most_pending, F landed) {
        size_t kept = 0;
        for (const Copy& copy : pending) {
            if (copy.group + most_pending < committed) {
                memcpy(copy.to, copy.data, copy.bytes);
                landed(copy.to);
            } else {
                pending[kept++] = copy;
            }
        }
        pending.resize(kept);
    }
};
