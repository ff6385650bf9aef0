// What a run of learn_thresholds finds out, for its report, its page and the eye.
#pragma once

#include "encoder/report/page.hpp"
#include "encoder/task/quality.hpp"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace encoder {

struct measured {
    double metric, macs_ratio;
    std::vector<double> kept; ///< a layer each, share of all tokens
};
/// `outputs` gets what the network says of the texts that data are measured on.
measured measure_at(engine& net, const dataset& data, matrix& outputs);

/// Other rules for which tokens stay, to compare with.
inline const std::vector<std::string> baseline_names = {"calibrated", "hand-set", "top-k",
                                                        "schedule"};
struct baseline {
    std::string name;
    measured result;
};

struct learning_results {
    double metric_dense;
    measured pruned;
    speed at_32, at_1;
    std::optional<double> gap;
    std::vector<double> thresholds;
    std::vector<operating_point> curve;
    std::vector<baseline> baselines;
    double seconds;
    std::size_t tokens;
};

nlohmann::ordered_json to_json(const learning_results& r);
/// Some of the texts, with the layers in which their tokens leave, and the result's figures.
page to_page(const learning_results& r, const model& m, const std::vector<sequence>& texts,
             const tokenizer& words, const std::string& metric);
/// A table on the standard output; `out` is where the model was written to.
void print(const learning_results& r, const std::string& metric, const std::filesystem::path& out);

} // namespace encoder
