// h[l+1] = relu(h[l] w[l] + b[l]), the last without ReLU; d[L] of its softmax's loss, and
// d[l] = d[l+1] w[l]' where h[l] > 0
// x and dx (N,inputs), labels (N), outputs and deltas (N,PITCH), parameters: linear_stack.cuh
// A block takes IMAGES images through all layers and back. LANES lanes read a row of w, 16 bytes
// each; forward the block's rows add up to columns, backward the lanes add up a row.
// Against a product, bias, ReLU and loss a launch each: one launch, and what a layer hands to the
// next stays in shared memory. Every block reads all parameters from L2, and once more, backward,
// of which L1 may still have most: why a block has several images, though some multiprocessors then
// have none. Limits: what fits there.
#include "training/linear_stack.cuh"
#include "training/softmax.cuh"

constexpr int WARPS = THREADS / 32;
// Images whose sums the warps hand each other at a time.
constexpr int TOGETHER = IMAGES < 4 ? IMAGES : 4;
// Sums of a warp's lanes that are added up at a time, in as many shuffles; and loads on their way.
constexpr int AT_ONCE = 64 / sizeof(scalar), VALUES = IMAGES < AT_ONCE ? AT_ONCE : IMAGES;
constexpr int ROWS_AT_ONCE = VALUES / IMAGES;
static_assert(VALUES % IMAGES == 0 && IMAGES % TOGETHER == 0 && THREADS % 32 == 0, "whole parts");
static_assert(IMAGES <= WARPS, "a warp has one image's loss");

template <int LAYER>
struct Layer {
    static constexpr int INPUTS = size_of(LAYER), OUTPUTS = size_of(LAYER + 1);
    static constexpr int WIDTH = width_of(LAYER);
    static constexpr int VECTORS = OUTPUTS / WIDTH;  // of a row of w
    static constexpr int LANES = VECTORS > 16  ? 32
                                 : VECTORS > 8 ? 16
                                 : VECTORS > 4 ? 8
                                 : VECTORS > 2 ? 4
                                               : 2;
    static constexpr int RUNS = (VECTORS + LANES - 1) / LANES;  // vectors of a lane
    static constexpr int BATCH = THREADS / LANES * ROWS_AT_ONCE;
    static constexpr int STEPS = (INPUTS + BATCH - 1) / BATCH;  // to read all of w
    // Few steps are one piece of code, in which loads go ahead; of many, ptxas would hoist too
    // much.
    static constexpr int UNROLLED = STEPS > 4 ? 1 : STEPS;

    // A lane's first column of WIDTH.
    __device__ __forceinline__ static int column(int run) {
        return (run * LANES + threadIdx.x % LANES) * WIDTH;
    }
    __device__ __forceinline__ static int row(int step, int r) {
        return step * BATCH + threadIdx.x / LANES * ROWS_AT_ONCE + r;
    }
    __device__ __forceinline__ static bool is_row(int step, int r) {
        return (step + 1) * BATCH <= INPUTS || row(step, r) < INPUTS;
    }

    // What an image has for the rows that a lane reads at once; zeros where there is none.
    __device__ __forceinline__ static Vector<ROWS_AT_ONCE> load_rows(const scalar* in, int step) {
        Vector<ROWS_AT_ONCE> values = {};
        if (INPUTS % ROWS_AT_ONCE == 0) {
            if (is_row(step, 0)) {
                values = *reinterpret_cast<const Vector<ROWS_AT_ONCE>*>(in + row(step, 0));
            }
            return values;
        }
#pragma unroll
        for (int r = 0; r < ROWS_AT_ONCE; r++) {
            if (is_row(step, r)) values.of[r] = in[row(step, r)];
        }
        return values;
    }
};

// What a lane has of the rows of w that it reads at once.
template <class Of>
struct Rows {
    Vector<Of::WIDTH> of[ROWS_AT_ONCE][Of::RUNS];

