// An encoder on a Thrust policy, with weights and activations in the policy's memory, its own on a
// GPU.
#pragma once

#include "device_attention.hpp"
#include "encoder/network/check.hpp"
#include "encoder/network/engine.hpp"
#include "encoder/network/network.hpp"
#include "encoder/network/prunable.hpp"

#include <utility>

namespace encoder {

template <class Policy, class T>
class device_learner;

/// T is the type that weights and activations are stored in: float, or a half type that converts to
/// and from float by static_cast. Biases, normalisations, logits and sums are in float or double.
///
/// Work is queued on the policy's stream, and waited for where tokens leave by thresholds (their number
/// decides how large everything behind it is; that of the other rules follows from the lengths) and for
/// the outputs. Not safe for concurrent calls on one object.
///
/// In a backward pass, queries x keys of at most 2^26 probabilities, or of one sequence, are in memory
/// at a time.
template <class Policy, class T>
class device_network : public engine {
    using index_t = pare::index_t;
    template <class Element, int Rank>
    using view = pare::view<Element, Rank>;
    using dense_weights = device::dense_weights<T, Policy>;
    template <class Element>
    using buffer = device::buffer<Element, Policy>;
    template <class Element>
    using parameter = device::parameter<Element, Policy>;
    using record = device::record<T, Policy>;
    using staging = decltype(std::declval<const Policy&>().template staging<float>(index_t{}));

  public:
    /// Throws std::invalid_argument as network does, pare::device_error and std::bad_alloc. The
    /// network and its rows hold what the policy refers to.
    device_network(encoder::model m, const Policy& policy, std::shared_ptr<const device::home> home)
        : home_(std::move(home)), model_(std::move(m)), policy_(policy) {
        check(model_);
        pruning_ = model_.tokens;
        upload_weights();
    }

    std::unique_ptr<engine> make(encoder::model m) const override {
        return std::make_unique<device_network>(std::move(m), policy_, home_);
    }
    const encoder::model& model() const override {
        if (learned_) fetch_weights();
        return model_;
    }
    std::string place() const override { return home_->name; }
    // Statistics wait to look whether a batch's numbers are finite, so that large ones are better;
    // records of 12 layers of 768 columns and 3072 filters take 6 GB.
    std::int64_t forward_tokens() const override { return 32768; }
    std::int64_t backward_tokens() const override {
        return sizeof(T) < sizeof(float) ? 32768 : 16384;
    }

    void set_masks(masks m) override;
    void set_token_pruning(token_pruning p) override {
        check(p, layers_.size());
        pruning_ = std::move(p);
    }
    const token_pruning& tokens() const override { return pruning_; }

    void update(const std::function<void(encoder::model&)>& change) override {
        encoder::model changed = model();
        change(changed);
        check(changed);
        model_ = std::move(changed);
        upload_weights();
    }
    std::unique_ptr<learner> make_learner() override {
        return std::make_unique<device_learner<Policy, T>>(*this);
    }
    std::unique_ptr<pruner> make_pruner() override {
        return std::make_unique<pruner_of<Policy, T>>(policy_, *this);
    }

    void forward(const batch& b, matrix& outputs, std::vector<token_use>* use = nullptr) override {
        const T* const x = run_layers(b, purpose::outputs, 0, use);
        outputs = outputs_of(model_, pooled(x));
    }
    void backward_units(const batch& b, const loss_gradient& loss,
                        const unit_visitor& visit) override {
        backward(b, loss, &visit, nullptr);
    }

    // Rows: device_network_rows.hpp.
    void embed(const batch& b, rows& x) override;
    void units(std::size_t l, unit_kind kind, const rows& x, const batch& b, rows& values) override;
    void add_units(std::size_t l, unit_kind kind, const rows& values, const rows& x,
                   rows& sum) override;
    void normalize(std::size_t l, unit_kind kind, const rows& sum, rows& x) override;
    void replace(std::size_t l, unit_kind kind, dense with) override;

    // The steps of those, on x, the residual stream of the tokens that are left [tokens x hidden].
    // Public, because nvcc asks for that where lambdas go to the device.

    /// A batch begins, in which tokens leave as they do in forward() or do not.
    void start(const batch& b, bool leaving);

    /// What a pass over the layers is for.
    enum class purpose {
        outputs, ///< masks are applied and tokens dropped; nothing else is kept
        units,   ///< the gradients of masks: all tokens, with records
        learning ///< those of weights: tokens dropped or, by a temperature > 0, fading; with records
    };
    /// The whole stack; returns the last layer's output, which lies in `stream_`.
    T* run_layers(const batch& b, purpose of, double temperature, std::vector<token_use>* use);

