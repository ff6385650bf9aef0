// Checks of what a network is given, before any work. All throw std::invalid_argument.
#pragma once

#include "network.hpp"

#include <string>

namespace encoder {

/// Every matrix of every layer has the shape that the config and its neighbours ask for, and so has
/// the head, of at least one output.
void check(const model& m);
/// No numbers, or a finite one of at least 0 for each layer, as alpha is one.
void check(const token_pruning& p, std::size_t layers);
/// The temperature is finite and not negative; there is a weight for each layer, or none.
void check(const learning& how, std::size_t layers);
/// Offsets run over the ids; sequences are not empty nor longer than the model's positions; ids are
/// in the vocabulary of one of the token types.
void check(const batch& b, const config& c);

/// A mask for each layer or none; where a layer has one, a value a unit. Makes empty ones of none.
void complete(network::masks& masks, const model& m);

/// A model of gradients has the shapes of the weights.
void check_gradients(model& gradients, model& weights);

void check_shape(const std::string& name, const matrix& m, Eigen::Index rows, Eigen::Index columns);
void check_shape(const std::string& name, const dense& d, Eigen::Index rows, Eigen::Index columns);
void check_size(const std::string& name, const vector& v, Eigen::Index size);

/// Throws with `what` after the name of the class.
[[noreturn]] void fail(const std::string& what);

} // namespace encoder
