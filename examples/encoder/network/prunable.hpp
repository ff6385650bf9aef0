// An encoder as pare/prune.hpp asks for one, of any engine; Policy is one of the memory that its rows
// are in, T their type.
#pragma once

#include "pruner.hpp"

#include <pare/prune/statistics.hpp>

#include <memory>
#include <utility>

namespace encoder {

template <class Policy, class T>
class prunable {
    using index_t = pare::index_t;

  public:
    struct stream {
        encoder::rows x;
        index_t batch;
    };

    prunable(const Policy& policy, engine& net, const pruning_text& text)
        : policy_(policy), net_(net), text_(text) {}

    index_t sublayers() const { return 2 * static_cast<index_t>(net_.model().layers.size()); }
    index_t batches() const { return static_cast<index_t>(text_.batches.size()); }
    pare::sublayer<const float> describe(index_t s) {
        return describe<const float>(s, reader(net_.model().layers[layer_of(s)], kind_of(s)));
    }
    stream start(index_t b) {
        stream x{{}, b};
        net_.embed(at(b), x.x);
        return x;
    }
    pare::view<const T, 2> rows(const stream& x) const { return all(x.x); }
    pare::view<const T, 2> units(index_t s, const stream& x) {
        net_.units(layer_of(s), kind_of(s), x.x, at(x.batch), values_);
        return all(values_);
    }
    void add(index_t s, const pare::view<const T, 2>&, stream& x) {
        net_.add_units(layer_of(s), kind_of(s), values_, x.x, other_);
        std::swap(x.x, other_);
    }
    void normalize(index_t s, stream& x) {
        net_.normalize(layer_of(s), kind_of(s), x.x, other_);
        std::swap(x.x, other_);
    }

  protected:
    template <class U, class Dense>
    pare::sublayer<U> describe(index_t s, Dense& d) {
        const index_t unit = unit_size(net_.model().layers[layer_of(s)], kind_of(s));
        return {pare::as_view<2>(d.weight), pare::as_view<1>(d.bias), unit,
                pare::cost_table::linear(d.weight.cols() / unit, 1)};
    }
    static std::size_t layer_of(index_t s) { return static_cast<std::size_t>(s / 2); }
    static unit_kind kind_of(index_t s) { return s % 2 ? unit_kind::filter : unit_kind::head; }
    static pare::view<const T, 2> all(const encoder::rows& x) {
        return {static_cast<const T*>(x.data), x.count, x.columns};
    }
    static pare::view<const T, 3> all(const heads_of_rows& x) {
        return {static_cast<const T*>(x.data),
                {x.tokens, x.heads, x.size},
                {x.token_stride, x.head_stride, 1}};
    }
    const batch& at(index_t b) const { return text_.batches[static_cast<std::size_t>(b)]; }

    const Policy& policy_;
    engine& net_;
    const pruning_text& text_;
    encoder::rows values_, other_;
};

/// One whose weights are fitted anew; the engine was made without the units that go.
template <class Policy, class T>
class refittable : public prunable<Policy, T> {
    using base = prunable<Policy, T>;
    using index_t = pare::index_t;

  public:
    using base::base;

    pare::sublayer<float> describe(index_t s) {
        if (s != described_)
            copy_ = reader(this->net_.model().layers[base::layer_of(s)], base::kind_of(s));
        described_ = s;
        return base::template describe<float>(s, copy_);
    }
    void keep(index_t, const std::vector<std::uint8_t>&) const {}
    void changed(index_t s) {
        this->net_.replace(base::layer_of(s), base::kind_of(s), std::move(copy_));
        described_ = -1;
    }

  private:
    dense copy_; // of what was described last
    index_t described_ = -1;
};

/// With a loss.
template <class Policy, class T>
class prunable_by_gradients : public prunable<Policy, T> {
    using base = prunable<Policy, T>;
    using index_t = pare::index_t;

  public:
    using base::base;

    template <class Visit>
    void backward(index_t b, const Visit& visit) {
        this->net_.backward_units(
            this->at(b),
            [&](const matrix& outputs, matrix& gradient) {
                this->text_.loss(b, outputs, gradient);
            },
            [&](const engine::unit_gradients& found) {
                const index_t s =
                    2 * static_cast<index_t>(found.layer) + (found.kind == unit_kind::filter);
                const auto inputs = base::all(found.inputs), at_inputs = base::all(found.at_inputs),
                           at_outputs = base::all(found.at_outputs);
                if (found.kind == unit_kind::filter)
                    visit(s, inputs, at_inputs, at_outputs);
                else
                    visit(s, inputs, at_inputs, at_outputs, base::all(found.queries),
                          base::all(found.at_queries));
            });
    }
    pare::view<const std::int64_t, 1> offsets(index_t b) {
        const std::vector<std::int64_t>& of = this->text_.samples[static_cast<std::size_t>(b)];
        const auto count = static_cast<index_t>(of.size());
        if constexpr (Policy::on_host) {
            return {of.data(), count};
        } else {
            // It does not move.
            offsets_.reset(new memory(this->policy_.template temporary<std::int64_t>(count)));
            this->policy_.copy_from_host(of.data(), count, offsets_->data());
            return {offsets_->data(), count};
        }
    }

  private:
    using memory = decltype(std::declval<const Policy&>().template temporary<std::int64_t>(
        std::declval<pare::workspace&>(), index_t{}));
    std::unique_ptr<memory> offsets_;
};

template <class Policy, class T>
class pruner_of : public pruner {
  public:
    pruner_of(const Policy& policy, engine& net) : policy_(policy), net_(net) {}

    std::vector<pare::sublayer_statistics> collect(const pruning_text& text,
                                                   const pare::prune_callback& callback) override {
        if (text.loss) {
            prunable_by_gradients<Policy, T> m(policy_, net_, text);
            return pare::collect(policy_, m, {0, 1}, callback).value();
        }
        prunable<Policy, T> m(policy_, net_, text);
        return pare::collect(policy_, m, {0, 1}, callback).value();
    }
    std::vector<pare::fisher<>> collect_fisher(const pruning_text& text,
                                               const pare::fisher_options& options) override {
        prunable_by_gradients<Policy, T> m(policy_, net_, text);
        return pare::collect_fisher(policy_, m, options).value();
    }
    std::vector<pare::refit_report> refit(engine& pruned, const pruning_text& text,
                                          const pare::prune_plan& plan,
                                          const std::vector<pare::sublayer_statistics>& statistics,
                                          const pare::refit_options& options) override {
        refittable<Policy, T> dense(policy_, net_, text), small(policy_, pruned, text);
        return pare::refit(policy_, dense, small, plan, statistics, options).value();
    }

  private:
    Policy policy_;
    engine& net_;
};

} // namespace encoder
