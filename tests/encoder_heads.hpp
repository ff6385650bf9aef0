// Models with heads that say something of each token.
#pragma once

#include "encoder_fixtures.hpp"

#include <encoder/files/heads.hpp>

#include <random>

/// As transformers has it of the model's family, with random weights.
inline encoder::model with_head_on_tokens(encoder::model m, encoder::head::subject of,
                                          Eigen::Index outputs) {
    const encoder::stock_head* const stock =
        encoder::find_stock_head(m.json["model_type"].get<std::string>(), of);
    REQUIRE(stock != nullptr);
    std::mt19937 engine(7);
    std::normal_distribution<float> normal(0, 0.3f);
    m.head =
        encoder::head{{encoder::matrix(outputs, m.config.hidden), encoder::vector::Zero(outputs)},
                      std::nullopt,
                      stock->between,
                      stock,
                      of};
    for (float& w : m.head->output.weight.reshaped()) w = normal(engine);
    m.others.clear();
    m.config.pooling = encoder::pooling::cls;
    m.json["architectures"] = {stock->architecture};
    return m;
}
