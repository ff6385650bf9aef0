// What only a device has: streams, its own memory, allocators of the user, half precision.
#include "../policies.hpp"
#include "../support.hpp"
#include <pare/attention.hpp>
#include <pare/compact.hpp>
#include <pare/fisher.hpp>
#include <pare/importance.hpp>
#include <pare/soft_mask.hpp>

#include <cuda_fp16.h>
#include <thrust/device_vector.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

namespace {

template <class T>
pare::view<T, 1> on_device(thrust::device_vector<T>& x) {
    return {thrust::raw_pointer_cast(x.data()), static_cast<index_t>(x.size())};
}
template <class T>
std::vector<T> here(const thrust::device_vector<T>& x) {
    std::vector<T> values(x.size());
    thrust::copy(x.begin(), x.end(), values.begin());
    return values;
}

struct stream {
    cudaStream_t handle = nullptr;
    stream() { REQUIRE(cudaStreamCreate(&handle) == cudaSuccess); }
    ~stream() { cudaStreamDestroy(handle); }
    stream(const stream&) = delete;
};

/// Memory of the device that runs out after `allowed` allocations.
struct counting_allocator {
    using value_type = char;
    long allowed = -1, held = 0;

    char* allocate(std::ptrdiff_t bytes) {
        void* memory = nullptr;
        if (allowed == 0 || cudaMalloc(&memory, static_cast<std::size_t>(bytes)) != cudaSuccess)
            throw std::bad_alloc();
        --allowed;
        ++held;
        return static_cast<char*>(memory);
    }
    void deallocate(char* memory, std::size_t) {
        cudaFree(memory);
        --held;
    }
};

} // namespace

TEST_CASE("two streams at once") {
    random_source random;
    CAPTURE(random);
    const index_t tokens = 100000, columns = 16, rounds = 20;
    struct lane {
        std::vector<float> scores, rows;
        thrust::device_vector<float> device_scores, device_rows;
        thrust::device_vector<index_t> index;
        stream on;
        std::vector<index_t> kept;
    };
    std::vector<std::unique_ptr<lane>> lanes;
    for (int i = 0; i < 2; ++i) {
        lanes.push_back(std::make_unique<lane>());
        lane& l = *lanes.back();
        l.scores = random.vector<float>(tokens);
        l.rows = random.vector<float>(tokens * columns);
        l.device_scores = thrust::device_vector<float>(l.scores.begin(), l.scores.end());
        l.device_rows = thrust::device_vector<float>(l.rows.begin(), l.rows.end());
        l.index.resize(static_cast<std::size_t>(tokens));
    }
    for (index_t round = 0; round < rounds; ++round)
        for (auto& l : lanes) {
            const auto policy = pare::on(thrust::cuda::par_nosync.on(l->on.handle));
            const index_t left = round == 0 ? tokens : l->kept.back();
            const pare::view<float, 1> scores(thrust::raw_pointer_cast(l->device_scores.data()),
                                              left);
            const index_t kept =
                pare::keep_above(policy, scores, -1 + 0.1 * double(round), on_device(l->index));
            pare::gather_rows(
                policy,
                pare::view<const index_t, 1>(thrust::raw_pointer_cast(l->index.data()), kept),
                scores,
                pare::view<float, 2>(thrust::raw_pointer_cast(l->device_rows.data()), left,
                                     columns));
            l->kept.push_back(kept);
        }
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    for (auto& l : lanes) {
        std::vector<index_t> index(static_cast<std::size_t>(tokens));
        index_t left = tokens;
        for (index_t round = 0; round < rounds; ++round) {
            const pare::view<float, 1> scores(l->scores.data(), left);
            const index_t kept =
                pare::keep_above(pare::seq, scores, -1 + 0.1 * double(round), index);
            CHECK(l->kept[static_cast<std::size_t>(round)] == kept);
            pare::gather_rows(pare::seq, pare::view<const index_t, 1>(index.data(), kept), scores,
                              pare::view<float, 2>(l->rows.data(), left, columns));
            left = kept;
        }
        const auto rows = here(l->device_rows);
        CHECK(std::equal(l->rows.begin(), l->rows.begin() + left * columns, rows.begin()));
    }
}

