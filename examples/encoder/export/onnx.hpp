// A model as an ONNX graph, for the engines that read those.
#pragma once

#include "encoder/files/model.hpp"
#include "encoder/files/output.hpp"

#include <string>

namespace encoder {

/// Throws std::invalid_argument if this is a build without ONNX's library.
void check_can_export();

/// The bytes of an ONNX file (opset 17) that gives what a network gives for texts of which no token is
/// dropped: thresholds and exits are left out.
///
/// input_ids, attention_mask  int64 [batch x length]; the mask is 1 for a text's tokens, which stand
///                            side by side, and 0 for padding before or behind them. What the padding
///                            is changes nothing
/// token_type_ids             the same, if the model has more than one type
/// embeddings                 float [batch x m.outputs()], pooled and scaled to length 1; of a model with a
///                            head, instead,
/// logits                     float [batch x outputs], or of a head for labels of tokens
///                            [batch x length x outputs]; of one for answers, instead,
/// start_logits, end_logits   float [batch x length]
///
/// Throws as check_can_export() does, and std::runtime_error for a model of more than 2 GB, which
/// protobuf cannot hold. Complexity: that of copying the weights, twice.
std::string to_onnx(const model& m);

/// A file of what to_onnx() gave, and nothing else: its name is not one that a user wrote.
extern const output::kind written_graph;

} // namespace encoder
