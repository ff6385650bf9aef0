// An encoder on a Thrust policy, with weights and activations in the policy's memory, its own on a
// GPU.
#pragma once

#include "check.hpp"
#include "device_attention.hpp"
#include "engine.hpp"
#include "network.hpp"

#include <pare/fisher.hpp>

#include <utility>

namespace encoder {

/// T is the type that weights and activations are stored in: float, or a half type that converts to
/// and from float by static_cast. Biases, normalisations, logits and sums are in float or double.
///
/// Work is queued on the policy's stream, and waited for where a batch is copied there, where tokens
/// leave (their number decides how large everything behind it is), and for the outputs. Not safe for
/// concurrent calls on one object.
///
/// Queries x keys of at most 2^26 probabilities, or of one sequence, are in memory at a time.
template <class Policy, class T>
class device_network : public engine {
    using index_t = pare::index_t;
    template <class Element, int Rank>
    using view = pare::view<Element, Rank>;
    using dense_weights = device::dense_weights<T, Policy>;
    template <class Element>
    using buffer = device::buffer<Element, Policy>;

  public:
    /// Throws std::invalid_argument as network does, pare::device_error and std::bad_alloc. The
    /// network and its rows hold what the policy refers to.
    device_network(encoder::model m, const Policy& policy, std::shared_ptr<const device::home> home)
        : home_(std::move(home)), model_(std::move(m)), policy_(policy) {
        check(model_);
        pruning_ = model_.tokens;
        const auto tables = {std::pair(&model_.word_embeddings, &words_),
                             std::pair(&model_.position_embeddings, &positions_),
                             std::pair(&model_.type_embeddings, &types_)};
        for (const auto& [from, to] : tables)
            device::upload(policy_, from->data(), from->size(), *to);
        device::upload(policy_, model_.embedding_norm, embedding_norm_);
        for (std::size_t l = 0; l < model_.layers.size(); ++l) {
            const layer& from = model_.layers[l];
            layers_.push_back(std::make_unique<weights>());
            weights& to = *layers_.back();
            device::upload(policy_, stack_projections(from), to.qkv);
            device::upload(policy_, from.attention_output, to.attention_output);
            device::upload(policy_, from.attention_norm, to.attention_norm);
            device::upload(policy_, from.intermediate, to.intermediate);
            device::upload(policy_, from.output, to.output);
            device::upload(policy_, from.output_norm, to.output_norm);
            if (!model_.exits.empty()) device::upload(policy_, model_.exits[l], to.exit);
        }
    }

    std::unique_ptr<engine> make(encoder::model m) const override {
        return std::make_unique<device_network>(std::move(m), policy_, home_);
    }
    const encoder::model& model() const override { return model_; }
    std::string place() const override { return home_->name; }
    std::int64_t backward_tokens() const override { return 16384; }

    void set_masks(masks m) override {
        complete(m, model_);
        for (std::size_t l = 0; l < layers_.size(); ++l) {
            weights& to = *layers_[l];
            const vector of_columns =
                m.heads[l].transpose().replicate(model_.config.head_size, 1).reshaped();
            to.masked_heads = of_columns.size() > 0;
            to.masked_filters = m.filters[l].size() > 0;
            device::upload(policy_, of_columns.data(), of_columns.size(), to.heads_mask);
            device::upload(policy_, m.filters[l].data(), m.filters[l].size(), to.filters_mask);
        }
    }
    void set_token_pruning(token_pruning p) override {
        check(p, layers_.size());
        pruning_ = std::move(p);
    }

    void forward(const batch& b, matrix& outputs, std::vector<token_use>* use = nullptr) override;