TEST_CASE("ten million elements of the device's own memory") {
    random_source random;
    CAPTURE(random);
    const index_t n = 10000000, units = 1000;
    const std::vector<float> x = random.vector<float>(n);
    thrust::device_vector<float> device(x.begin(), x.end()), mask(x.size());
    thrust::device_vector<std::int32_t> index(x.size());
    const auto policy = pare::on(thrust::cuda::par);

    std::vector<float> expected(x.size());
    pare::soft_mask(pare::seq, x, 0.1, 0.3, expected);
    pare::soft_mask(policy, on_device(device), 0.1, 0.3, on_device(mask));
    const auto found = here(mask);
    float worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i)
        worst = std::max(worst, std::abs(found[i] - expected[i]));
    CHECK(worst < 1e-6f);

    std::vector<std::int32_t> kept(x.size());
    const index_t count = pare::keep_above(pare::seq, x, 0.5, kept);
    CHECK(pare::keep_above(policy, on_device(device), 0.5, on_device(index)) == count);
    const auto positions = here(index);
    CHECK(std::equal(kept.begin(), kept.begin() + count, positions.begin()));

    pare::fisher<> here_sums(units), there_sums(units);
    here_sums.add(pare::seq, pare::view(x.data(), n / units, units));
    there_sums.add(policy,
                   pare::view<const float, 2>(on_device(device).data_handle(), n / units, units));
    const auto a = here_sums.diagonal(), b = there_sums.diagonal();
    for (std::size_t i = 0; i < a.size(); ++i) CHECK_THAT(b[i], WithinRel(a[i], 1e-5));
}

TEST_CASE("an allocator of the user, and one that runs out") {
    random_source random;
    const std::vector<float> x = random.vector<float>(1000);
    thrust::device_vector<float> scores(x.begin(), x.end());
    thrust::device_vector<index_t> index(x.size());
    counting_allocator memory;
    const auto policy = pare::on(thrust::cuda::par(memory));
    const auto call = [&] {
        return pare::keep_top_k(policy, on_device(scores), 10, on_device(index));
    };
    CHECK(call() == 10);
    CHECK(memory.held == 0);
    int failures = 0;
    for (long allowed = 0;; ++allowed) {
        memory.allowed = allowed;
        bool done = true;
        try {
            call();
        } catch (const std::bad_alloc&) {
            done = false;
            ++failures;
        }
        REQUIRE(memory.held == 0);
        if (done) break;
    }
    CHECK(failures > 2);
}

TEST_CASE("sums outlive the streams and allocators that added to them, and wait for one another") {
    random_source random;
    CAPTURE(random);
    const index_t rows = 512, columns = 200, rounds = 12;
    const std::vector<float> x = random.vector<float>(rows * columns);
    thrust::device_vector<float> device(x.begin(), x.end());
    const pare::view<const float, 2> all(on_device(device).data_handle(), rows, columns);
    pare::fisher<> found(columns, pare::fisher_kind::block), expected = found;
    for (index_t round = 0; round < rounds; ++round) {
        const stream first, second;
        counting_allocator memory;
        found.add(pare::on(thrust::cuda::par_nosync(memory).on(first.handle)), all);
        found.add(pare::on(thrust::cuda::par_nosync(memory).on(second.handle)), all);
        CHECK(memory.held == 0);
        for (int i = 0; i < 2; ++i) expected.add(pare::seq, pare::view(x.data(), rows, columns));
    }
    CHECK(found.samples() == expected.samples());
    const auto a = expected.block_sums(), b = found.block_sums();
    double off = 0;
    for (index_t i = 0; i < columns; ++i)
        for (index_t j = 0; j < columns; ++j)
            off = std::max(off, std::abs(a(i, j) - b(i, j)) / static_cast<double>(a(i, i)));
    CHECK(off < tolerance<float>);
    for (index_t i = 0; i < columns; ++i) {
        const auto at = static_cast<std::size_t>(i);
        CHECK_THAT(found.diagonal()[at], WithinRel(expected.diagonal()[at], 1e-5));
    }
}

TEST_CASE("a pointer to memory that the device does not read") {
    int device = 0, reads_all = 0;
    REQUIRE(cudaGetDevice(&device) == cudaSuccess);
    REQUIRE(cudaDeviceGetAttribute(&reads_all, cudaDevAttrPageableMemoryAccess, device) ==
            cudaSuccess);
    if (reads_all) return;
    const std::unique_ptr<void, void (*)(void*)> memory(std::malloc(400), std::free);
    const pare::view<float, 1> x(static_cast<float*>(memory.get()), index_t{100});
    CHECK_THROWS_AS(pare::soft_mask(pare::on(thrust::cuda::par), x, 0, 1, x), pare::value_error);
}

