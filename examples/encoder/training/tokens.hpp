// Dropping tokens of a sentence encoder without training: what to keep, from sample text, and what
// it saves.
#pragma once

#include "encoder/network/network.hpp"
#include "encoder/text/text.hpp"

#include <vector>

namespace encoder {

/// Multiply-adds of a layer, by what they grow with.
struct layer_costs {
    double projections, ///< a token that comes in
        attention,      ///< a pair of those
        rest,           ///< a token that stays
        exit;           ///< a sequence whose tokens that left are guessed
};
layer_costs costs_of(const layer& y, const config& c);

/// Multiply-adds of all layers for what they had to do.
double token_macs(const model& m, const std::vector<token_use>& use);
/// The same with every token.
double dense_token_macs(const model& m, const std::vector<sequence>& sequences);

/// Layer l of L drops the share `most` * (l + 1) / L of the tokens that it sees, up to 0.99: more
/// in each layer, as in learned token pruning (arXiv:2107.00910). By threshold: quantiles of the
/// scores on the text, each layer seeing what the ones before it leave, first tokens not counted; a
/// forward pass over the text. By share (SpAtten, arXiv:2012.09852) or count (a fixed length
/// schedule as PoWER-BERT's, arXiv:2001.08950, from the text's longest): the scores do not matter.
/// All else is as in net.tokens(). most >= 0. `use` gets what the layers had to do for the text.
token_pruning schedule(network& net, const std::vector<sequence>& text, token_pruning::rule by,
                       double most, std::vector<token_use>& use);

/// Exits that leave a token as it is, one for each layer of the model.
std::vector<dense> plain_exits(const model& m);

/// Exits that guess by least squares what tokens of the text become in the dense network: they go
/// into the network's model. A forward pass over the text.
void fit_exits(network& net, const std::vector<sequence>& text);

/// Throws std::invalid_argument: a share of the multiply-adds below the `least` that is possible.
[[noreturn]] void fail_as_too_small(double share, double least);

/// The schedule whose `most` makes the text take at most `share` of the dense multiply-adds, by
/// bisection. Throws std::invalid_argument if there is none.
token_pruning schedule_for(network& net, const std::vector<sequence>& text, token_pruning::rule by,
                           double share);

/// By token of a text, the layer in which it leaves by the network's rules; the number of layers if
/// it stays.
std::vector<std::size_t> layers_of_leaving(network& net, const sequence& text);

} // namespace encoder