    __device__ __forceinline__ void load(const scalar* __restrict__ w, int step) {
#pragma unroll
        for (int r = 0; r < ROWS_AT_ONCE; r++) {
#pragma unroll
            for (int run = 0; run < Of::RUNS; run++) {
                const int column = Of::column(run);
                const bool is_there = column < Of::OUTPUTS && Of::is_row(step, r);
                const scalar* from = w + Of::row(step, r) * Of::OUTPUTS + column;
                of[r][run] = is_there ? *reinterpret_cast<const Vector<Of::WIDTH>*>(from)
                                      : Vector<Of::WIDTH>{};
            }
        }
    }
};

// All rows of w, the next ones on their way while `use(rows, step)` works on some; BACKWARD from
// the last on, for what was read last is still in L1.
template <class Of, bool BACKWARD, class Use>
__device__ __forceinline__ void read_all(const scalar* __restrict__ w, Use use) {
    Rows<Of> rows, next;
    const auto step_at = [](int i) { return BACKWARD ? Of::STEPS - 1 - i : i; };
    rows.load(w, step_at(0));
#pragma unroll Of::UNROLLED
    for (int i = 0; i < Of::STEPS; i++) {
        if (i + 1 < Of::STEPS) next.load(w, step_at(i + 1));
        use(rows, step_at(i));
        rows = next;
    }
}

// An image's activations of all layers lie one behind the other, each begun at a multiple of 4; the
// images are 4 elements more apart, on other banks.
constexpr int INPUT_PITCH = (size_of(0) + 3) / 4 * 4;
constexpr int HELD_PITCH = INPUT_PITCH + PITCH + 4, HELD = HELD_PITCH * IMAGES;
__device__ __forceinline__ scalar* held(scalar* activations, int layer) {
    return activations + (layer ? INPUT_PITCH + outputs_at(layer - 1) : 0);
}

// All threads must come here; the inputs must be there behind a barrier.
template <int LAYER>
__device__ __forceinline__ void forward_layer(scalar* activations, scalar* of_warps,
                                              const scalar* __restrict__ parameters,
                                              scalar* __restrict__ outputs, int n0, int images) {
    using Of = Layer<LAYER>;
    const scalar* in = held(activations, LAYER);
    scalar sums[IMAGES][Of::RUNS][Of::WIDTH] = {};
    read_all<Of, false>(parameters + weights_at(LAYER), [&](const Rows<Of>& rows, int step) {
#pragma unroll
        for (int m = 0; m < IMAGES; m++) {
            const Vector<ROWS_AT_ONCE> values = Of::load_rows(in + m * HELD_PITCH, step);
#pragma unroll
            for (int i = 0; i < ROWS_AT_ONCE * Of::RUNS * Of::WIDTH; i++) {
                const int r = i / (Of::RUNS * Of::WIDTH), j = i % Of::WIDTH;
                const int run = i / Of::WIDTH % Of::RUNS;
                sums[m][run][j] += rows.of[r][run].of[j] * values.of[r];
            }
        }
    });

    // Over the rows of a warp by shuffles, over the warps by way of shared memory.
    scalar* out = held(activations, LAYER + 1);
    const int warp = threadIdx.x / 32;
#pragma unroll
    for (int m0 = 0; m0 < IMAGES; m0 += TOGETHER) {
#pragma unroll
        for (int m = 0; m < TOGETHER; m++) {
#pragma unroll
            for (int run = 0; run < Of::RUNS; run++) {
                Vector<Of::WIDTH> mine;
#pragma unroll
                for (int j = 0; j < Of::WIDTH; j++) {
                    mine.of[j] = sums[m0 + m][run][j];
#pragma unroll
                    for (int other = 16; other >= Of::LANES; other /= 2) {
                        mine.of[j] += __shfl_xor_sync(0xffffffffu, mine.of[j], other);
                    }
                }
                const int column = Of::column(run);
                const bool speaks = threadIdx.x % 32 < Of::LANES && column < Of::OUTPUTS;
                scalar* to = &of_warps[(m * WARPS + warp) * Of::OUTPUTS + column];
                if (speaks) *reinterpret_cast<Vector<Of::WIDTH>*>(to) = mine;
            }
        }
        __syncthreads();  // a thread adds what all warps stored
        for (int i = threadIdx.x; i < TOGETHER * Of::OUTPUTS; i += THREADS) {
            const int m = i / Of::OUTPUTS, column = i % Of::OUTPUTS;
            scalar sum = parameters[biases_at(LAYER) + column];
#pragma unroll
            for (int from = 0; from < WARPS; from++) {
                sum += of_warps[(m * WARPS + from) * Of::OUTPUTS + column];
            }
            if (LAYER < LAYERS - 1 && sum < scalar(0)) sum = 0;  // a NaN stays
            out[(m0 + m) * HELD_PITCH + column] = sum;
            if (m0 + m < images) {
                outputs[(n0 + m0 + m) * PITCH + outputs_at(LAYER) + column] = sum;
            }
        }
        __syncthreads();  // the next sums take their place; and the next layer reads the outputs
    }
    if constexpr (LAYER + 1 < LAYERS) {
        forward_layer<LAYER + 1>(activations, of_warps, parameters, outputs, n0, images);
    }
}

