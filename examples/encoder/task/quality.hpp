// How good a network's outputs are.
#pragma once

#include "dataset.hpp"

namespace encoder {

/// A measure of quality by name.
struct quality {
    const char* name;
    double value;
};
/// All that say something of the outputs for measured_texts(data); without targets, how alike they are
/// to the teacher's.
std::vector<quality> qualities(const dataset& data, const matrix& outputs);
/// The first of them: accuracy, F1 of entities or of answers, or Spearman's correlation with scores.
double measure(const dataset& data, const matrix& outputs);
/// How alike a model's outputs for some texts are to those of the dense one.
quality likeness(const model& m, const std::vector<sequence>& texts, const matrix& dense,
                 const matrix& pruned);

} // namespace encoder