TEST_CASE("an error that somebody else's call has left behind") {
    thrust::device_vector<float> x(1000, 1.0f), mask(100, 2.0f);
    const pare::view<float, 2> rows(on_device(x).data_handle(), 100, 10);
    REQUIRE(cudaSetDevice(-1) != cudaSuccess);
    CHECK_NOTHROW(
        pare::scale_rows(pare::on(thrust::cuda::par_nosync), on_device(mask), rows, rows));
    CHECK(cudaGetLastError() == cudaErrorInvalidDevice); // theirs still
    CHECK(here(x) == std::vector<float>(1000, 2.0f));
}

TEST_CASE("half precision is stored, sums are made in float") {
    random_source random;
    CAPTURE(random);
    const index_t heads = 3, n = 40, rows = 3000, columns = 24;
    const auto policy = pare::on(thrust::cuda::par);
    const auto rounded = [](std::vector<float> x) {
        for (float& e : x) e = static_cast<float>(__half(e));
        return x;
    };
    const auto halves = [](const std::vector<float>& x) {
        std::vector<__half> y;
        for (float e : x) y.push_back(__half(e));
        return thrust::device_vector<__half>(y.begin(), y.end());
    };
    const std::vector<float> p = rounded(random.vector<float>(heads * n * n, 0, 1));
    auto device_p = halves(p);
    thrust::device_vector<float> scores(static_cast<std::size_t>(n));
    std::vector<float> expected(static_cast<std::size_t>(n));
    pare::importance(pare::seq, pare::view<const float, 3>(p.data(), heads, n, n), expected);
    pare::importance(policy,
                     pare::view<const __half, 3>(on_device(device_p).data_handle(), heads, n, n),
                     on_device(scores));
    const auto found = here(scores);
    for (std::size_t i = 0; i < found.size(); ++i)
        CHECK_THAT(found[i], WithinRel(expected[i], 1e-5f));

    const std::vector<float> x = rounded(random.vector<float>(rows * columns));
    auto device_x = halves(x);
    pare::gram<> sums(columns), expected_sums(columns);
    expected_sums.add(pare::seq, pare::view(x.data(), rows, columns));
    sums.add(policy, pare::view<const __half, 2>(on_device(device_x).data_handle(), rows, columns));
    const auto a = sums.sums(), b = expected_sums.sums();
    for (index_t i = 0; i < columns; ++i)
        for (index_t j = 0; j < columns; ++j) CHECK_THAT(a(i, j), WithinAbs(b(i, j), 1e-2));
}

TEST_CASE("attention of a half type is made by tensor cores") {
    random_source random;
    CAPTURE(random);
    for (const index_t size : {16, 32, 64, 72, 128}) {
        CAPTURE(size);
        const index_t heads = 3, stride = 3 * heads * size;
        const std::vector<int> offsets = {0, 5, 42, 43, 170, 470};
        const index_t tokens = offsets.back();
        std::vector<float> x = random.vector<float>(tokens * stride);
        for (float& e : x) e = static_cast<float>(__half(e));
        std::vector<__half> halves;
        for (float e : x) halves.push_back(__half(e));
        const thrust::device_vector<__half> there(halves.begin(), halves.end());
        thrust::device_vector<int> device_offsets(offsets.begin(), offsets.end());
        thrust::device_vector<__half> device_out(static_cast<std::size_t>(tokens * heads * size));
        thrust::device_vector<float> device_scores(static_cast<std::size_t>(tokens));
        std::vector<float> out(device_out.size()), scores(device_scores.size());
        const auto part = [&](const auto* first, index_t which) {
            return pare::view<std::remove_pointer_t<decltype(first)>, 3>(
                first + which * heads * size, {tokens, heads, size}, {stride, size, 1});
        };
        pare::workspace scratch;
        const float* const here_x = x.data();
        pare::attention(pare::seq, part(here_x, 0), part(here_x, 1), part(here_x, 2), offsets,
                        pare::view<float, 3>(out.data(), tokens, heads, size), scores, {}, scratch);
        const __half* const device_x = thrust::raw_pointer_cast(there.data());
        pare::attention(
            pare::on(thrust::cuda::par), part(device_x, 0), part(device_x, 1), part(device_x, 2),
            on_device(device_offsets),
            pare::view<__half, 3>(on_device(device_out).data_handle(), tokens, heads, size),
            on_device(device_scores), {}, scratch);
        const auto found = here(device_out);
        const auto found_scores = here(device_scores);
        for (std::size_t i = 0; i < out.size(); ++i)
            REQUIRE(std::abs(static_cast<float>(found[i]) - out[i]) < 2e-3f);
        for (std::size_t i = 0; i < scores.size(); ++i)
            REQUIRE(std::abs(found_scores[i] - scores[i]) < 1e-4f * (1 + scores[i]));
    }
}