__device__ __forceinline__ void load_images(scalar* activations, const scalar* __restrict__ x,
                                            int n0, int images) {
    for (int i = threadIdx.x; i < IMAGES * size_of(0); i += THREADS) {
        const int m = i / size_of(0), k = i % size_of(0);
        activations[m * HELD_PITCH + k] = m < images ? x[n0 * size_of(0) + i] : scalar(0);
    }
    __syncthreads();  // the first layer reads what others loaded
}

// Each lane has VALUES sums' parts; in the end it has the whole of those from index
// lane * VALUES / LANES on, as many as are left, or of one that neighbours have as well.
template <int LANES>
__device__ __forceinline__ void hand_out(scalar (&sums)[VALUES]) {
    int left = VALUES;
#pragma unroll
    for (int other = LANES / 2; other > 0; other /= 2) {
        if (left == 1) {
            sums[0] += __shfl_xor_sync(0xffffffffu, sums[0], other);
            continue;
        }
        left /= 2;
        const bool is_upper = threadIdx.x & other;
#pragma unroll
        for (int i = 0; i < VALUES / 2; i++) {
            if (i >= left) continue;
            const scalar mine = is_upper ? sums[i + left] : sums[i];
            const scalar theirs = is_upper ? sums[i] : sums[i + left];
            sums[i] = mine + __shfl_xor_sync(0xffffffffu, theirs, other);
        }
    }
}

// From the deltas of a layer's outputs to those of its inputs, which take the activations' place.
template <int LAYER>
__device__ __forceinline__ void backward_layer(scalar* activations,
                                               const scalar* __restrict__ parameters,
                                               scalar* __restrict__ deltas, scalar* __restrict__ dx,
                                               int n0, int images) {
    using Of = Layer<LAYER>;
    const scalar* from = held(activations, LAYER + 1);
    scalar* to = held(activations, LAYER);

    // A lane meets the same columns in every row.
    Vector<Of::WIDTH> mine[Of::RUNS][IMAGES];
#pragma unroll
    for (int run = 0; run < Of::RUNS; run++) {
#pragma unroll
        for (int m = 0; m < IMAGES; m++) {
            const scalar* at = from + m * HELD_PITCH + Of::column(run);
            const bool is_there = Of::column(run) < Of::OUTPUTS;
            mine[run][m] =
                is_there ? *reinterpret_cast<const Vector<Of::WIDTH>*>(at) : Vector<Of::WIDTH>{};
        }
    }

    read_all<Of, true>(parameters + weights_at(LAYER), [&](const Rows<Of>& rows, int step) {
        scalar sums[VALUES] = {};
#pragma unroll
        for (int i = 0; i < VALUES; i++) {
#pragma unroll
            for (int run = 0; run < Of::RUNS; run++) {
#pragma unroll
                for (int j = 0; j < Of::WIDTH; j++) {
                    sums[i] += rows.of[i / IMAGES][run].of[j] * mine[run][i % IMAGES].of[j];
                }
            }
        }
        hand_out<Of::LANES>(sums);

        constexpr int LEFT = VALUES > Of::LANES ? VALUES / Of::LANES : 1;
        constexpr int ALIKE = VALUES > Of::LANES ? 1 : Of::LANES / VALUES;  // lanes with one sum
        const int lane = threadIdx.x % Of::LANES;
#pragma unroll
        for (int i = 0; i < LEFT; i++) {
            const int value = lane / ALIKE * LEFT + i, m = value % IMAGES;
            const int row = Of::row(step, value / IMAGES);
            if (lane % ALIKE || row >= Of::INPUTS) continue;
            if (LAYER > 0) {
                // The ReLU between hands on nothing where its output was 0.
                scalar& activation = to[m * HELD_PITCH + row];
                const scalar delta = activation > scalar(0) ? sums[i] : scalar(0);
                activation = delta;
                if (m < images) {
                    deltas[(n0 + m) * PITCH + outputs_at(LAYER - 1) + row] = delta;
                }
            } else if (m < images) {
                dx[(n0 + m) * Of::INPUTS + row] = sums[i];
            }
        }
    });
    if constexpr (LAYER > 0) {
        __syncthreads();  // the layer before reads all of these
        backward_layer<LAYER - 1>(activations, parameters, deltas, dx, n0, images);
    }
}

