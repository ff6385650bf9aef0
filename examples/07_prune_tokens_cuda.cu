// Dropping tokens on a GPU: what 05_prune_tokens.cpp does, from attention probabilities, on a stream.
// Compile with nvcc -arch=native --extended-lambda --expt-relaxed-constexpr.
#include <pare/compact.hpp>
#include <pare/importance.hpp>
#include <pare/policy/thrust.hpp>

#include <cstdio>
#include <thrust/device_vector.h>
#include <thrust/host_vector.h>

template <class T>
T* raw(thrust::device_vector<T>& x) {
    return thrust::raw_pointer_cast(x.data());
}

int main() {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        std::puts("skipped: no device");
        return 0;
    }
    // Two sequences of 64 tokens; in each, every query looks at the even keys alone.
    const int sequences = 2, heads = 4, n = 64, width = 128, tokens = sequences * n;
    thrust::host_vector<float> p(sequences * heads * n * n), x(tokens * width);
    for (std::size_t i = 0; i < p.size(); ++i) p[i] = i % 2 == 0 ? 2.f / n : 0.f;
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i / width);
    thrust::device_vector<float> probabilities = p, hidden = x, scores(tokens);
    thrust::device_vector<int> index(tokens), offsets(sequences + 1);
    for (int s = 0; s <= sequences; ++s) offsets[s] = s * n;
    cudaStream_t stream;
    cudaStreamCreate(&stream);

    // [example]
    const auto gpu = pare::on(thrust::cuda::par_nosync.on(stream));
    const pare::view<float, 4> attention(raw(probabilities), sequences, heads, n, n);
    const pare::view packed(raw(offsets), sequences + 1);

    pare::importance(gpu, attention, {}, pare::view(raw(scores), sequences, n));
    const auto kept = pare::keep_above(gpu, pare::view(raw(scores), tokens), /*threshold=*/0.95,
                                       packed, pare::view(raw(index), tokens), packed);
    pare::gather_rows(gpu, pare::view(raw(index), kept), pare::view(raw(hidden), tokens, width));
    // On `stream`, the FFN and all later layers work on the first `kept` rows of `hidden`.
    // [example]

    cudaStreamSynchronize(stream);
    thrust::host_vector<float> rows = hidden;
    bool right = kept == tokens / 2;
    for (int i = 0; right && i < kept; ++i) right = rows[i * width] == static_cast<float>(2 * i);
    std::printf("%d of %d tokens stay\n", static_cast<int>(kept), tokens);
    cudaStreamDestroy(stream);
    return right ? 0 : 1;
}
