#include "check.hpp"
#include "network_state.hpp"

#include <pare/gather.hpp>
#include <pare/policy/simd.hpp>
#include <pare/soft_mask.hpp>

namespace encoder {
namespace {

/// Adds up the gradients of a normalisation's weight and bias, by blocks of rows that are the same
/// for any number of threads.
class norm_gradient {
  public:
    norm_gradient(bool wanted, Index rows, Index d)
        : sums_(matrix::Zero(wanted ? (rows + block - 1) / block : 0, 2 * d)) {}

    /// normalize_backward for rows `first` and on; `first` is a multiple of a block.
    void backward(const layer_norm& norm, float epsilon, Index first, Index rows, const float* x,
                  float* gradient) {
        if (sums_.rows() == 0) return normalize_backward(norm, epsilon, rows, x, gradient);
        const Index d = norm.weight.size();
        for (Index r = 0; r < rows; r += block)
            normalize_backward(norm, epsilon, std::min(block, rows - r), x + r * d,
                               gradient + r * d, row(sums_, (first + r) / block));
    }
    void add_to(layer_norm& gradient) const {
        const Index d = gradient.weight.size();
        gradient.weight += sums_.leftCols(d).colwise().sum().transpose();
        gradient.bias += sums_.rightCols(d).colwise().sum().transpose();
    }

