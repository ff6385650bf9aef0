// Soft masks and sums over segments of rows: any offsets, temperatures, thresholds and units.
#include "scores.hpp"

#include <pare/fisher.hpp>
#include <pare/soft_mask.hpp>

namespace {

using namespace pare;
using fuzz::bytes;
using fuzz::output;

/// call(policy, out) with each policy.
template <class T, int Rank, class Call>
void with_policies(bytes& in, const std::array<index_t, Rank>& extents, const Call& call) {
    const auto with = [&, start = in](const auto& policy) {
        bytes strides = start;
        output<T, Rank> out(strides, extents);
        if (fuzz::refused([&] { call(policy, out.view()); })) {
            EXPECT(out.intact_but(0));
            return std::vector<T>();
        }
        EXPECT(out.intact());
        return out.values();
    };
    EXPECT(fuzz::alike(in, with(seq), with(simd)));
}

template <class T>
void mask_softly(bytes& in) {
    const index_t tokens = in.up_to(40);
    const auto scores = in.numbers<T>(tokens), gradient = in.numbers<T>(in.about(tokens));
    const double threshold = in.number<double>(), temperature = in.number<double>();
    with_policies<T, 1>(in, {in.about(tokens)}, [&](auto& policy, auto mask) {
        soft_mask(policy, scores, threshold, temperature, mask);
        for (index_t i = 0; i < mask.extent(0); ++i) EXPECT(mask(i) >= 0 && mask(i) <= 1);
    });
    with_policies<T, 1>(in, {in.about(tokens)}, [&](auto& policy, auto out) {
        soft_mask_backward(policy, scores, gradient, temperature, out);
    });
}

template <class T, class Offset>
void penalise(bytes& in) {
    index_t tokens = 0;
    const auto offsets = in.offsets<Offset>(4, tokens);
    const auto mask = in.numbers<T>(in.about(tokens)), start = in.numbers<T>(in.about(tokens));
    const double factor = in.number<double>();
    const auto with = [&](const auto& policy) {
        std::vector<T> gradient = start;
        if (fuzz::refused([&] { mask_penalty(policy, mask, offsets, factor, gradient); }))
            EXPECT(fuzz::same_bits(gradient, start));
        return gradient;
    };
    EXPECT(fuzz::alike(in, with(seq), with(simd)));
}

template <class T>
void scale(bytes& in) {
    const index_t rows = in.up_to(9), columns = in.up_to(20);
    const auto mask = in.numbers<T>(in.about(rows)), x = in.numbers<T>(rows * columns),
               dy = in.numbers<T>(rows * columns);
    const std::array<index_t, 2> extents = {in.about(rows), in.about(columns)};
    with_policies<T, 2>(in, extents, [&](auto& policy, auto y) {
        scale_rows(policy, mask, view(x.data(), rows, columns), y);
    });
    with_policies<T, 2>(in, extents, [&](auto& policy, auto dx) {
        std::vector<T> dots(mask.size());
        scale_rows_backward(policy, mask, view(x.data(), rows, columns),
                            view(dy.data(), rows, columns), dx, dots);
    });
}

template <class T, class Offset>
void sum_segments(bytes& in) {
    index_t rows = 0;
    const auto offsets = in.offsets<Offset>(4, rows);
    const index_t unit = in.number<index_t>();
    const index_t units = in.up_to(5),
                  columns = unit > 0 && unit < 16 ? units * unit : in.up_to(20);
    const auto a = in.numbers<T>(rows * columns), da = in.numbers<T>(rows * columns);
    const index_t samples = in.about(static_cast<index_t>(offsets.size()) - 1);
    with_policies<T, 2>(in, {samples, in.about(units)}, [&](auto& policy, auto out) {
        mask_gradients(policy, view(a.data(), rows, columns), view(da.data(), rows, columns),
                       offsets, unit, out);
    });
    with_policies<T, 2>(in, {samples, in.about(columns)}, [&](auto& policy, auto out) {
        sample_sums(policy, view(a.data(), rows, columns), offsets, out);
    });
    output<T, 2> centred(in, {samples, in.about(units)});
    const auto mean = in.numbers<T>(in.about(columns)), sums = in.numbers<T>(samples * columns);
    const bool no = fuzz::refused([&] {
        centre_mask_gradients(view(sums.data(), samples, columns), mean, unit, centred.view());
    });
    EXPECT(centred.intact_but(no ? 0 : samples));
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    bytes in(data, size);
    switch (in.up_to(7)) {
    case 0:
        mask_softly<float>(in);
        break;
    case 1:
        mask_softly<double>(in);
        break;
    case 2:
        penalise<float, std::int32_t>(in);
        break;
    case 3:
        penalise<double, std::uint64_t>(in);
        break;
    case 4:
        scale<float>(in);
        break;
    case 5:
        scale<double>(in);
        break;
    case 6:
        sum_segments<float, std::int32_t>(in);
        break;
    default:
        sum_segments<double, std::uint64_t>(in);
        break;
    }
    return 0;
}
