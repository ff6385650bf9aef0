// How far a network's outputs are from what it is to learn.
#pragma once

#include "dataset.hpp"

namespace encoder {

/// What loss() is the mean of: examples or, to tag, their tokens that have a class; with a teacher all
/// tokens.
std::size_t counted(const dataset& data, const std::vector<std::size_t>& examples);

/// The mean loss of some of the data's examples, whose outputs are given in this order, and its
/// gradient. With a teacher, how far its outputs are: the divergence of classes' probabilities from
/// its (Kullback and Leibler's), the square of scores' differences, or 1 - cosine of embeddings.
/// Without, to classify and to tag, the cross entropy; to regress, the square of score minus target;
/// for similarity, that of cosine minus target. To answer, each text's tokens are the classes that its
/// answer begins at, and those that it ends at: the mean of both. A token that was dropped is no such
/// class: what the teacher gives the others is taken as all, and an end that is right has no loss.
double loss(const dataset& data, const std::vector<std::size_t>& examples, const matrix& outputs,
            matrix& gradient);

} // namespace encoder
