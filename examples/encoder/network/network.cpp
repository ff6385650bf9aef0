#include "network.hpp"

#include "check.hpp"
#include "encoder/report/report.hpp"
#include "network_state.hpp"

#include <pare/distance_buckets.hpp>

#include <limits>
#include <numeric>
#include <utility>

namespace encoder {
namespace {

void scale_columns(const vector& by, Index rows, float* y) {
    if (by.size() > 0)
        Eigen::Map<matrix>(y, rows, by.size()).array().rowwise() *= by.transpose().array();
}

} // namespace

dense stack_projections(const layer& y) {
    const Index n = 2 * y.query.weight.rows() + y.value.weight.rows();
    dense all{matrix(n, y.query.weight.cols()), vector(n)};
    all.weight << y.query.weight, y.key.weight, y.value.weight;
    all.bias << y.query.bias, y.key.bias, y.value.bias;
    return all;
}

matrix biases_by_distance(const layer& y) {
    if (y.distance_bias.rows() == 0) return {};
    const pare::distance_buckets buckets{y.distance_bias.rows()};
    matrix all(y.distance_bias.cols(), 2 * buckets.max_distance + 1);
    pare::expand_buckets(y.distance_bias, all, buckets);
    return all;
}

matrix stack_exit(const dense& exit) {
    matrix all(exit.weight.rows(), exit.weight.cols() + 1);
    all << exit.weight, exit.bias;
    return all;
}

network::state::state(encoder::model m)
    : model(std::move(m)), context_masks(depth()), active_masks(depth()) {
    check(model);
    pruning = model.tokens;
    pack();
}

void network::state::pack() {
    if (model.config.narrow_embeddings > 0)
        embedding_projection.replace(model.embedding_projection.weight,
                                     model.embedding_projection.bias);
    packed.resize(depth());
    pare::openmp{}.run(static_cast<Index>(depth()), [&](Index at, Index) {
        const auto l = static_cast<std::size_t>(at);
        const layer& y = model.layers[l];
        packed_layer& p = packed[l];
        const auto pack_dense = [](const dense& d, linear& to) { to.replace(d.weight, d.bias); };
        pack_dense(stack_projections(y), p.qkv);
        pack_dense(y.attention_output, p.attention_output);
        pack_dense(y.intermediate, p.intermediate);
        pack_dense(y.output, p.output);
        p.distance_bias = biases_by_distance(y);
        p.exit.replace(model.exits.empty() ? matrix() : stack_exit(model.exits[l]), vector());
    });
}

const layer& network::state::at(std::size_t l) const {
    if (l >= depth()) fail("layer " + std::to_string(l) + " of " + std::to_string(depth()));
    return model.layers[l];
}

void network::state::project(std::size_t l, const float* x, Index first, Index rows, Index tokens,
                             float* block, float* to) const {
    const Index columns = projected_columns(l);
    packed[l].qkv.assign(x, rows, block);
    const projections<float> heads_of = by_head(l, to, tokens);
    const float* next = block;
    for (const head_rows<float>& part : {heads_of.q, heads_of.k, heads_of.v})
        for (Index head = 0; head < heads_of.heads; ++head, next += part.size) {
            const float* from = next;
            float* y = part.data + head * part.head_stride + first * part.size;
            for (Index r = 0; r < rows; ++r, from += columns, y += part.size)
                std::copy_n(from, part.size, y);
        }
}

void network::state::add_embeddings(const batch& b, Index first, Index rows, float* y) const {
    auto end = std::upper_bound(b.offsets.begin(), b.offsets.end(), first); // of the row's sequence
    const Index columns = model.config.embedding_columns();
    for (Index t = first; t < first + rows; ++t) {
        if (t == *end) ++end;
        Eigen::Map<Eigen::RowVectorXf> row(y + (t - first) * columns, columns);
        const Index id = b.ids[static_cast<std::size_t>(t)], words = model.config.vocabulary;
        row = model.word_embeddings.row(id % words) +
              model.position_embeddings.row(model.config.first_position + t - *(end - 1));
        if (model.config.types > 0) row += model.type_embeddings.row(id / words);
    }
}

void network::state::embed(const batch& b, Index first, Index rows, float* y) const {
    if (model.config.narrow_embeddings == 0) {
        add_embeddings(b, first, rows, y);
        norm(model.embedding_norm, rows, y, y);
        return;
    }
    matrix narrow(rows, model.config.narrow_embeddings);
    add_embeddings(b, first, rows, narrow.data());
    norm(model.embedding_norm, rows, narrow.data(), narrow.data());
    embedding_projection.assign(narrow.data(), rows, y);
}

float* network::state::run_layers(const batch& b, const pass& how, remaining& left,
                                  std::vector<token_use>* use) {
    const bool keep = how.records, soft = how.temperature > 0 && !pruning.numbers.empty();
    const bool dropping = how.drop && !soft && !pruning.numbers.empty();
    left = {b.offsets, b.offsets, {}, {}, {}, {}, b.pins};
    if (model.is_per_token()) {
        left.groups.resize(static_cast<std::size_t>(b.tokens()) + 1);
        std::iota(left.groups.begin(), left.groups.end(), std::int64_t{0});
    }
    if ((dropping || soft) && carries())
        left.gone = matrix::Zero(static_cast<Index>(left.pooled_by().size()) - 1, hidden());
    if (soft) left.carry.assign(static_cast<std::size_t>(b.tokens()), 1.f);
    if (use) use->resize(depth());
    Index tokens = b.tokens();
    const Index d = hidden();
    if (keep) records.resize(depth());
    float *const residual = stream.get<float>(tokens * d), *const blocks = get_wide();
    const auto get_qkv = [&](std::size_t l) {
        return (keep ? records[l].qkv : qkv).get<float>(tokens * projected_columns(l));
    };
    const auto get_input = [&](std::size_t l) {
        return how.inputs && l < depth() ? records[l].input.get<float>(tokens * d) : nullptr;
    };
    float *projected = depth() > 0 ? get_qkv(0) : nullptr, *const input = get_input(0);
    for_row_blocks(tokens, [&](Index first, Index rows, Index slot) {
        float* const y = residual + first * d;
        embed(b, first, rows, y);
        if (input) std::copy_n(y, rows * d, input + first * d);
        if (depth() > 0) project(0, y, first, rows, tokens, blocks + slot * wide_size(), projected);
    });

    for (std::size_t l = 0; l < depth(); ++l) {
        const Index columns = context_columns(l), n = filters(l);
        record* const r = keep ? &records[l] : nullptr;
        if (keep) {
            r->context.resize(tokens, columns);
            r->offsets = left.offsets;
            r->positions = left.positions;
            r->groups = left.groups;
            r->pins = left.pins;
            r->kept.clear();
            r->carry = left.carry;
        }
        float* heads_out = keep ? r->context.data() : context.get<float>(tokens * columns);
        if (use)
            for (std::size_t s = 0; s + 1 < left.offsets.size(); ++s)
                (*use)[l].attend(left.offsets[s + 1] - left.offsets[s]);
        const Index came = tokens;
        if (soft) {
            attend_fading(l, projected, how.temperature, *r, left);
        } else if (dropping && columns > 0) { // without heads nothing says who matters
            heads_out = attend_dropping(l, projected, residual, heads_out, r, left);
            tokens = left.offsets.back();
        } else {
            attend(l, projected, left.offsets, left.positions, heads_out);
        }
        if (use) {
            (*use)[l].kept += tokens;
            if (tokens < came && carries() && !model.exits.empty())
                (*use)[l].guessed += model.is_per_token() ? came - tokens : b.sequences();
        }

        float* const first_sum = keep ? r->attention_sum.get<float>(tokens * d) : residual;
        float* const second_sum = keep ? r->output_sum.get<float>(tokens * d) : residual;
        float* const before = keep ? r->intermediate.get<float>(tokens * n) : nullptr;
        // The next layer's projections may take the place of this layer's, which attention has
        // read.
        float* const next = l + 1 < depth() ? get_qkv(l + 1) : nullptr;
        float* const next_input = get_input(l + 1);
        for_row_blocks(tokens, [&](Index first, Index rows, Index slot) {
            float *const block = blocks + slot * wide_size(), *const y = residual + first * d;
            const auto add = [&](const linear& layer, const float* in, float* sum,
                                 const layer_norm& n_after) {
                if (sum != y) std::copy_n(y, rows * d, sum);
                layer.add(in, rows, sum);
                norm(n_after, rows, sum, y);
            };
            float* const c = heads_out + first * columns;
            if (!keep) scale_columns(context_masks[l], rows, c);
            add(packed[l].attention_output, c, first_sum + first * d,
                model.layers[l].attention_norm);

            float* const u = keep ? before + first * n : block;
            packed[l].intermediate.assign(y, rows, u);
            activate(model.config.activation, rows * n, u, block);
            if (!keep) scale_columns(active_masks[l], rows, block);
            add(packed[l].output, block, second_sum + first * d, model.layers[l].output_norm);

            if (next_input) std::copy_n(y, rows * d, next_input + first * d);
            if (next) project(l + 1, y, first, rows, tokens, block, next);
        });
        projected = next;
    }
    return residual;
}

float network::state::carry_offset(const remaining& left, Index t) {
    if (left.carry.empty()) return 0;
    return std::log(std::max(left.carry[static_cast<std::size_t>(t)], least_carry));
}

void network::state::add_left(const remaining& left, matrix& outputs) const {
    for (Index t = 0; t < outputs.rows(); ++t) {
        const Index row = left.groups[static_cast<std::size_t>(t)];
        outputs.row(t).array() += row < left.groups[static_cast<std::size_t>(t) + 1]
                                      ? carry_offset(left, row)
                                      : -std::numeric_limits<float>::infinity();
    }
}

matrix network::state::pooled(const float* rows, const remaining& left) const {
    const std::vector<std::int64_t>& offsets = left.pooled_by();
    const auto sequences = static_cast<Index>(offsets.size()) - 1;
    matrix result(sequences, hidden());
    const Eigen::Map<const matrix> all(rows, left.offsets.back(), hidden());
    pare::openmp{}.run(sequences, [&](Index s, Index) {
        const auto at = static_cast<std::size_t>(s);
        const Index first = offsets[at], n = offsets[at + 1] - first;
        auto sum = result.row(s);
        if (n > 0)
            sum = all.row(first);
        else
            sum.setZero();
        if (pool() == pooling::cls) return;
        if (pool() == pooling::max) {
            for (Index t = 0; t < n; ++t)
                sum = sum.cwiseMax(
                    (all.row(first + t).array() + carry_offset(left, first + t)).matrix());
            return;
        }
        auto count = static_cast<float>(n);
        if (left.carry.empty()) {
            for (Index t = 1; t < n; ++t) sum += all.row(first + t);
        } else {
            // A copy, as it begins where a cache line does: the order of the sum depends on that.
            const vector carry = Eigen::Map<const vector>(left.carry.data() + first, n);
            sum.noalias() = carry.transpose() * all.middleRows(first, n);
            count = carry.sum();
        }
        if (left.gone.size() > 0) {
            sum += left.gone.row(s);
            count = left.count(at);
        }
        sum /= count;
    });
    return result;
}

network::network(encoder::model m) : state_(std::make_unique<state>(std::move(m))) {}
network::~network() = default;
network::network(network&&) noexcept = default;
network& network::operator=(network&&) noexcept = default;

const encoder::model& network::model() const {
    return state_->model;
}

std::string network::place() const {
    return processor_name() + ", " + std::to_string(threads()) + " threads";
}

std::int64_t network::backward_tokens() const {
    Index numbers = 1; // of a token, that records keep of all layers
    for (std::size_t l = 0; l < state_->depth(); ++l)
        numbers += 2 * state_->hidden() + state_->projected_columns(l) +
                   state_->context_columns(l) + state_->filters(l);
    constexpr Index most = 400'000'000 / sizeof(float); // a record's bytes
    return std::clamp<std::int64_t>(most / numbers, 256, 2048);
}

std::unique_ptr<engine> network::make(encoder::model m) const {
    return std::make_unique<network>(std::move(m));
}

void network::embed(const batch& b, matrix& x) {
    check(b, model().config);
    x.resize(b.tokens(), state_->hidden());
    for_row_blocks(x.rows(), [&](Index first, Index rows, Index) {
        state_->embed(b, first, rows, row(x, first));
    });
}

void network::attention(std::size_t l, const matrix& x, const batch& b, matrix& context,
                        pare::view<float, 1> scores) {
    state& s = *state_;
    s.at(l);
    check(b, s.model.config);
    check_shape("x", x, b.tokens(), s.hidden());
    const Index tokens = x.rows(), columns = s.context_columns(l);
    float* const projected = s.qkv.get<float>(tokens * s.projected_columns(l));
    float* const blocks = s.get_wide();
    for_row_blocks(tokens, [&](Index first, Index rows, Index slot) {
        s.project(l, row(x, first), first, rows, tokens, blocks + slot * s.wide_size(), projected);
    });
    context.resize(tokens, columns);
    s.attend(l, projected, b.offsets, {}, context.data(), scores);
    if (scores.extent(0) == 0) return;
    s.scale_scores(b.offsets, {}, scores);
    for (std::size_t t = 0; t < b.pins.size(); ++t)
        if (b.pins[t]) scores(static_cast<Index>(t)) = pin_score;
}

void network::activation(std::size_t l, const matrix& x, matrix& active) {
    const state& s = *state_;
    s.at(l);
    check_shape("x", x, x.rows(), s.hidden());
    active.resize(x.rows(), s.filters(l));
    for_row_blocks(x.rows(), [&](Index first, Index rows, Index) {
        float* const y = row(active, first);
        s.packed[l].intermediate.assign(row(x, first), rows, y);
        activate(s.model.config.activation, rows * active.cols(), y, y);
    });
}

void network::add_units(std::size_t l, unit_kind kind, const matrix& values, const matrix& x,
                        matrix& sum) {
    const state& s = *state_;
    check_shape(kind == unit_kind::head ? "context" : "active", values, x.rows(),
                reader(s.at(l), kind).weight.cols());
    check_shape("x", x, x.rows(), s.hidden());
    sum.resize(x.rows(), s.hidden());
    for_row_blocks(x.rows(), [&](Index first, Index rows, Index) {
        if (&x != &sum) std::copy_n(row(x, first), rows * s.hidden(), row(sum, first));
        s.packed[l].reader(kind).add(row(values, first), rows, row(sum, first));
    });
}

void network::normalize(std::size_t l, unit_kind kind, const matrix& sum, matrix& x) {
    const state& s = *state_;
    const layer& y = s.at(l);
    const layer_norm& by = kind == unit_kind::head ? y.attention_norm : y.output_norm;
    check_shape("sum", sum, sum.rows(), s.hidden());
    x.resize(sum.rows(), s.hidden());
    for_row_blocks(sum.rows(), [&](Index first, Index rows, Index) {
        s.norm(by, rows, row(sum, first), row(x, first));
    });
}

void network::set_token_pruning(token_pruning p) {
    check(p, state_->depth());
    state_->pruning = std::move(p);
}

const token_pruning& network::tokens() const {
    return state_->pruning;
}

void network::forward(const batch& b, matrix& outputs, std::vector<token_use>* use) {
    check(b, model().config);
    state::remaining left;
    const float* const last = state_->run_layers(b, {}, left, use);
    outputs = state_->outputs(state_->pooled(last, left), left);
}

void network::update(const std::function<void(encoder::model&)>& change) {
    state& s = *state_;
    change(s.model);
    s.pack();
    s.pack_transposed();
}

void network::replace(std::size_t l, unit_kind kind, dense with) {
    state& s = *state_;
    check_shape(kind == unit_kind::head ? "attention output" : "output", with, s.hidden(),
                reader(s.at(l), kind).weight.cols());
    s.packed[l].reader(kind).replace(with.weight, with.bias);
    reader(s.model.layers[l], kind) = std::move(with);
    s.transposed.clear();
}

void network::set_masks(masks m) {
    state& s = *state_;
    complete(m, s.model);
    for (std::size_t l = 0; l < s.depth(); ++l)
        s.context_masks[l] =
            m.heads[l].transpose().replicate(s.model.layers[l].values(), 1).reshaped();
    s.active_masks = std::move(m.filters);
}

} // namespace encoder