    void embed(const batch& b, rows& x) override {
        start(b);
        embed_rows(b, make_rows(b.tokens(), hidden(), x));
    }
    void units(std::size_t l, unit_kind kind, const rows& x, const batch& b,
               rows& values) override {
        check_rows("x", x, b.tokens(), hidden());
        const index_t columns = reader(l, kind).inputs;
        T* const out = make_rows(x.count, columns, values);
        if (kind == unit_kind::filter) return activate(l, x.count, data(x), out, nullptr, out);
        start(b);
        attend(l, data(x), projected_, nullptr, out, nullptr);
    }
    void add_units(std::size_t l, unit_kind kind, const rows& values, const rows& x,
                   rows& sum) override {
        const dense_weights& to = reader(l, kind);
        check_rows("x", x, x.count, hidden());
        check_rows("values", values, x.count, to.inputs);
        add_rows(to, x.count, data(values), data(x), make_rows(x.count, hidden(), sum));
    }
    void normalize(std::size_t l, unit_kind kind, const rows& sum, rows& x) override {
        check_rows("sum", sum, sum.count, hidden());
        const weights& w = layer_at(l);
        normalize_rows(kind == unit_kind::head ? w.attention_norm : w.output_norm, sum.count,
                       data(sum), make_rows(sum.count, hidden(), x));
    }
    void replace(std::size_t l, unit_kind kind, dense with) override {
        const bool is_head = kind == unit_kind::head;
        dense_weights& to = reader(l, kind);
        check_shape(is_head ? "attention output" : "output", with, hidden(), to.inputs);
        device::upload(policy_, with, to);
        layer& y = model_.layers[l];
        (is_head ? y.attention_output : y.output) = std::move(with);
    }
    void backward_units(const batch& b, const loss_gradient& loss,
                        const unit_visitor& visit) override;

    void subtract(const rows& what, rows& from) override {
        check_rows("what", what, from.count, from.columns);
        const T* const x = data(what);
        T* const y = static_cast<buffer<T>*>(from.memory.get())->data();
        policy_.for_each(from.count * from.columns, [=] PARE_HD(index_t i) {
            y[i] = static_cast<T>(static_cast<float>(y[i]) - static_cast<float>(x[i]));
        });
    }
    matrix mask_gradients(const rows& x, const rows& gradient,
                          const std::vector<std::int64_t>& offsets, Eigen::Index unit) override {
        return sums_of(offsets, x.columns / unit, [&](auto samples, auto sums) {
            pare::mask_gradients(policy_, all(x), all(gradient), samples, unit, sums);
        });
    }
    matrix sample_sums(const rows& x, const std::vector<std::int64_t>& offsets) override {
        return sums_of(offsets, x.columns, [&](auto samples, auto sums) {
            pare::sample_sums(policy_, all(x), samples, sums);
        });
    }
    std::vector<float> squared_lengths(const rows& x) override {
        std::vector<float> squares(static_cast<std::size_t>(x.count));
        float* const there = float_sums_.get(policy_, x.count);
        device::squared_lengths(policy_, x.count, x.columns, data(x), there);
        policy_.copy_to_host(there, x.count, squares.data());
        return squares;
    }
    void add(const rows& x, pare::gram<double>& sums) override { sums.add(policy_, all(x)); }
    void add(const rows& x, const rows* y, const std::vector<float>& token_weights,
             pare::least_squares& statistics) override {
        const view<const T, 2> inputs = all(x);
        const view<const T, 2> targets =
            y ? all(*y) : view<const T, 2>(inputs.data_handle(), x.count, index_t{0});
        if (token_weights.empty()) return statistics.add(policy_, inputs, targets);
        const auto count = static_cast<index_t>(token_weights.size());
        float* const there = float_sums_.get(policy_, count);
        policy_.copy_from_host(token_weights.data(), count, there);
        statistics.add(policy_, inputs, targets, view<const float, 1>(there, count));
    }

    // The steps of those, on x, the residual stream of the tokens that are left [tokens x hidden].
    // Public, because nvcc asks for that where lambdas go to the device.

    /// A batch begins.
    void start(const batch& b) {
        check(b, model_.config);
        came_.set(policy_, b.offsets);
        left_.set(policy_, b.offsets);
    }

    void embed_rows(const batch& b, T* x);