// The 1: without a least number of resident blocks ptxas aims at two, and spills for it.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    linear_stack_forward(const scalar* __restrict__ x, const scalar* __restrict__ parameters,
                         scalar* __restrict__ outputs, const int rows) {
    extern __shared__ __align__(16) scalar activations[];
    const int n0 = blockIdx.x * IMAGES, images = min(rows - n0, IMAGES);
    load_images(activations, x, n0, images);
    forward_layer<0>(activations, activations + HELD, parameters, outputs, n0, images);
}

// The gradient is that of the loss's sum over `count`, which is N but for a part of a batch.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    linear_stack_learn(const scalar* __restrict__ x, const long long* __restrict__ labels,
                       const scalar* __restrict__ parameters, scalar* __restrict__ outputs,
                       scalar* __restrict__ deltas, scalar* __restrict__ dx,
                       scalar* __restrict__ losses, int* __restrict__ hits, scalar* block_losses,
                       int* block_hits, unsigned* ticket, const int* __restrict__ step,
                       const int rows, const scalar count) {
    extern __shared__ __align__(16) scalar activations[];
    const int n0 = blockIdx.x * IMAGES, images = min(rows - n0, IMAGES);
    load_images(activations, x, n0, images);
    forward_layer<0>(activations, activations + HELD, parameters, outputs, n0, images);

    // Loss: a warp an image, its deltas in the place of the logits.
    constexpr int CLASSES = size_of(LAYERS);
    scalar* const logits = held(activations, LAYERS);
    const int m = threadIdx.x / 32, lane = threadIdx.x % 32;
    scalar loss = 0;
    bool is_hit = false;
    if (m < images) {
        const auto logit = [&](int c) { return logits[m * HELD_PITCH + c]; };
        const Row row = look_at_row<32>(lane, CLASSES, CLASSES, logit);
        const int label = (int)labels[n0 + m];
        if (lane == 0) loss = row.loss(logit(label));
        is_hit = lane == 0 && row.is_hit(label);
        __syncwarp();  // its first lane has read the label's logit
        for (int c = lane; c < CLASSES; c += 32) {
            const scalar share = exp(logit(c) - row.best) / row.total;
            const scalar delta = (share - (c == label ? scalar(1) : scalar(0))) / count;
            logits[m * HELD_PITCH + c] = delta;
            deltas[(n0 + m) * PITCH + outputs_at(LAYERS - 1) + c] = delta;
        }
    }
    // Its barriers also stand between these deltas and who reads them.
    add_up<THREADS>({losses, block_losses, hits, block_hits, ticket, step}, loss, is_hit, rows);
    backward_layer<LAYERS - 1>(activations, parameters, deltas, dx, n0, images);
}
