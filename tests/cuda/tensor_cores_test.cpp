// What tensor cores do, instruction by instruction, against loops; and attention by them, with its
// scores, against float on the host. Memory is the device's own.
#include "../distance_biases.hpp"
#include "../policies.hpp"
#include "../support.hpp"
#include <pare/attention_scores.hpp>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <thrust/device_vector.h>

#include <algorithm>

namespace {

template <class T>
T* raw(thrust::device_vector<T>& x) {
    return thrust::raw_pointer_cast(x.data());
}
template <class T>
std::vector<T> here(const thrust::device_vector<T>& x) {
    std::vector<T> values(x.size());
    thrust::copy(x.begin(), x.end(), values.begin());
    return values;
}
template <class T>
std::vector<T> rounded(const std::vector<float>& x) {
    std::vector<T> y;
    for (float e : x) y.push_back(static_cast<T>(e));
    return y;
}

using pare::detail::left_fragment;
using pare::detail::per_lane;
using pare::detail::right_fragment;
using pare::detail::sum_fragment;

// One warp: c [16 x 8] = a [16 x 16] b, where b' [8 x 16] is in rows (columns = true) or b [16 x 8].
template <class T, bool Columns>
__global__ void multiply_once(const T* a, const T* b, float* c) {
    __shared__ __align__(128) T tiles[2][16 * 32];
    using places = pare::detail::swizzled<32>;
    const int lane = static_cast<int>(threadIdx.x);
    for (int i = lane; i < 16 * 32; i += 32) {
        tiles[0][places::at(i / 32, i % 32 / 8) + i % 8] = a[i];
        tiles[1][places::at(i / 32, i % 32 / 8) + i % 8] = b[i];
    }
    __syncwarp();
    per_lane<sum_fragment[2]> sums; // of 16 columns
    for (int i = 0; i < 8; ++i) sums[lane][i / 4][i % 4] = 0;
    for (int step = 0; step < (Columns ? 2 : 1); ++step) {
        per_lane<left_fragment> left, right;
        pare::detail::load_left<32>(tiles[0], 0, step,
                                    [&](int l) -> left_fragment& { return left[l]; });
        if (Columns)
            pare::detail::load_columns<32>(tiles[1], 0, step,
                                           [&](int l) -> left_fragment& { return right[l]; });
        else
            pare::detail::load_rows<32>(tiles[1], 0, step,
                                        [&](int l) -> left_fragment& { return right[l]; });
        for (int half = 0; half < 2; ++half)
            pare::detail::multiply_add<T>(
                [&](int l) -> sum_fragment& { return sums[l][half]; },
                [&](int l) -> const left_fragment& { return left[l]; },
                [&](int l) {
                    return right_fragment{right[l][2 * half], right[l][2 * half + 1]};
                });
    }
    for (int half = 0; half < 2; ++half)
        for (int i = 0; i < 4; ++i)
            c[(lane / 4 + i / 2 * 8) * 16 + 8 * half + lane % 4 * 2 + i % 2] = sums[lane][half][i];
}

__global__ void fold_and_power(const float* x, float* sums, float* powers) {
    const int lane = static_cast<int>(threadIdx.x);
    per_lane<float> own;
    own[lane] = x[lane];
    powers[lane] = pare::detail::power_of_two(x[lane]);
    pare::detail::fold_lanes<4>([&](int l) -> float& { return own[l]; },
                                [](float a, float b) { return a + b; });
    sums[lane] = own[lane];
}

template <class T>
__global__ void pack_and_copy(const float* x, std::uint32_t* two, const T* from, T* to) {
    __shared__ __align__(16) T tile[32 * 8];
    const int lane = static_cast<int>(threadIdx.x);
    two[lane] = pare::detail::pack_two<T>(x[lane], x[31 - lane]);
    pare::detail::copy_later(tile, 8 * lane, from + 8 * lane, lane % 3 != 0);
    pare::detail::wait_for_copies();
    __syncwarp();
    for (int e = 0; e < 8; ++e) to[8 * lane + e] = tile[8 * lane + e];
}

template <class T>
void check_products(random_source& random) {
    const auto a = rounded<T>(random.vector<float>(16 * 32)),
               b = rounded<T>(random.vector<float>(16 * 32));
    const thrust::device_vector<T> there_a(a.begin(), a.end()), there_b(b.begin(), b.end());
    thrust::device_vector<float> there_c(16 * 16);
    const auto number = [](const std::vector<T>& x, int row, int column) {
        return static_cast<float>(x[static_cast<std::size_t>(row * 32 + column)]);
    };
    for (const bool columns : {true, false}) {
        (columns ? multiply_once<T, true> : multiply_once<T, false>)<<<1, 32>>>(
            thrust::raw_pointer_cast(there_a.data()), thrust::raw_pointer_cast(there_b.data()),
            raw(there_c));
        const auto c = here(there_c);
        for (int i = 0; i < 16; ++i)
            for (int j = 0; j < 16; ++j) {
                real sum = 0;
                for (int k = 0; k < (columns ? 32 : 16); ++k)
                    sum += static_cast<real>(number(a, i, k)) *
                           static_cast<real>(columns ? number(b, j, k) : number(b, k, j));
                CAPTURE(columns, i, j);
                REQUIRE(distance(c[static_cast<std::size_t>(i * 16 + j)], sum) < 1e-5L);
            }
    }
}

template <class T>
void check_copies(random_source& random) {
    const auto x = random.vector<float>(32);
    const auto from = rounded<T>(random.vector<float>(32 * 8));
    const thrust::device_vector<float> there_x(x.begin(), x.end());
    const thrust::device_vector<T> there(from.begin(), from.end());
    thrust::device_vector<std::uint32_t> two(32);
    thrust::device_vector<T> to(from.size());
    pack_and_copy<<<1, 32>>>(thrust::raw_pointer_cast(there_x.data()), raw(two),
                             thrust::raw_pointer_cast(there.data()), raw(to));
    const auto pairs = here(two);
    const auto found = here(to);
    for (std::size_t i = 0; i < 32; ++i) {
        const T numbers[2] = {static_cast<T>(x[i]), static_cast<T>(x[31 - i])};
        CHECK(std::memcmp(numbers, &pairs[i], sizeof numbers) == 0);
        for (std::size_t e = 8 * i; e < 8 * i + 8; ++e)
            CHECK(static_cast<float>(found[e]) == (i % 3 ? static_cast<float>(from[e]) : 0.0f));
    }
}

template <class T>
void check_attention(random_source& random, const pare::attention_options<float>& options,
                     index_t size, index_t odd, float allowed, bool biased = false,
                     bool relative = false) {
    const index_t heads = 4, groups = 2, stride = (heads + 2 * groups) * size + 8;
    const std::vector<int> offsets = {0, 5, 42, 43, 170, 470};
    const index_t tokens = offsets.back();
    auto x = random.vector<float>(tokens * stride);
    for (float& e : x) e = static_cast<float>(static_cast<T>(e));
    auto halves = rounded<T>(x);
    halves.insert(halves.begin(), static_cast<std::size_t>(odd), static_cast<T>(0.0f));
    thrust::device_vector<T> there(halves.begin(), halves.end());
    thrust::device_vector<int> there_offsets(offsets.begin(), offsets.end());
    thrust::device_vector<T> there_out(static_cast<std::size_t>(tokens * heads * size));
    thrust::device_vector<float> there_scores(static_cast<std::size_t>(tokens)),
        again = there_scores;
    const auto part = [&](const auto* first, int which) {
        const index_t at[] = {0, heads * size, (heads + groups) * size};
        return pare::view<std::remove_pointer_t<decltype(first)>, 3>(
            first + at[which], {tokens, which == 0 ? heads : groups, size}, {stride, size, 1});
    };
    const pare::view<const int, 1> device_offsets(raw(there_offsets), offsets.size());

    const auto key_bias = random.vector<float>(tokens, -3, 0);
    const std::vector<float> slopes = {0.5f, 0.25f, 0.0625f, 0};
    const thrust::device_vector<float> there_bias(key_bias.begin(), key_bias.end()),
        there_slopes(slopes.begin(), slopes.end());
    const distance_table<float> table(heads, 70, random);
    const auto positions = random_positions(offsets, random);
    const pare::view<const float, 2> distances = table.view();
    const thrust::device_vector<float> there_table(
        distances.data_handle(), &distances(heads - 1, distances.extent(1) - 1) + 1);
    const thrust::device_vector<std::int32_t> there_positions(positions.begin(), positions.end());
    auto o = options;
    pare::attention_options<T> same;
    same.mask = o.mask;
    same.queries = o.queries;
    if (biased) {
        o.key_bias = pare::view<const float, 1>(key_bias.data(), tokens);
        o.head_slopes = pare::view<const float, 1>(slopes.data(), heads);
        same.key_bias =
            pare::view<const float, 1>(thrust::raw_pointer_cast(there_bias.data()), tokens);
        same.head_slopes =
            pare::view<const float, 1>(thrust::raw_pointer_cast(there_slopes.data()), heads);
    }

    if (relative) {
        o.distance_bias = distances;
        o.positions = positions;
        same.distance_bias = {thrust::raw_pointer_cast(there_table.data()),
                              {heads, distances.extent(1)},
                              {distances.stride(0), distances.stride(1)}};
        same.positions = pare::view<const std::int32_t, 1>(
            thrust::raw_pointer_cast(there_positions.data()), tokens);
    }

    // Rows by another attention, of the host.
    std::vector<float> out(there_out.size()), scores(there_scores.size()), lse;
    pare::workspace scratch;
    const float* const here_x = x.data();
    pare::attention(pare::seq, part(here_x, 0), part(here_x, 1), part(here_x, 2), offsets,
                    pare::view<float, 3>(out.data(), tokens, heads, size), scores, o, scratch);
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
        for (index_t i = offsets[s]; i < offsets[s + 1]; ++i)
            for (index_t h = 0; h < heads; ++h) {
                double sum = 0;
                for (index_t j = offsets[s]; j < offsets[s + 1]; ++j) {
                    if ((o.mask.causal && j > i) ||
                        (o.mask.window > 0 && std::abs(i - j) >= o.mask.window))
                        continue;
                    double logit = 0;
                    for (index_t e = 0; e < size; ++e)
                        logit +=
                            double(part(here_x, 0)(i, h, e)) * double(part(here_x, 1)(j, h / 2, e));
                    logit /= std::sqrt(double(size));
                    if (biased)
                        logit += double(key_bias[std::size_t(j)]) -
                                 double(slopes[std::size_t(h)]) *
                                     double(std::abs(biased_distance(o, 0, i, j)));
                    if (relative)
                        logit += double(bias_at(distances, h, biased_distance(o, 0, i, j)));
                    sum += std::exp(logit);
                }
                lse.push_back(static_cast<float>(std::log(sum)));
            }
    thrust::device_vector<float> there_lse(lse.begin(), lse.end());

    const auto policy = pare::on(thrust::cuda::par);
    const T* const device_x = raw(there) + odd;
    pare::attention(policy, part(device_x, 0), part(device_x, 1), part(device_x, 2), device_offsets,
                    pare::view<T, 3>(raw(there_out), tokens, heads, size),
                    pare::view<float, 1>(raw(there_scores), tokens), same, scratch);
    pare::attention_scores(policy, part(device_x, 0), part(device_x, 1),
                           pare::view<const float, 2>(raw(there_lse), tokens, heads),
                           device_offsets, pare::view<float, 1>(raw(again), tokens), same, scratch);
    const auto found = here(there_out);
    const auto found_scores = here(there_scores), found_again = here(again);
    float worst = 0, worst_score = 0;
    for (std::size_t i = 0; i < out.size(); ++i)
        worst = std::max(worst, std::abs(static_cast<float>(found[i]) - out[i]));
    for (std::size_t i = 0; i < scores.size(); ++i)
        worst_score =
            std::max({worst_score, std::abs(found_scores[i] - scores[i]) / (1 + scores[i]),
                      std::abs(found_again[i] - scores[i]) / (1 + scores[i])});
    CHECK(worst < allowed);
    CHECK(worst_score < 1e-4f);
}

} // namespace

