// The bias of attention by distance, one logit at a time.
#pragma once

#include "encoder/network/network.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>

/// What transformers' MPNet adds to the logit of a query and a key at these places.
inline double distance_bias(const encoder::layer& y, Eigen::Index head, Eigen::Index query,
                            Eigen::Index key) {
    if (y.distance_bias.size() == 0) return 0;
    const Eigen::Index of_way = y.distance_bias.rows() / 2, alone = of_way / 2;
    const Eigen::Index away = std::abs(key - query);
    Eigen::Index bucket = away;
    if (away >= alone) {
        const double share = std::log(static_cast<double>(away) / static_cast<double>(alone)) /
                             std::log(128.0 / static_cast<double>(alone));
        bucket =
            alone + static_cast<Eigen::Index>(share * static_cast<double>(of_way - alone) + 1e-9);
    }
    bucket = std::min(bucket, of_way - 1);
    return static_cast<double>(y.distance_bias(key > query ? of_way + bucket : bucket, head));
}
