// Faults of every kind, one a kernel: each marked line ends with the kind that must be found there.
// All take x, y (an output) and n; launched with 2 blocks of 64 threads for n = 128 unless
// test_faults.py says otherwise.
#define KERNEL extern "C" __global__ void
#define AT blockIdx.x* blockDim.x + threadIdx.x

// ---- bounds ----

KERNEL bounds_read_past_the_end(const float* x, float* y, int n) {
    int i = AT;
    y[i] = x[i + 1];  // bounds
}
KERNEL bounds_read_before_the_start(const float* x, float* y, int n) {
    int i = AT;
    y[i] = x[i - 1];  // bounds
}
KERNEL bounds_one_thread_too_many(const float* x, float* y, int n) {
    int i = AT;
    if (i <= n) {
        y[i] = 1.0f;  // bounds
    }
}
KERNEL bounds_vector_over_the_end(const float* x, float* y, int n) {
    int i = AT;
    const float4* from = reinterpret_cast<const float4*>(x);
    float4 v = from[i / 4 + 1];  // bounds
    y[i] = v.x + v.y + v.z + v.w;
}
KERNEL bounds_rows_and_columns_swapped(const float* x, float* y, int n) {
    int i = AT, rows = 16, columns = n / rows;
    int row = i / columns, column = i % columns;
    y[row * columns + column] = x[row * rows + column];  // bounds
}
KERNEL bounds_static_shared(const float* x, float* y, int n) {
    __shared__ float tile[64];
    __shared__ float other[64];
    int i = AT, t = threadIdx.x;
    other[t] = x[i];
    tile[t + 1] = x[i];  // bounds
    __syncthreads();
    y[i] = other[t] + (t ? tile[t] : 0);
}
KERNEL bounds_before_shared(const float* x, float* y, int n) {
    __shared__ float first[64];
    __shared__ float tile[64];
    int i = AT, t = threadIdx.x;
    first[t] = 0;
    tile[t] = x[i];
    __syncthreads();
    y[i] = first[t] + tile[t] + tile[t - 1];  // bounds
}
KERNEL bounds_dynamic_shared(const float* x, float* y, int n) {
    extern __shared__ float halo[];  // the launch gives 64 floats
    int i = AT;
    for (int j = threadIdx.x; j < 66; j += blockDim.x) {
        halo[j] = 1.0f;  // bounds
    }
    __syncthreads();
    y[i] = halo[threadIdx.x];
}
KERNEL bounds_atomic_bin(const float* x, float* y, int n) {
    int i = AT;
    y[i] = 0;
    __syncthreads();
    int bin = static_cast<int>(x[i]) + n;
    atomicAdd(&y[bin], 1.0f);  // bounds
}
KERNEL bounds_hinted_load(const float* x, float* y, int n) {
    int i = AT;
    y[i] = __ldg(x + i + 5);  // bounds
}
KERNEL bounds_copied_too_much(const float* x, float* y, int n) {
    int i = AT;
    if (i == 0) memcpy(y, x, (n + 1) * sizeof(float));  // bounds
}

// ---- foreign and misaligned ----

KERNEL foreign_null(const float* x, float* y, int n) {
    int i = AT;
    const float* nothing = n ? nullptr : x;
    y[i] = nothing[i];  // foreign
}
KERNEL foreign_far_away(const float* x, float* y, int n) {
    int i = AT;
    y[i] = x[static_cast<long long>(n) << 36];  // foreign
}
KERNEL foreign_integer_as_pointer(const float* x, float* y, int n) {
    int i = AT;
    reinterpret_cast<float*>(static_cast<size_t>(n))[i] = x[i];  // foreign
}
KERNEL misaligned_vector(const float* x, float* y, int n) {
    int i = AT;
    if (i < 16) {
        float4 v = *reinterpret_cast<const float4*>(x + 2 * i);  // misaligned
        y[i] = v.x;
    }
}
KERNEL misaligned_pair(const float* x, float* y, int n) {
    int i = AT;
    if (i == 0) *reinterpret_cast<float2*>(y + 1) = make_float2(x[i], 0);  // misaligned
}

// ---- races ----