  private:
    static constexpr Index block = linear::unit;
    matrix sums_;
};

template <class T>
heads_of_rows rows_of(const head_rows<T>& x, Index heads, Index tokens) {
    return {x.data, tokens, heads, x.size, x.token_stride, x.head_stride};
}

rows rows_of(const matrix& x) {
    return {nullptr, x.data(), x.rows(), x.cols()};
}

} // namespace

void network::state::pack_transposed() {
    transposed.resize(depth());
    if (model.config.narrow_embeddings > 0)
        projection_back.replace(model.embedding_projection.weight.transpose(), vector());
    pare::openmp{}.run(static_cast<Index>(depth()), [&](Index at, Index) {
        const auto l = static_cast<std::size_t>(at);
        const layer& y = model.layers[l];
        packed_layer& p = transposed[l];
        const auto pack = [&](linear& to, const matrix& weight) { // dx = dy W
            to.replace(weight.transpose(), vector());
        };
        pack(p.qkv, stack_projections(y).weight);
        pack(p.attention_output, y.attention_output.weight);
        pack(p.intermediate, y.intermediate.weight);
        pack(p.output, y.output.weight);
        pack(p.exit, model.exits.empty() ? matrix() : stack_exit(model.exits[l]));
    });
}

/// Gradient at `rows`, the last layer's output, into `to`, from that at the pooled rows. Without
/// soft tokens only a maximum asks for the rows.
network::state::descent network::state::pool_backward(const remaining& left, const matrix& pooled,
                                                      const matrix& gradient, const matrix& rows,
                                                      float* to) const {
    descent down{left.offsets, {}, {}};
    down.carry.assign(left.carry.size(), 0.f);
    const pooling by = pool();
    const std::vector<std::int64_t>& offsets = left.pooled_by();
    if (left.gone.size() > 0) down.gone.resize(gradient.rows(), hidden());
    pare::openmp{}.run(gradient.rows(), [&](Index s, Index) {
        const auto at = static_cast<std::size_t>(s);
        const Index first = offsets[at], n = offsets[at + 1] - first;
        Eigen::Map<matrix> result(to + first * hidden(), n, hidden());
        if (by != pooling::mean) result.setZero();
        if (by == pooling::cls && n > 0) result.row(0) = gradient.row(s);
        if (by == pooling::max)
            for (Index j = 0; j < hidden(); ++j) {
                Index largest = 0;
                const auto value = [&](Index t) {
                    return rows(first + t, j) + carry_offset(left, first + t);
                };
                for (Index t = 1; t < n; ++t)
                    if (value(t) > value(largest)) largest = t;
                result(largest, j) = gradient(s, j);
                if (left.carry.empty()) continue;
                const auto t = static_cast<std::size_t>(first + largest);
                if (left.carry[t] > least_carry) down.carry[t] += gradient(s, j) / left.carry[t];
            }
        if (by != pooling::mean) return;
        // The mean is (sum of carry x + what is gone) / count.
        vector carry = vector::Ones(n);
        if (!left.carry.empty()) carry = Eigen::Map<const vector>(left.carry.data() + first, n);
        const bool all = down.gone.size() > 0;
        const float count = all ? left.count(at) : carry.sum();
        const Eigen::RowVectorXf g = gradient.row(s) / count;
        result.noalias() = carry * g;
        if (all) down.gone.row(s) = g;
        if (left.carry.empty()) return;
        Eigen::Map<vector> to_carry(down.carry.data() + first, n);
        to_carry.noalias() = rows.middleRows(first, n) * g.transpose();
        if (!all) to_carry.array() -= pooled.row(s).dot(g);
    });
    return down;
}

/// The gradients of all embedding tables and their normalisation, from that at embed().
void network::state::embed_backward(const batch& b, float* gradient, encoder::model& found) const {
    const Index d = model.config.embedding_columns(), words = model.config.vocabulary;
    matrix sums(b.tokens(), d), narrow;
    if (model.config.narrow_embeddings > 0) {
        // Through the projection, whose input is computed again.
        matrix input(b.tokens(), d);
        narrow.resize(b.tokens(), d);
        for_row_blocks(b.tokens(), [&](Index first, Index rows, Index) {
            add_embeddings(b, first, rows, row(input, first));
            this->norm(model.embedding_norm, rows, row(input, first), row(input, first));
            projection_back.assign(gradient + first * hidden(), rows, row(narrow, first));
        });
        add_weight_gradient(b.tokens(), gradient, hidden(), input.data(),
                            found.embedding_projection.weight, found.embedding_projection.bias);
        gradient = narrow.data();
    }
    norm_gradient norm(true, b.tokens(), d);
    for_row_blocks(b.tokens(), [&](Index first, Index rows, Index) {
        add_embeddings(b, first, rows, row(sums, first));
        norm.backward(model.embedding_norm, model.config.layer_norm_epsilon, first, rows,
                      row(sums, first), gradient + first * d);
    });
    norm.add_to(found.embedding_norm);
    for (std::size_t s = 0; s + 1 < b.offsets.size(); ++s)
        for (Index t = b.offsets[s]; t < b.offsets[s + 1]; ++t) {
            const Eigen::Map<const Eigen::RowVectorXf> g(gradient + t * d, d);
            const Index id = b.ids[static_cast<std::size_t>(t)];
            found.word_embeddings.row(id % words) += g;
            found.position_embeddings.row(model.config.first_position + t - b.offsets[s]) += g;
            if (model.config.types > 0) found.type_embeddings.row(id / words) += g;
        }
}

void network::state::backward(const batch& b, const loss_gradient& loss, const unit_visitor* visit,
                              const learning* how, gradients* found) {
    check(b, model.config);
    const Index d = hidden();
    const float epsilon = model.config.layer_norm_epsilon;
    const bool learn = found != nullptr;
    if (transposed.empty()) pack_transposed();

    remaining left;
    const float* const last =
        run_layers(b, {true, learn, learn, learn ? how->temperature : 0}, left, nullptr);
    const matrix vectors = pooled(last, left), output = outputs(vectors, left);
    matrix gradient = matrix::Zero(output.rows(), output.cols());
    loss(output, gradient);
    check_shape("gradient", gradient, output.rows(), output.cols());
    if (model.is_per_token()) // what is gone has no part in an answer, minus infinity or not
        for (Index t = 0; t < gradient.rows(); ++t)
            if (!carries() && left.groups[static_cast<std::size_t>(t)] ==
                                  left.groups[static_cast<std::size_t>(t) + 1])
                gradient.row(t).setZero();
    const outputs_gradient above = outputs_backward(model, vectors, output, gradient);
    if (learn && model.head) {
        head& to = *found->weights.head;
        const auto add = [](const matrix& of_outputs, const matrix& inputs, dense& sum) {
            add_weight_gradient(of_outputs.rows(), of_outputs.data(), of_outputs.cols(),
                                inputs.data(), sum.weight, sum.bias);
        };
        add(gradient, to.before ? above.inner : vectors, to.output);
        if (to.before) add(above.at_before, vectors, *to.before);
    }

    // From here on, the residual stream's place holds the gradient at it.
    float* const residual = stream.get<float>(b.tokens() * d);
    matrix last_rows; // which pooling weighs by what is left, or takes the largest of
    if (!left.carry.empty() || pool() == pooling::max)
        last_rows = Eigen::Map<const matrix>(last, left.offsets.back(), d);
    descent down = pool_backward(left, vectors, above.at_pooled, last_rows, residual);
    if (model.is_per_token() && !carries()) // log(carry) is added to logits
        for (std::size_t t = 0; t < left.carry.size(); ++t)
            if (left.carry[t] > least_carry)
                down.carry[t] += gradient.row(static_cast<Index>(t)).sum() / left.carry[t];
    std::vector<float> carry_after = left.carry;

    for (std::size_t l = depth(); l-- > 0;) {
        const layer& y = model.layers[l];
        layer* const to = learn ? &found->weights.layers[l] : nullptr;
        record& r = records[l];
        const bool soft = !r.carry.empty();
        const Index tokens = down.offsets.back(), n = filters(l), columns = context_columns(l);
        const Index all_tokens = r.offsets.back();
        const float* const attention_sum = r.attention_sum.get<float>(tokens * d);
        const float* const output_sum = r.output_sum.get<float>(tokens * d);
        const float* const before = r.intermediate.get<float>(tokens * n);
        const float* const input = learn ? r.input.get<float>(all_tokens * d) : nullptr;

        if (soft) {
            const double weight = how->weights.empty() ? 0 : how->weights[l];
            found->left[l] = pare::mask_penalty(pare::simd, carry_after, r.offsets,
                                                how->lambda * weight, down.carry);
            add_left_by_threshold(l, carry_after, weight, how->temperature,
                                  found->left_by_threshold);
        } else if (learn) {
            found->left[l] = 0;
            for (std::size_t s = 0; s + 1 < b.offsets.size(); ++s)
                found->left[l] += static_cast<double>(down.offsets[s + 1] - down.offsets[s]) /
                                  static_cast<double>(b.offsets[s + 1] - b.offsets[s]) /
                                  static_cast<double>(b.sequences());
        }

        matrix active(tokens, n), active_gradient(tokens, n), middle(learn ? tokens : 0, d);
        norm_gradient of_output(learn, tokens, d), of_attention(learn, tokens, d);
        for_row_blocks(tokens, [&](Index first, Index rows, Index) {
            float* const g = residual + first * d;
            of_output.backward(y.output_norm, epsilon, first, rows, output_sum + first * d, g);
            transposed[l].output.assign(g, rows, row(active_gradient, first));
            activate(model.config.activation, rows * n, before + first * n, row(active, first));
            if (learn) norm(y.attention_norm, rows, attention_sum + first * d, row(middle, first));
        });
        const rows at_outputs{nullptr, residual, tokens, d};
        if (visit)
            (*visit)({l, unit_kind::filter, rows_of(active), rows_of(active_gradient), at_outputs});
        if (learn) {
            of_output.add_to(to->output_norm);
            add_weight_gradient(tokens, residual, d, active.data(), to->output.weight,
                                to->output.bias);
        }

        matrix context_gradient(tokens, columns);
        for_row_blocks(tokens, [&](Index first, Index rows, Index) {
            float *const g = residual + first * d, *const u = row(active_gradient, first);
            activate_backward(model.config.activation, rows * n, before + first * n, u, u);
            transposed[l].intermediate.add(u, rows, g);
            of_attention.backward(y.attention_norm, epsilon, first, rows, attention_sum + first * d,
                                  g);
            transposed[l].attention_output.assign(g, rows, row(context_gradient, first));
        });
        if (learn) {
            of_attention.add_to(to->attention_norm);
            add_weight_gradient(tokens, active_gradient.data(), n, middle.data(),
                                to->intermediate.weight, to->intermediate.bias);
            const float* kept = r.context.data();
            matrix kept_context;
            if (!r.kept.empty()) {
                kept_context.resize(tokens, columns);
                pare::gather_rows(pare::simd, r.kept, pare::from_to(r.context, kept_context));
                kept = kept_context.data();
            }
            add_weight_gradient(tokens, residual, d, kept, to->attention_output.weight,
                                to->attention_output.bias);
            if (!r.kept.empty())
                undrop(l, r, input, down, residual, context_gradient, found->weights);
        }

        fading_gradients others;
        if (soft)
            others = fade_backward(l, r, how->temperature, input, residual, context_gradient, down,
                                   *found);
        const Index projected = projected_columns(l);
        const auto of_heads =
            by_head<const float>(l, r.qkv.get<float>(all_tokens * projected), all_tokens);
        float* const at_projected = qkv.get<float>(all_tokens * projected);
        const auto at_heads =
            in_rows(at_projected, of_heads.heads, of_heads.q.size, of_heads.v.size);
        attention_backward(of_heads, r.offsets,
                           soft ? fading{r.key_bias.data(), r.carry.data()} : fading{},
                           by_distance(l, r.positions), r.context.data(), context_gradient.data(),
                           at_heads, soft ? &others : nullptr, attention_scratch);
        if (visit)
            (*visit)({l, unit_kind::head, rows_of(r.context), rows_of(context_gradient), at_outputs,
                      rows_of(of_heads.q, of_heads.heads, all_tokens),
                      rows_of(at_heads.q, of_heads.heads, all_tokens)});
        if (l == 0 && !learn) return; // nothing below is masked
        for_row_blocks(all_tokens, [&](Index first, Index rows, Index) {
            transposed[l].qkv.add(at_projected + first * projected, rows, residual + first * d);
        });
        if (learn)
            for (const auto& [part, at] :
                 {std::pair{&to->query, at_heads.q}, std::pair{&to->key, at_heads.k},
                  std::pair{&to->value, at_heads.v}})
                add_weight_gradient(all_tokens, at.data, projected, input, part->weight,
                                    part->bias);
        if (soft) {
            for (std::size_t t = 0; t < r.carry.size(); ++t) {
                const float of_log = others.key_bias[t];
                down.carry[t] += others.query_weights[t] +
                                 (r.carry[t] > least_carry ? of_log / r.carry[t] : 0.f);
            }
            carry_after = r.carry;
        }
    }
    if (learn) embed_backward(b, residual, found->weights);
}

void network::end_backward() {
    state_->records.clear();
    state_->transposed.clear();
}

void network::backward_units(const batch& b, const loss_gradient& loss, const unit_visitor& visit) {
    state_->backward(b, loss, &visit, nullptr, nullptr);
}

void network::learn(const batch& b, const loss_gradient& loss, const learning& how,
                    gradients& found) {
    const std::size_t depth = state_->depth();
    check(how, depth);
    check_gradients(found.weights, state_->model);
    found.begin(depth);
    state_->backward(b, loss, nullptr, &how, &found);
}

} // namespace encoder
