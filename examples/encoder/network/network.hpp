// Forward and backward pass of a BERT-type encoder over packed batches, in half layers, so that
// pruning can look at and change what flows between them.
#pragma once

#include "learner.hpp"
#include "outputs.hpp"

#include <pare/core/view.hpp>

#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

namespace encoder {

/// What a pass of learning finds on the CPU.
struct gradients : token_gradients {
    encoder::model weights; ///< of the model's shapes; added to
};

/// How many of a sequence's n tokens stay by a share or a count.
PARE_HD inline std::int64_t tokens_to_keep(token_pruning::rule by, double number, std::int64_t n) {
    const auto all = static_cast<double>(n);
    const double count = by == token_pruning::rule::share ? number * all : number;
    const auto k = static_cast<std::int64_t>(std::llround(count < all ? count : all));
    return k < 1 ? 1 : k;
}

/// The tokens of a batch that stay in layer l by their scores, and their offsets, which may be
/// `offsets`; returns how many. `kept` has room for all. Tokens with an infinite score stay: pinned ones.
std::int64_t choose_tokens(const token_pruning& p, std::size_t l, pare::view<const float, 1> scores,
                           const std::vector<std::int64_t>& offsets,
                           std::vector<std::int64_t>& kept,
                           std::vector<std::int64_t>& kept_offsets);

/// Queries, keys and values in one layer.
dense stack_projections(const layer& y);
/// Biases of a layer's attention for each distance [heads x distances], as pare::attention takes them; or
/// empty.
matrix biases_by_distance(const layer& y);

/// A model with its weights packed for fast matrix products. Threads: OpenMP's default number.
/// Not safe for concurrent calls on one object (it holds scratch memory).
///
/// A layer is six steps, on x [tokens x hidden], the residual stream:
/// - attention(l, x, batch, context): context = heads' outputs [tokens x heads * values]
/// - add_units(l, head, context, x, x): x += context W' + b
/// - normalize(l, head, x, x)
/// - activation(l, x, active): active = gelu(x W1' + b1) [tokens x filters]
/// - add_units(l, filter, active, x, x): x += active W2' + b2
/// - normalize(l, filter, x, x)
///
/// `context` and `active` are where masks act: a mask multiplies their columns.
class network : public engine {
  public:
    explicit network(encoder::model m);
    ~network() override;
    network(network&&) noexcept;
    network& operator=(network&&) noexcept;

    std::unique_ptr<engine> make(encoder::model m) const override;
    const encoder::model& model() const override;
    std::string place() const override;
    std::int64_t forward_tokens() const override { return 4096; }
    std::int64_t backward_tokens() const override;
    std::unique_ptr<learner> make_learner() override;
    std::unique_ptr<pruner> make_pruner() override;

    void embed(const batch& b, matrix& x);
    /// `scores` [tokens] gets the attention that tokens receive, as tokens() scales it, infinity for
    /// pinned ones, or is empty.
    void attention(std::size_t l, const matrix& x, const batch& b, matrix& context,
                   pare::view<float, 1> scores = {});
    void activation(std::size_t l, const matrix& x, matrix& active);
    /// `sum` may be x.
    void add_units(std::size_t l, unit_kind kind, const matrix& values, const matrix& x,
                   matrix& sum);
    /// `x` may be the sum.
    void normalize(std::size_t l, unit_kind kind, const matrix& sum, matrix& x);

    void set_masks(masks m) override;
    void set_token_pruning(token_pruning p) override;
    const token_pruning& tokens() const override;

    void forward(const batch& b, matrix& outputs, std::vector<token_use>* use = nullptr) override;

    void update(const std::function<void(encoder::model&)>& change) override;

    /// One forward and one backward pass for the gradients of all weights and of the thresholds of
    /// token pruning. Without masks.
    void learn(const batch& b, const loss_gradient& loss, const learning& how, gradients& found);

    // What an engine does with rows, which are matrices here.
    void embed(const batch& b, rows& x) override;
    void units(std::size_t l, unit_kind kind, const rows& x, const batch& b, rows& values) override;
    void add_units(std::size_t l, unit_kind kind, const rows& values, const rows& x,
                   rows& sum) override;
    void normalize(std::size_t l, unit_kind kind, const rows& sum, rows& x) override;
    void replace(std::size_t l, unit_kind kind, dense with) override;
    void end_backward() override;
    void backward_units(const batch& b, const loss_gradient& loss,
                        const unit_visitor& visit) override;

  private:
    struct state;
    std::unique_ptr<state> state_;
};

} // namespace encoder
