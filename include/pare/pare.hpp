// Everything that needs no other library: with the policy `seq`. Add <pare/policy/simd.hpp> for
// xsimd, and <pare/eliminate.hpp>, <pare/tune.hpp> or <pare/ridge.hpp> for what needs Eigen.
#pragma once

#include "attention.hpp"
#include "attention_scores.hpp"
#include "cache.hpp"
#include "class_gradients.hpp"
#include "compact.hpp"
#include "cost.hpp"
#include "distance_buckets.hpp"
#include "fisher.hpp"
#include "importance.hpp"
#include "loss_curve.hpp"
#include "merge.hpp"
#include "policy/seq.hpp"
#include "rearrange.hpp"
#include "search.hpp"
#include "shrink.hpp"
#include "soft_mask.hpp"
#include "version.hpp"