TEST_CASE("products of tensor cores and the loads that feed them") {
    random_source random;
    CAPTURE(random);
    check_products<__half>(random);
    check_products<__nv_bfloat16>(random);
}

TEST_CASE("copies, pairs, sums of four lanes and powers of two") {
    random_source random;
    CAPTURE(random);
    check_copies<__half>(random);
    check_copies<__nv_bfloat16>(random);
    auto x = random.vector<float>(32, -20, 3);
    x[5] = -200;
    x[6] = std::numeric_limits<float>::lowest() / 4;
    const thrust::device_vector<float> there(x.begin(), x.end());
    thrust::device_vector<float> sums(32), powers(32);
    fold_and_power<<<1, 32>>>(thrust::raw_pointer_cast(there.data()), raw(sums), raw(powers));
    const auto found = here(sums), power = here(powers);
    for (std::size_t i = 0; i < 32; ++i) {
        const auto four = i / 4 * 4;
        CHECK_THAT(found[i], WithinRel(x[four] + x[four + 1] + x[four + 2] + x[four + 3], 1e-5f));
        CHECK(std::abs(power[i] - std::exp2(x[i])) <= 3e-7f * std::exp2(x[i]));
    }
    CHECK(power[5] == 0);
    CHECK(power[6] == 0);
}

TEST_CASE("attention and scores by tensor cores") {
    random_source random;
    CAPTURE(random);
    std::vector<pare::attention_options<float>> all(5);
    all[1].mask.causal = true;
    all[2].mask = {true, 30};
    all[3].mask = {false, 200};
    all[4].queries = pare::counted_queries::last(32);
    for (const index_t size : {16, 32, 64, 72, 128})
        for (const auto& o : all) {
            CAPTURE(size, o.mask.causal, o.mask.window);
            check_attention<__half>(random, o, size, 0, 2e-3f);
            check_attention<__nv_bfloat16>(random, o, size, 0, 1.5e-2f);
        }
    check_attention<__half>(random, all[1], 64, 1, 2e-3f);
    for (const auto& o : all) {
        check_attention<__half>(random, o, 64, 0, 2e-3f, true);
        for (const index_t size : {32, 64, 128})
            check_attention<__half>(random, o, size, 0, 2e-3f, size != 64, true);
    }
}
