// y2 = block(block(x, w1, b1), w2, b2) of the x and target that training/batch.cu gathers
// images, labels, order, position, x, target: see there; y1 and argmax1 (N,K1,pooled P1,pooled Q1),
// y2 and argmax2 (N,K2,pooled P2,pooled Q2); the second layer's input is the first's output
// A block owns an image, and a thread, as in fused.cu, STRIP windows of one filter: of the first
// layer, then of the second, where it adds up one of PARTS runs of channels.
// Against three launches: the image comes from the data set straight into shared memory, and the
// first layer's maxima are the second's tile. What lies between is a barrier of a block, not of the
// GPU. Limits: a tile is a whole image, all channels and filters; no padding between the layers.
#include "conv2d_relu_pool/fused_forward.cuh"
#include "training/batch.cuh"

__device__ constexpr Cut first_cut = {FIRST}, second_cut = {SECOND};
__device__ constexpr BlockShape first_layer = first_cut.layer, second_layer = second_cut.layer;
using First = Forward<first_cut>;
using Second = Forward<second_cut>;
constexpr int FIRST_COUNT = first_layer.conv.k * first_layer.pooled_p * first_layer.pooled_q;
constexpr int SECOND_COUNT = second_layer.conv.k * second_layer.pooled_p * second_layer.pooled_q;
constexpr int PART_LANES = (Second::OWNERS + 31) / 32 * 32;  // whole warps
constexpr int THREADS = larger((First::OWNERS + 31) / 32 * 32, PARTS* PART_LANES);
static_assert(THREADS <= 1024, "CUDA's limit of threads a block");

// Shared memory, in elements: the image, in whose place come the sums of the second layer's parts,
// and then its output; its tile; both layers' filters. What is read in pairs begins at even places.
constexpr int HANDED = (PARTS - 1) * PART_LANES * Second::SUMS;
constexpr int IMAGE_ROOM = even(larger(larger(First::In::IMAGE, HANDED), SECOND_COUNT));
constexpr int FIRST_FILTERS = even(first_cut.filters * First::FILTER);
constexpr int SECOND_FILTERS = second_cut.filters * Second::FILTER;

// Store an owner's maxima where `to` says, and their places as the output lies.
template <const Cut& cut, class To>
__device__ __forceinline__ void keep_maxima(const Forward<cut>& block, const Index4& own,
                                            unsigned char* all_places, const To& to) {
    scalar maxima[cut.strip];
    int places[cut.strip];
    block.find_maxima(maxima, places);
#pragma unroll
    for (int j = 0; j < cut.strip; j++) {
        const int col = own.d * cut.strip + j;
        if (col >= cut.layer.pooled_q) continue;
        *to(own.b, own.c, col) = maxima[j];
        all_places[y_offset(cut.layer, 0, own.b, own.c, col)] = places[j];
    }
}

// The 2: two blocks a multiprocessor, one of which works while the other loads or stores.
extern "C" __global__ void __launch_bounds__(THREADS, 2) conv2d_relu_pool_fused_pair(
    const scalar* __restrict__ images, const long long* __restrict__ labels,
    const int* __restrict__ order, const int* __restrict__ position, scalar* __restrict__ x,
    long long* __restrict__ target, const scalar background, const BatchShape batch,
    const scalar* __restrict__ w1, const scalar* __restrict__ b1, const scalar* __restrict__ w2,
    const scalar* __restrict__ b2, scalar* __restrict__ y1, unsigned char* __restrict__ argmax1,
    scalar* __restrict__ y2, unsigned char* __restrict__ argmax2) {
    extern __shared__ Pair<scalar> shared[];
    scalar* const image = reinterpret_cast<scalar*>(shared);
    scalar* const between = image + IMAGE_ROOM;
    scalar* const filters1 = between + Second::In::IMAGE;
    scalar* const filters2 = filters1 + FIRST_FILTERS;
    unsigned char* const places = reinterpret_cast<unsigned char*>(filters2 + SECOND_FILTERS);

    const int n = blockIdx.x, from = batch_image(order, position, n, batch), epoch = position[0];
    if (threadIdx.x == 0) target[n] = labels[from];
    First::In::fill<THREADS>(
        image, -first_layer.conv.pad_top, true, 0, [&](int c, int row, int col) {
            const scalar pixel = batch_pixel(images, from, epoch, c, row, col, background, batch);
            x[x_offset(first_layer.conv, n, c, row, col)] = pixel;  // for the gradient
            return pixel;
        });
    First::load_filters<THREADS>(filters1, w1, 0, 0);
    Second::load_filters<THREADS>(filters2, w2, 0, 0);
    for (int i = threadIdx.x; i < Second::In::IMAGE; i += THREADS) between[i] = 0;
    __syncthreads();  // a thread reads what its neighbours loaded

    if (threadIdx.x < First::OWNERS) {
        First first;
        const Index4 own = First::place_of(threadIdx.x);
        first.start(b1[own.b]);
        first.add(image, filters1, own);
        keep_maxima<first_cut>(first, own, places, [&](int k, int row, int col) {
            return between + Second::In::at(k, row, col);
        });
    }
    __syncthreads();  // a thread reads, and copies out, what its neighbours found

    for (int i = threadIdx.x; i < FIRST_COUNT; i += THREADS) {
        const Index4 at = unflatten(i, 1, first_layer.pooled_p, first_layer.pooled_q);
        y1[n * FIRST_COUNT + i] = between[Second::In::at(at.a, at.c, at.d)];
        argmax1[n * FIRST_COUNT + i] = places[i];
    }
    const int part = threadIdx.x / PART_LANES, owner = threadIdx.x % PART_LANES;
    const bool is_owner = part < PARTS && owner < Second::OWNERS;
    const Index4 own = Second::place_of(owner);
    Second second;
    if (is_owner) {
        constexpr int channels = second_layer.conv.c;
        second.start(part == 0 ? b2[own.b] : scalar(0));
        second.add(between, filters2, own, part * channels / PARTS, (part + 1) * channels / PARTS);
        if (part > 0)
            second.hand_over(image + (part - 1) * Second::SUMS * PART_LANES + owner, PART_LANES);
    }
    __syncthreads();  // the first part's threads add the others' sums
    for (int other = 0; other < PARTS - 1; other++) {
        if (is_owner && part == 0)
            second.take_over(image + other * Second::SUMS * PART_LANES + owner, PART_LANES);
    }
    __syncthreads();  // the maxima overwrite the sums, and their places the first layer's
    if (is_owner && part == 0) {
        keep_maxima<second_cut>(second, own, places, [&](int k, int row, int col) {
            return image + y_offset(second_layer, 0, k, row, col);
        });
    }
    __syncthreads();  // neighbouring threads store what neighbouring windows found
    for (int i = threadIdx.x; i < SECOND_COUNT; i += THREADS) {
        y2[n * SECOND_COUNT + i] = image[i];
        argmax2[n * SECOND_COUNT + i] = places[i];
    }
}
