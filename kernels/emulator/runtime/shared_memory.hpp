// The shared memory of a block: the thread_local memory of the kernel's library in this OS thread.
#pragma once

#include <link.h>

#include "failures.hpp"

// Undefined at the start of a block on a GPU; here NaN or -1, so that reading it is noticed.
constexpr int shared_fill = 0xFF;
constexpr int canary_fill = 0xA5;

inline SharedMemory find_shared_memory(const emulator::Module* module) {
    SharedMemory found;
    // The first use allocates this OS thread's copy, here and not in the middle of a kernel.
    if (module->dynamic_shared) found.dynamic = module->dynamic_shared();
    if (module->static_shared) module->static_shared();
    struct Search {
        uintptr_t inside;
        SharedMemory* found;
    } search{reinterpret_cast<uintptr_t>(module), &found};
    dl_iterate_phdr(
        [](dl_phdr_info* library, size_t, void* data) {
            auto* search = static_cast<Search*>(data);
            bool ours = false;
            size_t bytes = 0;
            for (int i = 0; i < library->dlpi_phnum; ++i) {
                const auto& part = library->dlpi_phdr[i];
                uintptr_t begin = library->dlpi_addr + part.p_vaddr;
                if (part.p_type == PT_LOAD && search->inside >= begin &&
                    search->inside < begin + part.p_memsz) {
                    ours = true;
                }
                if (part.p_type == PT_TLS) bytes = part.p_memsz;
            }
            if (!ours || !library->dlpi_tls_data) return 0;
            search->found->begin = static_cast<char*>(library->dlpi_tls_data);
            search->found->end = search->found->begin + bytes;
            return 1;
        },
        &search);
    return found;
}

inline SharedMemory& shared_memory_of(Worker& worker, const emulator::Module* module) {
    auto known = worker.shared_memory.find(module);
    if (known == worker.shared_memory.end()) {
        known = worker.shared_memory.emplace(module, find_shared_memory(module)).first;
    }
    return known->second;
}

inline void fill(char* begin, char* end) {
    if (begin < end) memset(begin, shared_fill, static_cast<size_t>(end - begin));
}

inline void clear_shared_memory(const SharedMemory& memory, uint32_t shared_bytes) {
    if (!memory.dynamic) {
        fill(memory.begin, memory.end);
        return;
    }
    fill(memory.begin, memory.dynamic);
    fill(memory.dynamic, memory.dynamic + shared_bytes);
    memset(memory.dynamic + shared_bytes, canary_fill, dynamic_canary_bytes);
    fill(memory.dynamic + dynamic_shared_bytes + dynamic_canary_bytes, memory.end);
}

// False, and the launch failed, where a thread wrote behind the bytes that the launch gave.
inline bool check_shared_memory(Worker& worker, const SharedMemory& memory, uint32_t shared_bytes) {
    if (!memory.dynamic) return true;
    const char* behind = memory.dynamic + shared_bytes;
    for (size_t i = 0; i < dynamic_canary_bytes; ++i) {
        if (static_cast<unsigned char>(behind[i]) == canary_fill) continue;
        fail(worker, Ending::illegal_address, false,
             "wrote to byte %zu of its dynamic shared memory; the launch gave it %u bytes "
             "(shared_mem)",
             shared_bytes + i, shared_bytes);
        return false;
    }
    return true;
}
