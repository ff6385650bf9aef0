// A batch in the memory of a Thrust policy, one copy for all that is known of it beforehand, and what
// is kept of its way through a network.
#pragma once

#include "device_memory.hpp"
#include "encoder/network/check.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>

namespace encoder::device {

/// A token's place. Batches have no more tokens than it counts.
using place = std::int32_t;

/// Where packed sequences begin [count + 1], in both memories, which belong to a packed_batch.
struct sequences {
    const place *here = nullptr, *there = nullptr;
    index_t count = 0;

    index_t tokens() const { return here[count]; }
    index_t length(index_t s) const { return here[s + 1] - here[s]; }
    view<const place, 1> offsets() const { return {there, count + 1}; }
};

/// The tokens of a batch, where its sequences begin, and where they do behind each layer in which
/// tokens leave. Host and policy have each the same array: offsets, ids, places of the tokens in
/// their sequences, and offsets behind layers.
template <class Policy>
class packed_batch {
  public:
    /// Takes a batch, of which nothing is there yet, with `layers` sets of offsets that are to be
    /// written: here before upload(), or there and fetched.
    void take(const Policy& policy, const batch& b, index_t layers) {
        if (b.tokens() > std::numeric_limits<place>::max() - b.sequences())
            fail("a batch of " + std::to_string(b.tokens()) + " tokens");
        tokens_ = b.tokens();
        count_ = b.sequences();
        const index_t size = set(layers + 1);
        if (!host_ || size > room_) {
            host_.reset();
            host_.reset(new staging(policy.template staging<place>(size)));
            room_ = size;
        }
        there_.get(policy, size);
        host_->wait(); // the last batch's copy
        place* const to = host_->data();
        for (index_t s = 0; s <= count_; ++s)
            to[s] = static_cast<place>(b.offsets[static_cast<std::size_t>(s)]);
        std::copy(b.ids.begin(), b.ids.end(), to + count_ + 1);
        place* at = to + count_ + 1 + tokens_;
        for (index_t s = 0; s < count_; ++s)
            for (place i = 0; i < to[s + 1] - to[s]; ++i) *at++ = i;
    }
    /// Queues the copy, with `layers` of the sets of offsets.
    void upload(index_t layers) { host_->send(0, set(layers + 1), there_.data()); }
    /// Queues the copy of the offsets behind a layer to the host; wait() for them.
    void fetch(index_t layer) {
        host_->fetch(there_.data() + set(layer + 1), count_ + 1, set(layer + 1));
    }
    void wait() const { host_->wait(); }

    index_t tokens() const { return tokens_; }
    const std::int32_t* ids() const { return there_.data() + count_ + 1; }
    const place* places() const { return ids() + tokens_; }
    /// As they came.
    sequences all() const { return {host_->data(), there_.data(), count_}; }
    sequences behind(index_t layer) const {
        return {here_behind(layer), there_behind(layer), count_};
    }
    place* here_behind(index_t layer) const { return host_->data() + set(layer + 1); }
    place* there_behind(index_t layer) const { return there_.data() + set(layer + 1); }

  private:
    using staging = decltype(std::declval<const Policy&>().template staging<place>(index_t{}));

    /// Where the i-th set of offsets begins, the first being the batch's own.
    index_t set(index_t i) const { return i * (count_ + 1) + (i > 0 ? 2 * tokens_ : 0); }

    index_t tokens_ = 0, count_ = 0, room_ = 0;
    std::unique_ptr<staging> host_;
    buffer<place, Policy> there_;
};

/// What a backward pass keeps of a layer's forward pass.
template <class T, class Policy>
struct record {
    buffer<T, Policy> projected, context, attention_sum, before, output_sum;
    // To learn, also what comes in, which of it stays, and what share of each token leaves:
    buffer<T, Policy> input;
    sequences came;
    buffer<place, Policy> kept;
    index_t stay = 0;
    buffer<place, Policy> stood; // where what comes in stood, if `moved`
    bool moved = false;
    buffer<float, Policy> leaving;
    // Of soft tokens, what comes in of them, its logarithm, their scores and masks.
    buffer<float, Policy> carry, key_bias, scores, mask;
};

} // namespace encoder::device
