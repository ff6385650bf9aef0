// Widths by losses, costs, multiples and minimums that may be anything, against all choices tried;
// costs, curves, and formulas fitted to costs.
#include "fuzz.hpp"

#include <pare/loss_curve.hpp>
#include <pare/policy/seq.hpp>
#include <pare/rearrange.hpp>
#include <pare/search.hpp>

#include <cmath>

namespace {

using namespace pare;
using fuzz::bytes;

prunable sublayer(bytes& in) {
    const index_t units = in.up_to(4);
    const bool any = in.up_to(15) == 1;
    const auto cost = [&] { return any ? in.number<double>() : static_cast<double>(in.up_to(20)); };
    std::vector<double> costs, losses;
    for (index_t k = 0; k <= units; ++k) costs.push_back(cost());
    for (index_t k = in.about(units + 1); k > 0; --k) losses.push_back(cost());
    prunable s{losses, cost_table(costs)};
    s.multiple = in.flag() ? 1 : in.number<index_t>();
    s.at_least = in.flag() ? 0 : in.number<index_t>();
    return s;
}

/// The least loss of all choices within the budget; infinite if there is none.
double least_loss(const std::vector<prunable>& all, std::size_t from, double budget, double cost,
                  double loss) {
    if (from == all.size()) return cost <= budget ? loss : std::numeric_limits<double>::infinity();
    const prunable& s = all[from];
    double least = std::numeric_limits<double>::infinity();
    for (index_t k = 0; k <= s.units(); ++k)
        if (k % s.multiple == 0 && k >= s.at_least)
            least =
                std::min(least, least_loss(all, from + 1, budget, cost + s.cost(k),
                                           loss + s.loss[static_cast<std::size_t>(s.units() - k)]));
    return least;
}

void search(bytes& in) {
    std::vector<prunable> all;
    if (fuzz::refused([&] {
            for (index_t n = in.up_to(4); n > 0; --n) all.push_back(sublayer(in));
            if (in.up_to(7) == 1) all = {tied(all)};
        }))
        return;
    const double most = in.flag() ? INFINITY : in.number<double>();
    const double gap = in.flag() ? 1e-3 : std::max(0., in.number<double>());
    if (gap < 1e-3 && gap > 0) return; // asks for as much memory, and that is no fault
    const double budget = in.flag() ? in.up_to(80) : in.number<double>();
    fuzz::refused([&] {
        const width_search found(all, most, gap);
        const width_choice best = found.best(budget);
        const double bound = found.bound(budget);
        found.front();
        double largest = 0, dearest = 0; // number; sum of the sublayers' largest costs
        for (const prunable& s : all) {
            EXPECT(s.multiple >= 1 && static_cast<index_t>(s.loss.size()) == s.units() + 1);
            double cost = 0;
            for (index_t k = 0; k <= s.units(); ++k) cost = std::max(cost, s.cost(k));
            for (const double loss : s.loss) {
                EXPECT(std::isfinite(loss));
                largest = std::max(largest, std::abs(loss));
            }
            largest = std::max(largest, cost);
            dearest += cost;
        }
        if (largest > 1e9) return; // roundings would hide everything
        const double slack = 1e-9 * (1 + largest);
        const double least = least_loss(all, 0, budget, 0, 0);
        EXPECT(best.feasible == std::isfinite(least));
        if (budget <= most) EXPECT(bound <= least + slack);
        if (!best.feasible) return;
        EXPECT(best.kept.size() == all.size() && best.cost <= budget);
        double cost = 0, loss = 0;
        for (std::size_t l = 0; l < all.size(); ++l) {
            const index_t k = best.kept[l];
            EXPECT(k >= all[l].at_least && k <= all[l].units() && k % all[l].multiple == 0);
            cost += all[l].cost(k);
            loss += all[l].loss[static_cast<std::size_t>(all[l].units() - k)];
        }
        EXPECT(std::abs(cost - best.cost) <= slack && std::abs(loss - best.loss) <= slack);
        EXPECT(best.loss >= least - slack);
        // No worse than what costs less than the budget by the gap.
        const double within = std::min(budget, most) - gap * std::min(std::max(0., most), dearest);
        EXPECT(best.loss <= least_loss(all, 0, within - slack, 0, 0) + slack);
    });
}

void sort(bytes& in) {
    const auto importance = in.numbers<float>(in.up_to(12));
    fuzz::refused([&] {
        const loss_curve curve = sorted_losses(importance);
        const auto mask = curve.mask(in.number<index_t>());
        EXPECT(mask.size() == importance.size());
    });
}

void fit(bytes& in) {
    const index_t n = in.up_to(9);
    const auto kept = in.numbers<std::int8_t>(n);
    const auto cost = in.numbers<double>(in.about(n));
    fuzz::refused([&] {
        const hinge_cost h = fit_hinge(kept, cost);
        EXPECT(h.knee >= 0 && !(h.constant < 0) && !(h.each < 0));
    });
    fuzz::refused([&] {
        const length_moments m = moments_of_lengths(kept);
        EXPECT(m.mean > 0 && m.pairs >= m.mean);
    });
}

void exchange(bytes& in) {
    const index_t n = in.up_to(8);
    auto block = in.numbers<double>(n * n);
    for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < i; ++j)
            block[static_cast<std::size_t>(i * n + j)] = block[static_cast<std::size_t>(j * n + i)];
    auto mask = in.numbers<std::uint8_t>(in.about(n));
    rearrange_options options;
    options.ridge = in.number<double>();
    options.max_sweeps = in.number<index_t>();
    const auto kept = [&] { return std::count(mask.begin(), mask.end(), 0); };
    const auto before = kept();
    if (!fuzz::refused([&] { rearrange(seq, view(block.data(), n, n), mask, options); }))
        EXPECT(kept() == before);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    bytes in(data, size);
    switch (in.up_to(5)) {
    case 0:
        sort(in);
        break;
    case 1:
        fit(in);
        break;
    case 2:
        exchange(in);
        break;
    default:
        search(in);
        break;
    }
    return 0;
}
