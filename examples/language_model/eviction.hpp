// Rules by which a decoder's cache is kept to some keys a group.
#pragma once

#include "network.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace language {

/// What leaves a layer's cache when tokens have been added to it.
class eviction {
  public:
    virtual ~eviction() = default;
    /// The attention that it goes by, if any.
    virtual scoring scores() const { return {}; }
    /// For each layer of each pass, in their order; see observer.
    virtual void after(index_t layer, layer_cache& c, const matrix& normed,
                       const pare::view<const float, 2>& received) = 0;
};

/// Keys that stay whatever they receive, and how many in all.
struct budget {
    index_t keys, first, last;
};

/// Everything stays.
std::unique_ptr<eviction> keep_all();
/// The first and, of the others, the last (StreamingLLM, arXiv:2309.17453; with first = 0 a window).
std::unique_ptr<eviction> keep_window(const budget& b);
/// Those that received most since they are there (H2O, arXiv:2306.14048).
std::unique_ptr<eviction> keep_heavy(const budget& b);
/// Those that received most from the last queries, with their neighbours (SnapKV, arXiv:2404.14469).
std::unique_ptr<eviction> keep_snap(const budget& b, index_t queries);
/// The same with one budget for all groups of a layer (Ada-KV, arXiv:2407.11550).
std::unique_ptr<eviction> keep_shared(const budget& b, index_t queries);

} // namespace language
