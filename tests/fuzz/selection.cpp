// Which tokens stay, and moving rows, by scores, offsets, counts and positions that may be anything:
// a call refuses them before it writes, or writes what it says and nothing else, in both policies the
// same.
#include "fuzz.hpp"

#include <pare/compact.hpp>
#include <pare/gather.hpp>
#include <pare/policy/simd.hpp>
#include <pare/shrink.hpp>

namespace {

using namespace pare;
using fuzz::bytes;
using fuzz::output;

/// What a choice of tokens by one policy gave; nothing where it was refused.
struct chosen {
    std::vector<std::int64_t> index, offsets;
    bool operator==(const chosen& o) const { return index == o.index && offsets == o.offsets; }
};

/// choose(index, new offsets) returns how many stay.
template <class Index, class Offset, class Choose>
chosen check_choice(bytes in, const std::vector<Offset>& offsets, index_t tokens,
                    const Choose& choose) {
    output<Index, 1> index(in, {in.flag() ? tokens : in.up_to(tokens)}, true);
    output<Offset, 1> kept_offsets(in, {in.about(static_cast<index_t>(offsets.size()))}, true);
    index_t kept = 0;
    if (fuzz::refused([&] { kept = choose(index.view(), kept_offsets.view()); })) {
        EXPECT(index.intact_but(0) && kept_offsets.intact_but(0));
        return {};
    }
    EXPECT(kept >= 0 && kept <= tokens);
    EXPECT(index.intact_but(kept) && kept_offsets.intact());
    chosen result;
    for (index_t i = 0; i < kept; ++i) {
        result.index.push_back(static_cast<std::int64_t>(index.view()(i)));
        EXPECT(result.index[i] < tokens && (i == 0 || result.index[i] > result.index[i - 1]));
    }
    for (const Offset o : kept_offsets.values())
        result.offsets.push_back(static_cast<std::int64_t>(o));
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
        for (std::int64_t i = result.offsets[s]; i < result.offsets[s + 1]; ++i)
            EXPECT(result.index[i] >= static_cast<std::int64_t>(offsets[s]) &&
                   result.index[i] < static_cast<std::int64_t>(offsets[s + 1]));
    EXPECT(result.offsets.front() == 0 && result.offsets.back() == kept);
    return result;
}

template <class T, class Offset, class Index>
void choose_tokens(bytes& in) {
    index_t tokens = 0;
    const auto offsets = in.offsets<Offset>(4, tokens);
    // Offsets and scores may both be other than drawn first, and agree again.
    const auto scores = in.numbers<T>(tokens = in.about(tokens));
    const auto flags = in.numbers<std::uint8_t>(in.flag() ? 0 : in.about(tokens));
    const pins pinned{in.flag() ? in.up_to(2) : in.number<index_t>(),
                      in.flag() ? in.up_to(2) : in.number<index_t>(),
                      view(flags.data(), static_cast<index_t>(flags.size()))};
    if (in.flag()) {
        const double threshold = in.number<double>();
        const auto with = [&](const auto& policy) {
            return check_choice<Index>(in, offsets, tokens, [&](auto&& index, auto&& kept_offsets) {
                return keep_above(policy, scores, threshold, offsets, index, kept_offsets, pinned);
            });
        };
        EXPECT(with(seq) == with(simd));
    } else {
        const index_t one = in.number<index_t>();
        const auto each = in.numbers<int>(in.about(static_cast<index_t>(offsets.size()) - 1));
        const bool alike = in.flag();
        const auto with = [&](const auto& policy) {
            return check_choice<Index>(in, offsets, tokens, [&](auto&& index, auto&& kept_offsets) {
                return alike
                           ? keep_top_k(policy, scores, one, offsets, index, kept_offsets, pinned)
                           : keep_top_k(policy, scores, each, offsets, index, kept_offsets, pinned);
            });
        };
        EXPECT(with(seq) == with(simd));
    }
}

template <class Offset, class Index>
void drop_ranges(bytes& in) {
    index_t tokens = 0;
    const auto offsets = in.offsets<Offset>(4, tokens);
    const auto index = in.positions<Index>(tokens);
    output<Index, 2> ranges(in, {in.up_to(tokens + 4), in.about(2)});
    index_t count = 0;
    if (fuzz::refused([&] { count = dropped_ranges(index, offsets, ranges.view()); })) {
        EXPECT(ranges.intact_but(0));
        return;
    }
    EXPECT(ranges.intact_but(count));
    index_t left = static_cast<index_t>(offsets.back()) - static_cast<index_t>(index.size());
    for (index_t r = 0; r < count; ++r)
        left -=
            static_cast<index_t>(ranges.view()(r, 1)) - static_cast<index_t>(ranges.view()(r, 0));
    EXPECT(left == 0);
}

/// call(policy, positions, from, to) moves rows or columns.
template <class T, class Index, class Call>
void move_some(bytes& in, const std::array<index_t, 2>& from_extents,
               const std::array<index_t, 2>& to_extents, const std::vector<Index>& index,
               const Call& call) {
    const auto values = in.numbers<T>(from_extents[0] * from_extents[1]);
    const view<const T, 2> from(values.data(), from_extents, {from_extents[1], 1});
    const auto with = [&, start = in](const auto& policy) {
        bytes strides = start;
        output<T, 2> to(strides, to_extents);
        if (fuzz::refused([&] { call(policy, index, from, to.view()); })) {
            EXPECT(to.intact_but(0));
            return std::vector<T>();
        }
        EXPECT(to.intact());
        return to.values();
    };
    EXPECT(fuzz::same_bits(with(seq), with(simd)));
}

template <class T, class Index>
void move_rows(bytes& in) {
    const index_t rows = in.up_to(20), columns = in.up_to(9);
    const auto index = in.positions<Index>(rows);
    const auto kept = static_cast<index_t>(index.size());
    const std::array<index_t, 2> all = {rows, columns}, few = {in.about(kept), in.about(columns)},
                                 narrow = {in.about(columns), in.about(kept)};
    switch (in.up_to(3)) {
    case 0:
        return move_some<T>(in, all, few, index, [](auto& policy, auto& i, auto from, auto to) {
            gather_rows(policy, i, from_to(from, to));
        });
    case 1:
        return move_some<T>(in, few, all, index, [](auto& policy, auto& i, auto from, auto to) {
            restore(policy, i, from_to(from, to));
        });
    case 2:
        return move_some<T>(in, all, few, index, [](auto& policy, auto& i, auto from, auto to) {
            keep_rows(policy, from, i, to);
        });
    default:
        return move_some<T>(
            in, {columns, rows}, narrow, index,
            [](auto& policy, auto& i, auto from, auto to) { keep_columns(policy, from, i, to); });
    }
}

/// In place: several arrays, each of its own width and strides.
template <class Index>
void close_up(bytes& in) {
    const index_t rows = in.up_to(20);
    const auto index = in.positions<Index>(rows);
    const auto with = [&, start = in](const auto& policy) {
        bytes strides = start;
        output<float, 2> wide(strides, {strides.about(rows), strides.up_to(9)});
        output<std::int64_t, 1> ids(strides, {strides.about(rows)});
        for (index_t i = 0; i < ids.view().extent(0); ++i) ids.view()(i) = i;
        const auto before = ids.values();
        const bool no = fuzz::refused([&] { gather_rows(policy, index, wide.view(), ids.view()); });
        EXPECT(wide.intact() && ids.intact());
        const auto after = ids.values();
        for (std::size_t i = 0; i < after.size(); ++i)
            EXPECT(after[i] ==
                   (no || i >= index.size() ? before[i] : static_cast<std::int64_t>(index[i])));
    };
    with(seq);
    with(simd);
}

template <class Index>
void keep_units(bytes& in) {
    const auto mask = in.numbers<std::uint8_t>(in.up_to(9));
    const auto units = static_cast<index_t>(mask.size());
    const index_t unit = in.number<index_t>(), parts = in.number<index_t>();
    const auto scales = in.numbers<float>(units);
    output<float, 2> weight(in, {in.up_to(3), in.up_to(40)});
    fuzz::refused([&] { fold_scales(scales, unit, weight.view()); });
    EXPECT(weight.intact());

    if ((unit > 16 || parts > 16) && !std::is_same_v<Index, std::uint8_t>)
        return; // as many positions are asked for, and that is no fault
    std::vector<Index> positions;
    if (fuzz::refused([&] { positions = kept_positions<Index>(mask, unit, parts); })) return;
    for (std::size_t i = 0; i < positions.size(); ++i)
        EXPECT(static_cast<index_t>(positions[i]) < units * unit * parts &&
               (i == 0 || positions[i] > positions[i - 1]));
    const auto bias = in.numbers<double>(units * unit * parts);
    output<double, 1> kept(in, {in.about(static_cast<index_t>(positions.size()))});
    const bool no = fuzz::refused([&] { keep_entries(simd, bias, positions, kept.view()); });
    EXPECT(kept.intact_but(no ? 0 : kept.view().extent(0)));
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    bytes in(data, size);
    switch (in.up_to(10)) {
    case 0:
        choose_tokens<float, std::int32_t, std::int32_t>(in);
        break;
    case 1:
        choose_tokens<double, std::int64_t, std::uint16_t>(in);
        break;
    case 2:
        choose_tokens<float, std::uint64_t, std::int64_t>(in);
        break;
    case 3:
        drop_ranges<std::int32_t, std::int32_t>(in);
        break;
    case 4:
        drop_ranges<std::int64_t, std::uint64_t>(in);
        break;
    case 5:
        move_rows<float, std::int32_t>(in);
        break;
    case 6:
        move_rows<std::int8_t, std::uint64_t>(in);
        break;
    case 7:
        close_up<std::int32_t>(in);
        break;
    case 8:
        close_up<std::int64_t>(in);
        break;
    case 9:
        keep_units<int>(in);
        break;
    default:
        keep_units<std::uint8_t>(in);
        break;
    }
    return 0;
}
