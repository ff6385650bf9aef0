// Rows and selections on a device: half types, odd places in memory, and a graph of calls that wait for
// nothing.
#include "../policies.hpp"
#include "../support.hpp"
#include <pare/compact.hpp>
#include <pare/importance.hpp>
#include <pare/soft_mask.hpp>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <thrust/device_vector.h>

#include <algorithm>
#include <array>

namespace {

template <class T>
T* raw(thrust::device_vector<T>& x) {
    return thrust::raw_pointer_cast(x.data());
}
template <class T>
thrust::device_vector<T> there(const std::vector<float>& x) {
    std::vector<T> values;
    for (const float e : x) values.push_back(static_cast<T>(e));
    return {values.begin(), values.end()};
}
template <class T>
std::vector<float> here(const thrust::device_vector<T>& x) {
    std::vector<T> values(x.size());
    thrust::copy(x.begin(), x.end(), values.begin());
    std::vector<float> numbers;
    for (const T& e : values) numbers.push_back(static_cast<float>(e));
    return numbers;
}
template <class T>
std::vector<float> rounded(std::vector<float> x) {
    for (float& e : x) e = static_cast<float>(static_cast<T>(e));
    return x;
}

} // namespace

TEMPLATE_TEST_CASE("half rows on a device, wherever they begin", "", __half, __nv_bfloat16) {
    using T = TestType;
    random_source random;
    CAPTURE(random);
    const auto policy = pare::on(thrust::cuda::par);
    for (const auto& shape : std::vector<std::array<index_t, 3>>{
             {37, 64, 0}, {37, 64, 1}, {37, 61, 0}, {300, 768, 0}, {9, 5, 3}}) {
        const index_t n = shape[0], d = shape[1], shift = shape[2];
        CAPTURE(n, d, shift);
        const auto x = rounded<T>(random.vector<float>(n * d + shift)),
                   dy = rounded<T>(random.vector<float>(n * d + shift)),
                   mask = rounded<T>(random.vector<float>(n));
        auto x_there = there<T>(x), dy_there = there<T>(dy), mask_there = there<T>(mask);
        thrust::device_vector<T> y(x.size()), dx(x.size()), dm(mask.size());
        const auto rows = [&](thrust::device_vector<T>& of) {
            return pare::view<T, 2>(raw(of) + shift, n, d);
        };
        const pare::view<T, 1> m(raw(mask_there), n);
        pare::scale_rows(policy, m, rows(x_there), rows(y));
        pare::scale_rows_backward(policy, m, rows(x_there), rows(dy_there), rows(dx),
                                  pare::view<T, 1>(raw(dm), n));
        const auto found_y = here(y), found_dx = here(dx), found_dm = here(dm);
        index_t wrong = 0;
        for (index_t i = 0; i < n; ++i) {
            real sum = 0, magnitude = 0;
            for (index_t j = 0; j < d; ++j) {
                const auto at = static_cast<std::size_t>(shift + i * d + j);
                const float scale = mask[static_cast<std::size_t>(i)];
                wrong += found_y[at] != static_cast<float>(static_cast<T>(scale * x[at]));
                wrong += found_dx[at] != static_cast<float>(static_cast<T>(scale * dy[at]));
                sum += static_cast<real>(x[at]) * dy[at];
                magnitude += std::abs(static_cast<real>(x[at]) * dy[at]);
            }
            wrong += !(distance(found_dm[static_cast<std::size_t>(i)], sum) <= 0.01 * magnitude);
        }
        CHECK(wrong == 0);
        std::vector<int> index;
        for (int i = 0; i < n; i += 1 + i % 3) index.push_back(i);
        thrust::device_vector<int> index_there(index.begin(), index.end());
        const auto kept = static_cast<index_t>(index.size());
        pare::gather_rows(policy, pare::view<int, 1>(raw(index_there), kept), rows(x_there));
        const auto found = here(x_there);
        for (index_t i = 0; i < kept; ++i)
            for (index_t j = 0; j < d; ++j)
                wrong +=
                    found[static_cast<std::size_t>(shift + i * d + j)] !=
                    x[static_cast<std::size_t>(shift + index[static_cast<std::size_t>(i)] * d + j)];
        CHECK(wrong == 0);
    }
}