KERNEL race_no_barrier(const float* x, float* y, int n) {
    __shared__ float tile[64];
    int i = AT, t = threadIdx.x;
    tile[t] = x[i];       // race
    y[i] = tile[63 - t];  // race uninitialised
}
KERNEL race_no_barrier_before_the_next_round(const float* x, float* y, int n) {
    __shared__ float tile[64];
    int i = AT, t = threadIdx.x;
    float sum = 0;
    for (int round = 0; round < 2; round++) {
        tile[t] = x[i] + round;  // race
        __syncthreads();
        sum += tile[63 - t];  // race
    }
    y[i] = sum;
}
KERNEL race_blocks_write_the_same(const float* x, float* y, int n) {
    int t = threadIdx.x;
    y[t] = x[AT];        // race
    y[64 + t % 64] = 0;  // race
}
KERNEL race_sum_without_atomics(const float* x, float* y, int n) {
    __shared__ float sum;
    int i = AT;
    if (threadIdx.x == 0) sum = 0;
    __syncthreads();
    sum += x[i];  // race
    __syncthreads();
    y[i] = sum;
}
KERNEL race_within_a_warp(const float* x, float* y, int n) {
    __shared__ float tile[64];
    int i = AT, t = threadIdx.x;
    tile[t] = x[i];
    y[i] = tile[t ^ 1];  // race
}
KERNEL race_syncwarp_is_not_enough(const float* x, float* y, int n) {
    __shared__ float tile[64];
    int i = AT, t = threadIdx.x;
    tile[t] = x[i];  // race
    __syncwarp();
    y[i] = tile[t ^ 32];  // race uninitialised
}
KERNEL race_syncwarp_of_half_a_warp(const float* x, float* y, int n) {
    __shared__ float tile[64];
    int i = AT, t = threadIdx.x;
    tile[t] = x[i];
    __syncwarp(t % 32 < 16 ? 0x0000ffff : 0xffff0000);
    y[i] = tile[t ^ 16];  // race
}
KERNEL race_atomic_and_plain(const float* x, float* y, int n) {
    __shared__ int count;
    int i = AT;
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    atomicAdd(&count, 1);  // race
    y[i] = count;          // race
}
KERNEL race_in_place(const float* x, float* y, int n) {
    int i = AT;
    y[i] = x[i];
    __syncthreads();
    if (i % 64 < 63) {
        y[i] = y[i + 1];  // race
    }
}
KERNEL race_reduction_without_the_last_barriers(const float* x, float* y, int n) {
    __shared__ volatile float sums[64];
    int i = AT, t = threadIdx.x;
    sums[t] = x[i];
    __syncthreads();
    if (t < 32) {
        sums[t] += sums[t + 32];
        if (t < 16) sums[t] += sums[t + 16];  // race
        if (t < 8) sums[t] += sums[t + 8];    // race
    }
    y[i] = t ? 0.0f : sums[0];
}

KERNEL race_write_of_what_all_have_read(const float* x, float* y, int n) {
    __shared__ float scale[1];
    if (threadIdx.x == 0) scale[0] = 2;
    __syncthreads();
    float sum = x[AT] * scale[0];
    sum += scale[0];
    if (threadIdx.x == 40) scale[0] = 3;  // race
    y[AT] = sum;
}
KERNEL race_write_behind_a_syncwarp_of_some_readers(const float* x, float* y, int n) {
    __shared__ float scale[1];
    if (threadIdx.x == 0) scale[0] = 2;
    __syncthreads();
    float sum = x[AT] * scale[0];
    __syncwarp();
    sum += scale[0];
    if (threadIdx.x == 40) scale[0] = 3;  // race
    y[AT] = sum;
}

// ---- reads of what nobody wrote ----