    /// Before a projection of narrow embeddings [tokens x embedding_columns()].
    void normalize_embeddings(T* sum, T* x);
    /// `sum` gets what is normalised, unless it is null.
    void embed_rows(T* sum, T* x);

    /// context = heads' outputs times a mask, or null, by way of `projections`; `scores` [tokens], or
    /// null, by the scale of token pruning, where nothing fades.
    void attend(std::size_t l, const T* x, buffer<T>& projections, const fading& soft,
                const float* mask, T* context, float* scores);

    /// sum = x + in weight' + bias, y = norm(sum); `sum` may be null, and x and y may be one.
    void add(const dense_weights& to, const device::norm<Policy>& after, index_t tokens,
             const T* in, const T* x, T* sum, T* y);
    void add_rows(const dense_weights& to, index_t tokens, const T* in, const T* x, T* sum);
    void normalize_rows(const device::norm<Policy>& n, index_t tokens, const T* sum, T* y);

    /// before = x W1' + b1, active = f(before) times a mask or null; both may be one.
    void activate(std::size_t l, index_t tokens, const T* x, T* before, const float* mask,
                  T* active);
    void activate_rows(std::size_t l, index_t tokens, const T* before, T* active);

    /// The tokens with low scores leave. x, which is `stream_`, and `context` move to where the rows of
    /// those that stay are.
    void drop(std::size_t l, const float* scores, T*& x, T*& context, record* r);
    /// Attention of soft tokens, and their masks, into the record and what is left of them.
    void attend_fading(std::size_t l, const T* x, double temperature, record& r, T* context);

    /// Adds to `gone_` what of each sequence's tokens leaves, by the share of each.
    void leave(std::size_t l, const float* leaving, const T* x, const T* context);
    /// Each sequence's mean, maximum or first row, or with a head on tokens each token's, in the
    /// host's memory; `divisors_` gets what a mean's sum is divided by, `largest_` the tokens of a
    /// maximum.
    matrix pooled(const T* x);

    // And of the backward pass: gradients [tokens x columns] at what the steps give and take. All
    // are the lift times what they are: those of a half type's size would be lost in a short
    // exponent, such as fp16's.

    /// What learning adds to a backward pass.
    struct lesson {
        const learning& how;
        token_gradients& found;
        float& lift; ///< a power of two; 0: not chosen yet
    };
    void backward(const batch& b, const loss_gradient& loss, const unit_visitor* visit,
                  lesson* learn);
    /// For gradients at the pooled rows of that size.
    float lift_of(const matrix& gradient, const lesson* learn) const;
    /// Of the head; inputs, and gradients at outputs, are in the host's memory.
    void learn_dense(device::dense_weights<float, Policy>& of, const matrix& inputs,
                     const matrix& gradient);
    /// `pooled_gradient` is in the host's memory; x, the last layer's output, and the gradient may be
    /// one.
    void pool_backward(const matrix& pooled_gradient, float lift, const T* x, T* gradient);
    void activation_backward(std::size_t l, const T* before, T* gradient);
    /// The rows, or what they would be without the lift.
    rows shown(const T* x, index_t columns, float lift, buffer<T>& copy);

    /// Counts what is left behind a layer, with its price.
    void count_left(std::size_t l, lesson& learn);
    /// The context of the tokens that stay.
    const T* kept_context(std::size_t l, const record& r);
    /// From gradients at the kept rows to those at all that came into the layer, 0 at the others.
    void undrop(std::size_t l, const record& r, T*& gradient, T*& context_gradient);
    /// The adjoint of leave(): adds to the gradients at all rows and the context, and at the shares
    /// unless that is null.
    void leave_backward(std::size_t l, const record& r, T* gradient, T* context_gradient,
                        float* at_leaving);
    /// From the gradient at what is left of soft tokens behind a layer to that at what came in and
    /// at the scores, the threshold's on the way.
    void fade_backward(std::size_t l, const record& r, lesson& learn, T* gradient,
                       T* context_gradient);
    /// What attention adds to the gradient at what came in.
    void carry_backward(const record& r);
    void embed_backward(const batch& b, T* gradient);

  private:
    friend class device_learner<Policy, T>;

    struct weights {
        dense_weights qkv, attention_output, intermediate, output, exit;
        device::norm<Policy> attention_norm, output_norm;
        buffer<float> heads_mask, filters_mask; // a number a column
        buffer<float> distance_bias;            // [heads x distances]
        index_t distances = 0;
        bool masked_heads = false, masked_filters = false;
    };

