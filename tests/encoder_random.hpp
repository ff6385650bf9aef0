// Random texts for the encoder's tests.
#pragma once

#include "support.hpp"

#include <encoder/text/text.hpp>

/// `count` sequences of `shortest` to `longest` words of the model.
inline std::vector<encoder::sequence> random_texts(const encoder::model& m, index_t count,
                                                   index_t shortest, index_t longest,
                                                   random_source& random) {
    std::vector<encoder::sequence> all;
    for (index_t i = 0; i < count; ++i) {
        encoder::sequence s;
        for (index_t n = random.integer(shortest, longest); n > 0; --n)
            s.push_back(static_cast<std::int32_t>(random.integer(0, m.config.vocabulary - 1)));
        all.push_back(std::move(s));
    }
    return all;
}
