// What a run of prune_encoder finds out, for its report, its page and the eye.
#pragma once

#include "budget.hpp"
#include "encoder/report/page.hpp"
#include "encoder/task/quality.hpp"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace encoder {

struct pruning_results {
    double macs_dense, macs_ratio;
    std::int64_t parameters_dense, parameters_pruned;
    std::uintmax_t bytes_dense, bytes_pruned;
    std::vector<Eigen::Index> heads_dense, heads, filters_dense, filters;   // of each layer
    std::vector<Eigen::Index> queries_dense, queries, values_dense, values; // numbers of a head's
    std::vector<quality> quality_dense, quality_pruned;
    quality alike;
    double difference;                // of outputs, to the dense model with masks
    double loss_expected, loss_bound; // by the criterion
    struct promise {
        double promised, achieved;
    };
    std::optional<promise> latency; // by the dense model's
    std::map<const char*, pare::hinge_cost> fits;
    encoder::speed speed;
    std::int64_t texts_a_batch; // of those
    std::map<std::string, double> seconds;
    int threads;
    std::size_t texts;
    std::vector<std::string> notes;
};

/// A model pruned to a budget.
struct measured_budget {
    double share, quality, tokens_per_second;
};

nlohmann::ordered_json to_json(const pruning_results& r);
/// A page of what is kept, and of what budgets of this kind cost: measured, and on the front.
page to_page(const pruning_results& r, budget_kind kind, const std::vector<pricing::choice>& front,
             const std::vector<measured_budget>& points);
/// A table on the standard output; `out` is where the model was written to.
void print(const pruning_results& r, const std::filesystem::path& out);

} // namespace encoder