KERNEL uninitialised_half_a_tile(const float* x, float* y, int n) {
    __shared__ float tile[64];
    int i = AT, t = threadIdx.x;
    if (t < 32) tile[t] = x[i];
    __syncthreads();
    y[i] = tile[t];  // uninitialised
}
KERNEL uninitialised_output_added_to(const float* x, float* y, int n) {
    int i = AT;
    y[i] += x[i];  // uninitialised
}
KERNEL uninitialised_dynamic_shared(const float* x, float* y, int n) {
    extern __shared__ float sums[];
    int i = AT, t = threadIdx.x;
    sums[t] += x[i];  // uninitialised
    y[i] = sums[t];
}
KERNEL uninitialised_halo(const float* x, float* y, int n) {
    __shared__ float tile[66];
    int i = AT, t = threadIdx.x;
    tile[t + 1] = x[i];
    __syncthreads();
    y[i] = tile[t] + tile[t + 1];  // uninitialised
}
KERNEL uninitialised_counter(const float* x, float* y, int n) {
    __shared__ int count;
    int i = AT;
    atomicAdd(&count, 1);  // uninitialised
    __syncthreads();
    y[i] = count;
}
KERNEL uninitialised_beyond_the_edge(const float* x, float* y, int n) {
    __shared__ float tile[64];
    int i = AT, t = threadIdx.x;
    bool in_image = i < n - 4;
    if (in_image) tile[t] = x[i];
    __syncthreads();
    float sum = 0;
    for (int j = 0; j < 64; j++) {
        sum += tile[j];  // uninitialised
    }
    y[i] = sum;
}
KERNEL uninitialised_from_the_block_before(const float* x, float* y, int n) {
    __shared__ float carried;
    int i = AT;
    y[i] = x[i] + (blockIdx.x ? carried : 0);  // uninitialised
    __syncthreads();
    if (threadIdx.x == 63) carried = x[i];
}

// ---- elements never written ----

KERNEL unwritten_last(const float* x, float* y, int n) {
    int i = AT;
    if (i < n - 1) {
        y[i] = x[i];  // unwritten
    }
}
KERNEL unwritten_every_other(const float* x, float* y, int n) {
    int i = AT;
    if (i % 2 == 0) {
        y[i] = x[i];  // unwritten
    }
}
KERNEL unwritten_block_missing(const float* x, float* y, int n) {
    int i = AT;
    y[i] = x[i];  // unwritten
}
KERNEL unwritten_early_return(const float* x, float* y, int n) {
    int i = AT;
    if (x[i] == 5.0f) return;
    y[i] = x[i];  // unwritten
}
KERNEL unwritten_short_loop(const float* x, float* y, int n) {
    for (int i = AT; i < n / 2; i += gridDim.x * blockDim.x) {
        y[i] = x[i];  // unwritten
    }
}
KERNEL unwritten_all(const float* x, float* y, int n) {}  // unwritten
KERNEL unwritten_tail_of_vectors(const float* x, float* y, int n) {
    int i = AT;
    if (i < n / 4 - 1) {
        const float4 v = reinterpret_cast<const float4*>(x)[i];
        reinterpret_cast<float4*>(y)[i] = v;  // unwritten
    }
}

// ---- barriers that not all threads reach ----

KERNEL barrier_after_return(const float* x, float* y, int n) {
    int i = AT;
    if (i >= n - 3) return;
    y[i] = x[i];
    __syncthreads();  // barrier
}
KERNEL barrier_of_one_warp(const float* x, float* y, int n) {
    int i = AT;
    if (threadIdx.x < 32) {
        __syncthreads();  // barrier
    }
    y[i] = x[i];
}
KERNEL barrier_in_uneven_loops(const float* x, float* y, int n) {
    int i = AT;
    for (int j = 0; j < 2 + (i % 2); j++) {
        __syncthreads();  // barrier
    }
    y[i] = x[i];
}
KERNEL barrier_in_both_branches(const float* x, float* y, int n) {
    int i = AT;
    if (threadIdx.x < 40) {
        y[i] = 0;
        __syncthreads();  // barrier
    } else {
        __syncthreads();
        y[i] = x[i];
    }
}
KERNEL barrier_of_half_a_warp(const float* x, float* y, int n) {
    int i = AT;
    if (threadIdx.x % 32 < 16) {
        __syncwarp();
    } else {
        __syncthreads();  // barrier
    }
    y[i] = x[i];
}
KERNEL barrier_shuffle_of_some(const float* x, float* y, int n) {
    int i = AT;
    float value = x[i];
    if (i % 3) {
        value += __shfl_down_sync(0xffffffff, value, 1);
    } else {
        value += __shfl_up_sync(0xffffffff, value, 1);  // barrier
    }
    y[i] = value;
}
