// Forward and backward pass of a BERT-type encoder over packed batches, in half layers, so that
// pruning can look at and change what flows between them.
#pragma once

#include "learner.hpp"

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
/// `offsets`; returns how many. `kept` has room for all.
std::int64_t choose_tokens(const token_pruning& p, std::size_t l, pare::view<const float, 1> scores,
                           const std::vector<std::int64_t>& offsets,
                           std::vector<std::int64_t>& kept,
                           std::vector<std::int64_t>& kept_offsets);

/// Queries, keys and values in one layer.
dense stack_projections(const layer& y);
/// What forward() gives of the sequences' mean or first rows: logits, or rows of length 1.
matrix outputs_of(const model& m, const matrix& pooled);
/// The gradient at those rows, from that at the outputs.
matrix outputs_backward(const model& m, const matrix& pooled, const matrix& outputs,
                        const matrix& gradient);

/// A model with its weights packed for fast matrix products. Threads: OpenMP's default number.
/// Not safe for concurrent calls on one object (it holds scratch memory).
///
/// A layer is four steps, on x [tokens x hidden], the residual stream:
/// - attention(l, x, batch, context): context = heads' outputs [tokens x heads * head_size]
/// - attention_output(l, context, x): x = norm(x + context W' + b)
/// - activation(l, x, active): active = gelu(x W1' + b1) [tokens x filters]
/// - output(l, active, x): x = norm(x + active W2' + b2)
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
    std::int64_t forward_tokens() const override { return 8192; }
    std::int64_t backward_tokens() const override { return 2048; }
    std::unique_ptr<learner> make_learner() override;
    std::unique_ptr<pruner> make_pruner() override;

    void embed(const batch& b, matrix& x);
    /// `scores` [tokens] gets the attention that tokens receive, as tokens() scales it, or is
    /// empty.
    void attention(std::size_t l, const matrix& x, const batch& b, matrix& context,
                   pare::view<float, 1> scores = {});
    void attention_output(std::size_t l, const matrix& context, matrix& x);
    void activation(std::size_t l, const matrix& x, matrix& active);
    void output(std::size_t l, const matrix& active, matrix& x);
    /// The residual stream before the normalisation: x + context W' + b, and x + active W2' + b2.
    void attention_residual(std::size_t l, const matrix& context, const matrix& x, matrix& sum);
    void output_residual(std::size_t l, const matrix& active, const matrix& x, matrix& sum);
    /// x = norm(sum), the second half of attention_output and of output.
    void attention_norm(std::size_t l, const matrix& sum, matrix& x);
    void output_norm(std::size_t l, const matrix& sum, matrix& x);
    /// Mean (or first token) of each sequence, scaled to length 1: [sequences x hidden].
    void pool(const matrix& x, const batch& b, matrix& embeddings);

    /// Replaces W and b of a layer's second matrix (attention output, or FFN output) and packs
    /// them.
    void replace_attention_output(std::size_t l, dense with);
    void replace_output(std::size_t l, dense with);

    void set_masks(masks m) override;
    void set_token_pruning(token_pruning p) override;
    const token_pruning& tokens() const override;

    void forward(const batch& b, matrix& outputs, std::vector<token_use>* use = nullptr) override;

    void update(const std::function<void(encoder::model&)>& change) override;

    /// What a backward pass shows of a matrix y = W x + b that reads units, y being added to the
    /// residual stream: x [tokens x columns], which a mask of ones multiplies, and the loss's
    /// gradients at it and at y [tokens x hidden]. All are the network's.
    struct sublayer_gradients {
        std::size_t layer;
        unit_kind kind;
        const matrix &inputs, &at_inputs;
        Eigen::Map<const matrix> at_outputs;
    };
    /// Called for each layer, last first, filters before heads.
    using visitor = std::function<void(const sublayer_gradients&)>;

    /// One forward and one backward pass of all tokens. Sequences do not interact, so the
    /// per-sequence gradients of a mask are sums over the sequence's rows:
    /// pare::mask_gradients(inputs, at_inputs, offsets, unit).
    void backward(const batch& b, const loss_gradient& loss, const visitor& visit);

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
    void backward_units(const batch& b, const loss_gradient& loss,
                        const unit_visitor& visit) override;

  private:
    struct state;
    std::unique_ptr<state> state_;
};

} // namespace encoder
