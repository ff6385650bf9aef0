// An encoder that runs somewhere, on the CPU (network) or on a GPU (device_network): what pruning
// and evaluation ask of it, and training by way of its learner.
#pragma once

#include "encoder/files/model.hpp"
#include "encoder/text/batch.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace encoder {

enum class unit_kind { head, filter };

/// The matrix that reads a layer's units.
inline const dense& reader(const layer& l, unit_kind kind) {
    return kind == unit_kind::head ? l.attention_output : l.output;
}
inline dense& reader(layer& l, unit_kind kind) {
    return kind == unit_kind::head ? l.attention_output : l.output;
}

/// Columns of that for one unit.
inline Eigen::Index unit_size(const layer& l, unit_kind kind) {
    return kind == unit_kind::head && l.heads > 0 ? l.values() : 1;
}

/// What a layer had to do, summed up over sequences.
struct token_use {
    std::int64_t attending = 0; ///< tokens that came in
    std::int64_t pairs = 0;     ///< their squares: attention probabilities
    std::int64_t kept = 0;      ///< tokens that stayed
    std::int64_t guessed =
        0; ///< rows that went through an exit: of sequences whose tokens left, or
           ///< of such tokens where outputs are a row a token

    /// A sequence of `length` tokens came in.
    void attend(std::int64_t length) {
        attending += length;
        pairs += length * length;
    }
};

/// Rows [count x columns] in an engine's memory, which only engines made of one another read. A
/// copy shares them until one is written to.
struct rows {
    std::shared_ptr<void> memory; ///< who holds them; null where the engine does
    const void* data = nullptr;
    std::int64_t count = 0, columns = 0;
};

/// Vectors of heads [tokens x heads x size] in an engine's memory, which strides, in elements, lead to.
struct heads_of_rows {
    const void* data = nullptr;
    std::int64_t tokens = 0, heads = 0, size = 0, token_stride = 0, head_stride = 0;
};

class learner; // learner.hpp
class pruner;  // pruner.hpp

/// Functions that take a batch or shapes throw std::invalid_argument for what does not fit; on a GPU
/// all may throw pare::device_error and std::bad_alloc.
class engine {
  public:
    virtual ~engine() = default;

    /// Another encoder, in the same place.
    virtual std::unique_ptr<engine> make(encoder::model m) const = 0;
    /// With the weights that it has now: on a GPU, what was learned since the last call is fetched.
    virtual const encoder::model& model() const = 0;
    /// Columns of what forward() gives.
    Eigen::Index outputs() const { return model().outputs(); }
    /// What runs it, in words: times of one such place say nothing about another.
    virtual std::string place() const = 0;
    /// So many tokens make a batch that keeps it busy, in a forward and in a backward pass.
    virtual std::int64_t forward_tokens() const = 0;
    virtual std::int64_t backward_tokens() const = 0;

    /// Masks: heads[l] has a value per head of layer l, filters[l] a value per filter. Empty =
    /// all 1.
    struct masks {
        std::vector<vector> heads, filters;
    };
    virtual void set_masks(masks m) = 0;

    /// Tokens to drop in forward(), instead of those that the model drops.
    virtual void set_token_pruning(token_pruning p) = 0;
    virtual const token_pruning& tokens() const = 0;

    /// Changes weights, or adds exits; all other shapes are kept.
    virtual void update(const std::function<void(encoder::model&)>& change) = 0;
    /// What learns these weights; one at a time.
    virtual std::unique_ptr<learner> make_learner() = 0;
    /// What prunes it.
    virtual std::unique_ptr<pruner> make_pruner() = 0;

    /// embed ... pool in one call, masks applied and tokens dropped. Of these, `use` gets the
    /// numbers, a layer each, added to what it holds. A model with a head gives what that makes
    /// [sequences x outputs] of the pooled row, which is not scaled to length 1. A head on tokens
    /// gives a row a token of the batch [tokens x outputs]: for labels, of a dropped token what the
    /// head says of its last state or of what the model's exit makes of it; for answers, minus infinity.
    virtual void forward(const batch& b, matrix& outputs,
                         std::vector<token_use>* use = nullptr) = 0;

    // Sublayers one by one, of all tokens and without masks. The residual stream x [tokens x
    // hidden] goes into what computes the units, the units' values [tokens x columns] into the
    // matrix that reads them, and the sum of that and x is normalised.
    virtual void embed(const batch& b, rows& x) = 0;
    virtual void units(std::size_t l, unit_kind kind, const rows& x, const batch& b,
                       rows& values) = 0;
    virtual void add_units(std::size_t l, unit_kind kind, const rows& values, const rows& x,
                           rows& sum) = 0;
    virtual void normalize(std::size_t l, unit_kind kind, const rows& sum, rows& x) = 0;
    /// Replaces the matrix that reads units, and its bias.
    virtual void replace(std::size_t l, unit_kind kind, dense with) = 0;

    /// What a backward pass shows of a matrix y = W x + b that reads units, y being added to the
    /// residual stream: x [tokens x columns], which a mask of ones multiplies, and the loss's
    /// gradients at it and at y [tokens x hidden]. All are the engine's, until the visitor returns.
    struct unit_gradients {
        std::size_t layer;
        unit_kind kind;
        rows inputs, at_inputs, at_outputs;
        heads_of_rows queries = {},
                      at_queries = {}; ///< of heads: their queries, the gradients there
    };
    /// Called for each layer, last first, filters before heads.
    using unit_visitor = std::function<void(const unit_gradients&)>;
    /// Given what forward() gives, writes the gradient of the sum of the sequences' losses with
    /// respect to it (same shape).
    using loss_gradient = std::function<void(const matrix& outputs, matrix& gradient)>;
    /// One forward and one backward pass of all tokens, without masks.
    virtual void backward_units(const batch& b, const loss_gradient& loss,
                                const unit_visitor& visit) = 0;
    /// Gives back what backward passes keep for the next one, in the host's memory.
    virtual void end_backward() {}
};

} // namespace encoder
