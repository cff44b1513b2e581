// The runtime that every compiled kernel file shares: its doors to kernels and to Python.
#include "workers.hpp"
extern "C" {
__thread Index3 threadIdx EMULATOR_TLS;
__thread Index3 blockIdx EMULATOR_TLS;
__thread Index3 blockDim EMULATOR_TLS;
__thread Index3 gridDim EMULATOR_TLS;
}
__thread Worker* this_worker __attribute__((tls_model("initial-exec")));

using emulator::Barrier;
using emulator::WarpOp;

// ---- for kernels ----

extern "C" int emulator_barrier(Barrier kind, int predicate, const char* file, int line) {
    Worker& worker = *this_worker;
    Thread& thread = worker.threads[worker.current];
    thread.state = State::barrier;
    thread.file = file;
    thread.line = line;
    if (worker.at_barrier++ == 0) {
        worker.barrier_file = file;
        worker.barrier_line = line;
    } else if (!at_barrier_line(worker, thread)) {
        worker.lines_differ = true;
    }
    worker.predicates += predicate != 0;
    EMULATOR_TRACE(stop(worker, worker.current, false));
    wait_here(worker);
    EMULATOR_TRACE_BLOCK();
    thread.state = State::running;
    int result = worker.barrier_result;
    if (kind == Barrier::all) return result == static_cast<int>(worker.thread_count);
    if (kind == Barrier::any) return result != 0;
    return result;
}

extern "C" uint64_t emulator_warp(WarpOp op, const char* name, uint32_t mask, uint64_t value,
                                  int source_lane, const char* file, int line) {
    Worker& worker = *this_worker;
    Thread& thread = worker.threads[worker.current];
    if (!(mask >> thread.lane & 1)) {
        fail(worker, Ending::divergence, true, "%s at %s:%d: its mask 0x%08x lacks the own lane %d",
             name, base_name(file), line, mask, thread.lane);
        abandon(worker);
    }
    thread.state = State::warp;
    thread.file = file;
    thread.line = line;
    thread.mask = mask;
    thread.op = op;
    thread.name = name;
    thread.source_lane = source_lane;
    thread.value = value;
    worker.warps[thread.warp].waiting |= 1u << thread.lane;
    EMULATOR_TRACE(wait_in_warp(EMULATOR_CALLER));
    release_warp(worker, thread.warp, mask);
    wait_here(worker);
    return thread.result;
}

extern "C" void emulator_copy_begin(void* to, const void* data, uint32_t bytes) {
    Worker& worker = *this_worker;
    worker.uninterruptible = 1;  // it may allocate
    worker.copies[worker.current].begin(to, data, bytes);
    worker.uninterruptible = 0;
}

extern "C" void emulator_copy_commit() {
    ++this_worker->copies[this_worker->current].committed;
}

extern "C" void emulator_copy_wait(uint32_t most_pending) {
    Worker& worker = *this_worker;
    const auto thread = static_cast<uint32_t>(worker.current);
    worker.uninterruptible = 1;  // it may allocate
    worker.copies[thread].wait(
        most_pending, [&](const void* to) { worker.products.landed(*worker.shared, to, thread); });
    worker.uninterruptible = 0;
}

extern "C" uint64_t emulator_matrix_descriptor(const void* start, int leading_bytes,
                                               int stride_bytes, const char* file, int line) {
    Worker& worker = *this_worker;
    char why[256];
    uint64_t descriptor;
    if (describe(*worker.shared, start, leading_bytes, stride_bytes, descriptor, why)) {
        return descriptor;
    }
    fail(worker, Ending::trap, true, "matrix_descriptor at %s:%d: %s", base_name(file), line, why);
    abandon(worker);
}

extern "C" const void* emulator_matrix_row(uint64_t descriptor, uint32_t row, uint32_t vector) {
    return Matrix(descriptor).row(*this_worker->shared, row, vector);
}

