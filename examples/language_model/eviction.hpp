// Rules by which a decoder's cache is kept to some keys a group.
#pragma once

#include "network.hpp"

#include <memory>

namespace language {

/// What leaves the caches of one text when tokens have been added to them.
class eviction {
  public:
    virtual ~eviction() = default;
    /// The attention that it goes by, if any.
    virtual scoring scores() const { return {}; }
    /// For each layer of each pass, in their order.
    virtual void after(const layer_pass& p) = 0;
    /// How many keys a group of a layer may have behind a pass, of a text of `length` tokens.
    virtual index_t most_keys(index_t, index_t length) const { return length; }
};

/// A number for each group of each layer, [layers x groups of the one that has most]; those that a layer
/// does not have are not used.
template <class T>
using of_groups = Eigen::Array<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// How many keys stay, and the ones that stay whatever they receive.
struct budget {
    of_groups<index_t> keys;
    index_t first, last;
};

/// Everything stays.
std::unique_ptr<eviction> keep_all();
/// The first and, of the others, the last (StreamingLLM, arXiv:2309.17453; with first = 0 a window).
std::unique_ptr<eviction> keep_window(const budget& b);
/// Those that received most since they are there (H2O, arXiv:2306.14048).
std::unique_ptr<eviction> keep_heavy(const budget& b);
/// Those that received most of the average query since they are there.
std::unique_ptr<eviction> keep_attended(const budget& b);
/// Those of which the average query gave not less than their group's threshold since they are there, and
/// the first and the last; how many these are depends on the text.
std::unique_ptr<eviction> keep_thresholds(const of_groups<float>& thresholds, index_t first,
                                          index_t last);
/// Those that received most from the last queries, with their neighbours (SnapKV, arXiv:2404.14469).
std::unique_ptr<eviction> keep_snap(const budget& b, index_t queries);
/// The same with one budget for all groups of a layer (Ada-KV, arXiv:2407.11550).
std::unique_ptr<eviction> keep_shared(const budget& b, index_t queries);

} // namespace language