namespace {

/// Calls of a policy made of exec(stream), in a graph that runs when they have returned.
template <class Make>
void check_graph(const Make& exec) {
    random_source random;
    CAPTURE(random);
    const index_t sequences = 3, heads = 4, n = 40, tokens = sequences * n, columns = 32;
    const auto rows = random.vector<float>(tokens * columns);
    std::vector<int> offsets;
    for (int s = 0; s <= sequences; ++s) offsets.push_back(s * static_cast<int>(n));
    thrust::device_vector<float> p(static_cast<std::size_t>(sequences * heads * n * n)),
        x(rows.begin(), rows.end()), kept_x(x.size()), scores(static_cast<std::size_t>(tokens));
    thrust::device_vector<int> device_offsets(offsets.begin(), offsets.end()),
        kept_offsets(offsets.size()), index(scores.size());
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t ready = nullptr;
    REQUIRE(cudaStreamCreate(&stream) == cudaSuccess);
    const auto policy = pare::on(exec(stream));
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    pare::importance(policy, pare::view<const float, 4>(raw(p), sequences, heads, n, n),
                     pare::view<const int, 1>(), pare::view<float, 2>(raw(scores), sequences, n));
    const pare::view<int, 1> positions(raw(index), tokens), kept(raw(kept_offsets), sequences + 1);
    pare::keep_above_async(policy, pare::view<const float, 1>(raw(scores), tokens), 1,
                           pare::view<const int, 1>(raw(device_offsets), sequences + 1), positions,
                           kept, pare::pins{1});
    pare::gather_rows_async(policy, positions, kept,
                            pare::from_to(pare::view<const float, 2>(raw(x), tokens, columns),
                                          pare::view<float, 2>(raw(kept_x), tokens, columns)));
    REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    REQUIRE(cudaGraphInstantiate(&ready, graph, 0) == cudaSuccess);
    for (int round = 0; round < 3; ++round) {
        const auto some =
            random.vector<float>(sequences * heads * n * n, 0, 2 / static_cast<double>(n));
        thrust::copy(some.begin(), some.end(), p.begin());
        REQUIRE(cudaGraphLaunch(ready, stream) == cudaSuccess);
        REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
        std::vector<float> expected_scores(scores.size());
        std::vector<int> expected(index.size()), expected_offsets(offsets.size());
        pare::importance(pare::seq, pare::view<const float, 4>(some.data(), sequences, heads, n, n),
                         std::vector<int>{},
                         pare::view<float, 2>(expected_scores.data(), sequences, n));
        const index_t count = pare::keep_above(pare::seq, here(scores), 1, offsets, expected,
                                               expected_offsets, pare::pins{1});
        const auto found_scores = here(scores), found_rows = here(kept_x);
        for (std::size_t i = 0; i < found_scores.size(); ++i)
            CHECK_THAT(found_scores[i], WithinRel(expected_scores[i], 1e-5f));
        CHECK(std::equal(expected_offsets.begin(), expected_offsets.end(), kept_offsets.begin()));
        for (index_t i = 0; i < count; ++i)
            for (index_t j = 0; j < columns; ++j)
                REQUIRE(found_rows[static_cast<std::size_t>(i * columns + j)] ==
                        rows[static_cast<std::size_t>(
                            expected[static_cast<std::size_t>(i)] * columns + j)]);
    }
    CHECK(cudaGraphExecDestroy(ready) == cudaSuccess);
    CHECK(cudaGraphDestroy(graph) == cudaSuccess);
    CHECK(cudaStreamDestroy(stream) == cudaSuccess);
}

/// Memory of which we know whether some was taken.
struct reused_memory {
    using value_type = char;
    char* allocate(std::ptrdiff_t bytes) {
        void* memory = nullptr;
        REQUIRE(cudaMalloc(&memory, static_cast<std::size_t>(bytes)) == cudaSuccess);
        return static_cast<char*>(memory);
    }
    void deallocate(char* memory, std::size_t) { given_back.push_back(memory); }
    ~reused_memory() {
        for (char* memory : given_back) cudaFree(memory);
    }
    std::vector<char*> given_back;
};

} // namespace

TEST_CASE("a graph of calls that wait for nothing") {
    check_graph([](cudaStream_t stream) { return thrust::cuda::par_nosync.on(stream); });
    reused_memory memory; // a graph has memory of its own
    check_graph([&](cudaStream_t stream) { return thrust::cuda::par_nosync(memory).on(stream); });
    CHECK(memory.given_back.empty());
}