    /// context = heads' outputs times a mask, or null, by way of `projections`, which keeps what has
    /// no bias yet; `scores` [tokens], by the scale of token pruning, or null.
    void attend(std::size_t l, const T* x, buffer<T>& projections, const float* mask, T* context,
                float* scores);

    /// sum = x + in weight' + bias, y = norm(sum); x, `sum` and y may be one.
    void add(const dense_weights& to, const device::norm<Policy>& after, index_t tokens,
             const T* in, const T* x, T* sum, T* y);
    void add_rows(const dense_weights& to, index_t tokens, const T* in, const T* x, T* sum);
    void normalize_rows(const device::norm<Policy>& n, index_t tokens, const T* sum, T* y);

    /// before = x W1', active = f(before + b1) times a mask or null; both may be one.
    void activate(std::size_t l, index_t tokens, const T* x, T* before, const float* mask,
                  T* active);
    void activate_rows(std::size_t l, index_t tokens, const T* before, const float* mask,
                       T* active);

    /// The tokens with low scores leave: their rows in x and in `context`, in place.
    void drop(std::size_t l, const float* scores, T* x, T* context);

    /// Adds to `gone` what of each sequence's tokens leaves: all but the `stay` in `kept`.
    void leave(std::size_t l, index_t stay, const T* x, const T* context);

    /// Each sequence's mean or first row, in the host's memory.
    matrix pooled(const T* x);

    // And of the backward pass: gradients [tokens x columns] at what the steps give and take.
    void pool_backward(const matrix& pooled_gradient, float factor, T* gradient);
    void activation_backward(std::size_t l, const T* before, T* gradient);
    /// The rows, or what they would be without the factor.
    rows shown(const T* x, index_t columns, float factor, buffer<T>& copy);

  private:
    struct weights {
        dense_weights qkv, attention_output, intermediate, output, exit;
        device::norm<Policy> attention_norm, output_norm;
        buffer<float> heads_mask, filters_mask; // a number a column
        bool masked_heads = false, masked_filters = false;
    };

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
    static view<const T, 2> all(const rows& x) { return {data(x), x.count, x.columns}; }
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

    /// What f(offsets, sums) leaves in sums [samples x columns], which are in the policy's memory.
    template <class F>
    matrix sums_of(const std::vector<std::int64_t>& offsets, index_t columns, const F& f) {
        matrix found(static_cast<index_t>(offsets.size()) - 1, columns);
        const auto count = static_cast<index_t>(offsets.size());
        std::int64_t* const samples = samples_.get(policy_, count);
        policy_.copy_from_host(offsets.data(), count, samples);
        float* const sums = float_sums_.get(policy_, found.size());
        f(view<const std::int64_t, 1>(samples, count),
          view<float, 2>(sums, found.rows(), found.cols()));
        policy_.copy_to_host(sums, found.size(), found.data());
        return found;
    }

    std::shared_ptr<const device::home> home_;
    encoder::model model_;
    Policy policy_;
    token_pruning pruning_;
    buffer<T> words_, positions_, types_;
    device::norm<Policy> embedding_norm_;
    std::vector<std::unique_ptr<weights>> layers_;

    // Of the batch: all sequences, and what is left of them; what left counts in the mean by `gone`
    // [sequences x hidden].
    device::sequences<Policy> came_, left_;
    bool gone_counts_ = false;
    buffer<float> gone_;

    // Memory that is used again.
    buffer<T> stream_, projected_, context_, active_, products_, leaving_, sums_;
    buffer<float> scores_, float_sums_;
    buffer<std::int32_t> ids_, places_;
    buffer<std::int64_t> kept_, kept_offsets_, numbers_kept_;
    buffer<std::int64_t> samples_;
    device::attention_memory<T, Policy> attention_memory_;

    // What a backward pass keeps of a layer's forward pass, and its gradients.
    struct record {
        buffer<T> projected, context, attention_sum, before, output_sum;
    };
    std::vector<std::unique_ptr<record>> records_;
    buffer<T> unit_gradients_, shown_inputs_, shown_outputs_;
};

} // namespace encoder

#include "device_backward.hpp"
#include "device_forward.hpp"