    /// f(array, rows, columns) for all weights, queries, keys and values of a layer as one.
    template <class F>
    void for_weights(const F& f);
    void upload_weights();
    /// What a learner has changed.
    void fetch_weights() const;
    /// `stood`: where tokens stood [tokens left], or null if none has left.
    distances by_distance(std::size_t l, const device::place* stood) const {
        const weights& w = *layers_[l];
        const index_t heads = w.distances > 0 ? model_.layers[l].heads : 0;
        return {{w.distance_bias.data(), heads, w.distances},
                {stood, stood ? left_.tokens() : index_t{0}}};
    }
    /// A layer's queries, keys and values, or what is at them [tokens x outputs of their weights].
    template <class U>
    projections<U> in_rows(std::size_t l, U* data) const {
        const layer& y = model_.layers[l];
        return encoder::in_rows(data, y.heads, y.queries(), y.values());
    }

    /// f(dense, its weights here) for the layers of the head.
    template <class F>
    void for_head(const F& f) {
        if (!model_.head) return;
        if (model_.head->before) f(*model_.head->before, head_before_);
        f(model_.head->output, head_output_);
    }

    index_t hidden() const { return model_.config.hidden; }

    weights& layer_at(std::size_t l) { ///< checked
        if (l >= layers_.size())
            fail("layer " + std::to_string(l) + " of " + std::to_string(layers_.size()));
        return *layers_[l];
    }
    /// The matrix that reads a layer's units.
    dense_weights& reader(std::size_t l, unit_kind kind) {
        return kind == unit_kind::head ? layer_at(l).attention_output : layer_at(l).output;
    }

    static const T* data(const rows& x) { return static_cast<const T*>(x.data); }
    static void check_rows(const char* name, const rows& x, index_t count, index_t columns) {
        if (x.count != count || x.columns != columns)
            fail(std::string(name) + " is " + std::to_string(x.count) + " x " +
                 std::to_string(x.columns) + ", expected " + std::to_string(count) + " x " +
                 std::to_string(columns));
    }
    /// Room for rows, in x's own memory where nobody shares it.
    T* make_rows(index_t count, index_t columns, rows& x) {
        if (!x.memory || x.memory.use_count() > 1)
            x.memory = std::shared_ptr<void>(
                new buffer<T>, [home = home_](void* p) { delete static_cast<buffer<T>*>(p); });
        T* const to = static_cast<buffer<T>*>(x.memory.get())->get(policy_, count * columns);
        x.data = to;
        x.count = count;
        x.columns = columns;
        return to;
    }

    /// Waits for `from` [rows x columns].
    matrix download(const float* from, index_t rows, index_t columns);

    std::shared_ptr<const device::home> home_;
    mutable encoder::model model_;
    mutable bool learned_ = false; // since model_ had its weights
    Policy policy_;
    token_pruning pruning_;
    parameter<T> words_, positions_, types_;
    device::norm<Policy> embedding_norm_;
    dense_weights embedding_projection_; // of narrow embeddings
    std::vector<std::unique_ptr<weights>> layers_;
    // The head's, to learn; outputs are made on the host.
    device::dense_weights<float, Policy> head_before_, head_output_;
    buffer<float> master_; // of a learner: all weights before they are rounded to T

    // Of the batch: all sequences, and what is left of them; what left counts in the mean by `gone`
    // [sequences x hidden], and a soft token by what is left of it.
    device::packed_batch<Policy> batch_;
    device::sequences came_, left_;
    bool gone_counts_ = false, fading_ = false;
    bool moved_ =
        false; // tokens have left, where distances count: `stood_` is where the others stood
    buffer<device::place> stood_, spare_stood_;
    buffer<float> gone_, carry_, divisors_;

    // Memory that is used again.
    buffer<T> narrow_; // embeddings
    buffer<T> stream_, spare_, projected_, context_, kept_context_, active_, products_, sums_;
    buffer<float> scores_, leaving_, float_sums_, counts_;
    buffer<device::place> kept_, staying_, order_, starts_, largest_;
    device::attention_memory<T, Policy> attention_memory_;
    pare::workspace attention_scratch_; // Thrust's policies have no use for it
    std::unique_ptr<staging> downloads_;
    index_t download_room_ = 0;

    std::vector<std::unique_ptr<record>> records_;
    buffer<T> embedding_sum_;

    // Gradients on the way down: of units, of a layer with dropped tokens, of what left [sequences x
    // ...], and of soft tokens; `weighted_` has what is left of those times its price so far.
    buffer<T> unit_gradients_, shown_inputs_, shown_outputs_, shown_projected_, restored_units_;
    buffer<T> at_gone_, at_sums_;
    buffer<float> at_counts_, at_carry_, at_leaving_, at_scores_, at_key_bias_, at_query_weights_;
    buffer<float> weighted_;
};

} // namespace encoder

#include "device_backward.hpp"
#include "device_fading.hpp"
#include "device_forward.hpp"
#include "device_learning.hpp"
#include "device_network_rows.hpp"
