// The smallest encoder that has everything: two layers, a head, exits, thresholds.
#pragma once

#include "../encoder_models.hpp"

namespace fuzz {

inline encoder::model small_model() {
    shape s;
    s.hidden = 4;
    s.head_size = 2;
    s.heads = {2, 2};
    s.filters = {3, 3};
    s.positions = 8;
    model m = make_model(s);
    m.config.max_tokens = s.positions;
    m.head = head{{matrix::Random(3, 4), vector::Random(3)}};
    for (const layer& y : m.layers) // whose values are of their own sizes
        m.exits.push_back(
            {matrix::Random(4, 4 + y.attention_output.weight.cols()), vector::Random(4)});
    m.tokens.numbers = {0.5, 0.9};
    m.curve = {{1, 0.5, 0.75}, {0, 1, NAN}};
    return m;
}

} // namespace fuzz