extern "C" void emulator_async_proxy_fence() {
    this_worker->products.async_proxy_fence(this_worker->current);
}

extern "C" void emulator_warpgroup_fence() {
    this_worker->products.warpgroup_fence(this_worker->current);
}

extern "C" uint32_t emulator_lane() {
    return this_worker->threads[this_worker->current].lane;
}

extern "C" uint32_t emulator_warp_index() {
    return this_worker->threads[this_worker->current].warp;
}

extern "C" uint32_t emulator_active_mask() {
    const Warp& warp = this_worker->warps[this_worker->threads[this_worker->current].warp];
    return warp.existing & ~warp.returned;
}

extern "C" int emulator_print(const char* format, ...) {
    Worker& worker = *this_worker;
    char text[4096];
    va_list values;
    va_start(values, format);
    worker.uninterruptible = 1;  // neither printf nor the lock may be left half-way
    int length = vsnprintf(text, sizeof text, format, values);
    va_end(values);
    {
        std::lock_guard<std::mutex> lock(worker.launch->mutex);
        if (worker.launch->printed.size() < (1 << 20)) worker.launch->printed += text;
    }
    worker.uninterruptible = 0;
    return length;
}

extern "C" void emulator_trap(const char* what, const char* file, int line) {
    Worker& worker = *this_worker;
    fail(worker, Ending::trap, true, "%s at %s:%d", what, base_name(file), line);
    abandon(worker);
}

// ---- for Python ----

// `started` is set before Python can be interrupted, so that a Ctrl-C loses no running launch.
extern "C" int emulator_start(const Request* request, Launch** started) {
    install_handlers();
    auto* launch = new Launch;
    launch->request = *request;
    launch->block_count = uint64_t{request->grid.x} * request->grid.y * request->grid.z;
    uint64_t workers = launch->block_count < static_cast<uint64_t>(request->workers)
                           ? launch->block_count
                           : static_cast<uint64_t>(request->workers);
    if (Workers::get().start(*launch, static_cast<int>(workers))) {
        *started = launch;
        return 1;
    }
    delete launch;
    return 0;
}

// Whether the launch has ended, after at most `seconds`.
extern "C" int emulator_wait(Launch* launch, double seconds) {
    std::unique_lock<std::mutex> lock(launch->mutex);
    auto ended = [&] { return launch->running.empty(); };
    auto span = std::chrono::duration<double>(seconds);
    if (launch->finished.wait_for(lock, span, ended)) return 1;
    if (launch->stop) {
        for (Worker* worker : launch->running) pthread_kill(worker->os_thread, stop_signal());
    }
    return 0;
}

// Asks for an end; wait() then sends the signals, until none runs.
extern "C" void emulator_stop(Launch* launch, Ending reason) {
    int running = 0;
    launch->stop.compare_exchange_strong(running, static_cast<int>(reason));
}

extern "C" void emulator_result(Launch* launch, Failure* failure, const char** printed,
                                uint64_t* printed_bytes) {
    *failure = launch->failure;
    *printed = launch->printed.data();
    *printed_bytes = launch->printed.size();
}

// Ends the launch if it still runs. Afterwards no kernel touches its arrays any more.
extern "C" void emulator_finish(Launch* launch) {
    if (!launch) return;
    while (!emulator_wait(launch, 0.0)) {
        emulator_stop(launch, Ending::cancelled);
        if (emulator_wait(launch, 0.01)) break;
    }
    delete launch;
}

#ifdef EMULATOR_TRACED

// ---- for Python, around one launch, and for the hooks in a traced module ----

extern "C" {

void emulator_trace_begin(const TraceRequest* request) {
    tracer = new Tracer(*request);
}
void emulator_trace_result(TraceResult* result) {
    *result = tracer->result();
}
void emulator_trace_end() {
    delete tracer;
    tracer = nullptr;
    restore_handlers();
}
void traced_event(Word key, uint64_t address) {
    if (tracer) tracer->note(key, address);
}
}

#endif
