#include "metrics.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace encoder {
namespace {

/// From 1.
std::vector<double> ranks(const std::vector<double>& values) {
    std::vector<std::size_t> order(values.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](auto a, auto b) { return values[a] < values[b]; });
    std::vector<double> result(values.size());
    for (std::size_t i = 0, j; i < order.size(); i = j) {
        for (j = i; j < order.size() && values[order[j]] == values[order[i]];) ++j;
        for (std::size_t k = i; k < j; ++k) result[order[k]] = static_cast<double>(i + 1 + j) / 2;
    }
    return result;
}

} // namespace

double pearson(const std::vector<double>& a, const std::vector<double>& b) {
    const auto n = static_cast<double>(a.size());
    const double ma = std::accumulate(a.begin(), a.end(), 0.0) / n;
    const double mb = std::accumulate(b.begin(), b.end(), 0.0) / n;
    double ab = 0, aa = 0, bb = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        ab += (a[i] - ma) * (b[i] - mb);
        aa += (a[i] - ma) * (a[i] - ma);
        bb += (b[i] - mb) * (b[i] - mb);
    }
    return ab / std::sqrt(aa * bb);
}

double spearman(const std::vector<double>& a, const std::vector<double>& b) {
    return pearson(ranks(a), ranks(b));
}

class_counts::class_counts(Eigen::Index classes)
    : there(Eigen::VectorXd::Zero(classes)), found(there), right(there) {}

void class_counts::add(Eigen::Index is, Eigen::Index taken) {
    ++there(is);
    ++found(taken);
    if (is == taken) ++right(is);
}

double accuracy(const class_counts& counts) {
    return counts.right.sum() / counts.there.sum();
}

double f1(const class_counts& counts) {
    // 2 right / (there + found) is the harmonic mean of precision and recall.
    const Eigen::VectorXd both = counts.there + counts.found;
    const auto of = [&](Eigen::Index k) {
        return both(k) > 0 ? 2 * counts.right(k) / both(k) : 0.;
    };
    if (both.size() == 2) return of(1);
    double sum = 0;
    for (Eigen::Index k = 0; k < both.size(); ++k) sum += of(k);
    return sum / static_cast<double>((both.array() > 0).count());
}

double matthews(const class_counts& counts) {
    const Eigen::VectorXd &there = counts.there, &found = counts.found;
    const double all = there.sum(), square = all * all;
    const double spread = (square - there.squaredNorm()) * (square - found.squaredNorm());
    return spread > 0 ? (all * counts.right.sum() - there.dot(found)) / std::sqrt(spread) : 0;
}

} // namespace encoder
