// Scores beside an attention of another library: from its queries, keys and log-sum-exp rows.
// Compile with nvcc -arch=native --extended-lambda --expt-relaxed-constexpr.
#include <pare/attention_scores.hpp>
#include <pare/compact.hpp>
#include <pare/policy/thrust.hpp>

#include <cmath>
#include <cstdio>
#include <cuda_fp16.h>
#include <thrust/device_vector.h>
#include <thrust/host_vector.h>

template <class T>
T* raw(thrust::device_vector<T>& x) {
    return thrust::raw_pointer_cast(x.data());
}

// Stands for PyTorch's, cuDNN's or FlashAttention's kernel, which also writes `out`: causal
// attention, of which a thread has the log-sum-exp of one query, in an array [heads x n].
__global__ void flash_attention(const __half* q, const __half* k, float* lse, int heads, int n,
                                int size) {
    const int i = static_cast<int>(blockIdx.x), h = static_cast<int>(threadIdx.x);
    float most = -INFINITY, total = 0;
    for (int j = 0; j <= i; ++j) {
        float logit = 0;
        for (int e = 0; e < size; ++e)
            logit += __half2float(q[(i * heads + h) * size + e]) *
                     __half2float(k[(j * heads + h) * size + e]);
        logit /= sqrtf(static_cast<float>(size));
        const float next = fmaxf(most, logit);
        total = total * expf(most - next) + expf(logit - next);
        most = next;
    }
    lse[h * n + i] = most + logf(total);
}

int main() {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        std::puts("skipped: no device");
        return 0;
    }
    // 256 tokens of a prompt. The last queries look at the keys that are multiples of 4.
    const int heads = 4, n = 256, size = 64, width = heads * size, budget = 64;
    thrust::host_vector<__half> all_q(n * width), all_k(n * width);
    for (int i = 0; i < n * width; ++i) {
        all_q[i] = __float2half(1.0f);
        all_k[i] = __float2half(i / width % 4 == 0 ? 0.5f : 0.0f);
    }
    thrust::host_vector<int> one_sequence(2);
    one_sequence[0] = 0, one_sequence[1] = n;
    thrust::device_vector<__half> queries = all_q, keys = all_k;
    thrust::device_vector<float> rows(heads * n), token_scores(n);
    thrust::device_vector<int> device_offsets = one_sequence, index(n);
    cudaStream_t stream;
    cudaStreamCreate(&stream);
    pare::workspace scratch; // kept between calls

    // [example]
    flash_attention<<<n, heads, 0, stream>>>(raw(queries), raw(keys), raw(rows), heads, n, size);

    const auto gpu = pare::on(thrust::cuda::par_nosync.on(stream));
    const pare::view<const __half, 3> q(raw(queries), n, heads, size);
    const pare::view<const __half, 3> k(raw(keys), n, heads, size);
    const pare::view<const float, 2> lse(raw(rows), {n, heads}, {1, n}); // in memory [heads x n]
    const pare::view offsets(raw(device_offsets), 2);
    const pare::view scores(raw(token_scores), n);
    pare::attention_options<__half> options; // those of the attention, and which queries count
    options.mask.causal = true;
    options.queries = pare::counted_queries::last(32); // SnapKV's window, at 32 / n of the cost
    pare::attention_scores(gpu, q, k, lse, offsets, scores, options, scratch);
    pare::keep_top_k(gpu, scores, budget, pare::view(raw(index), n)); // of the cache, these stay
    // [example]

    cudaStreamSynchronize(stream);
    const thrust::host_vector<int> kept = index;
    bool right = true;
    for (int i = 0; i < budget; ++i) right = right && kept[i] == 4 * i;
    std::printf("%d of %d keys stay\n", budget, n);
    cudaStreamDestroy(stream);
    return right ? 0 : 1;
}
