// What a network gives, and how far that is from what it should give.
#pragma once

#include "catch.hpp"

#include <encoder/network/network.hpp>

inline encoder::matrix run(const encoder::model& m, const encoder::batch& b) {
    encoder::network net(m);
    encoder::matrix outputs;
    net.forward(b, outputs);
    return outputs;
}

inline float distance(const encoder::matrix& a, const encoder::matrix& b) {
    REQUIRE(a.rows() == b.rows());
    REQUIRE(a.cols() == b.cols());
    return (a - b).cwiseAbs().maxCoeff();
}
