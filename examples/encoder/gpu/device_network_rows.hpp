// What device_network does with rows and masks, and where its weights come from.
#pragma once

#include "device_network.hpp"

namespace encoder {

template <class Policy, class T>
void device_network<Policy, T>::upload_weights() {
    const auto tables = {std::pair(&model_.word_embeddings, &words_),
                         std::pair(&model_.position_embeddings, &positions_),
                         std::pair(&model_.type_embeddings, &types_)};
    for (const auto& [from, to] : tables) device::upload(policy_, from->data(), from->size(), *to);
    device::upload(policy_, model_.embedding_norm, embedding_norm_);
    if (model_.config.narrow_embeddings > 0)
        device::upload(policy_, model_.embedding_projection, embedding_projection_);
    while (layers_.size() < model_.layers.size()) layers_.push_back(std::make_unique<weights>());
    for (std::size_t l = 0; l < model_.layers.size(); ++l) {
        const layer& from = model_.layers[l];
        weights& to = *layers_[l];
        device::upload(policy_, stack_projections(from), to.qkv);
        device::upload(policy_, from.attention_output, to.attention_output);
        device::upload(policy_, from.attention_norm, to.attention_norm);
        device::upload(policy_, from.intermediate, to.intermediate);
        device::upload(policy_, from.output, to.output);
        device::upload(policy_, from.output_norm, to.output_norm);
        const matrix biases = biases_by_distance(from);
        to.distances = biases.cols();
        device::upload(policy_, biases.data(), biases.size(), to.distance_bias);
        if (!model_.exits.empty()) device::upload(policy_, model_.exits[l], to.exit);
    }
    for_head([&](const dense& from, auto& to) { device::upload(policy_, from, to); });
    learned_ = false;
}

template <class Policy, class T>
void device_network<Policy, T>::start(const batch& b, bool leaving) {
    check(b, model_.config);
    const auto layers = static_cast<index_t>(leaving ? layers_.size() : 0);
    batch_.take(policy_, b, layers);
    came_ = left_ = batch_.all();
    moved_ = false;
    const bool by_lengths = pruning_.by != token_pruning::rule::threshold;
    for (index_t l = 0; by_lengths && l < layers; ++l) {
        const auto at = static_cast<std::size_t>(l);
        const bool heads =
            layers_[at]->attention_output.inputs > 0; // else nothing says who matters
        const device::place* const before = l > 0 ? batch_.here_behind(l - 1) : came_.here;
        device::place* const behind = batch_.here_behind(l);
        behind[0] = 0;
        for (index_t s = 0; s < came_.count; ++s) {
            const device::place n = before[s + 1] - before[s];
            behind[s + 1] = behind[s] + (heads ? static_cast<device::place>(tokens_to_keep(
                                                     pruning_.by, pruning_.numbers[at], n))
                                               : n);
        }
    }
    batch_.upload(by_lengths ? layers : 0);
}

template <class Policy, class T>
matrix device_network<Policy, T>::download(const float* from, index_t rows, index_t columns) {
    const index_t size = rows * columns;
    if (!downloads_ || size > download_room_) {
        downloads_.reset();
        downloads_.reset(new staging(policy_.template staging<float>(size)));
        download_room_ = size;
    }
    downloads_->fetch(from, size, 0);
    downloads_->wait();
    return Eigen::Map<const matrix>(downloads_->data(), rows, columns);
}

template <class Policy, class T>
void device_network<Policy, T>::set_masks(masks m) {
    complete(m, model_);
    for (std::size_t l = 0; l < layers_.size(); ++l) {
        weights& to = *layers_[l];
        const vector of_columns =
            m.heads[l].transpose().replicate(model_.layers[l].values(), 1).reshaped();
        to.masked_heads = of_columns.size() > 0;
        to.masked_filters = m.filters[l].size() > 0;
        device::upload(policy_, of_columns.data(), of_columns.size(), to.heads_mask);
        device::upload(policy_, m.filters[l].data(), m.filters[l].size(), to.filters_mask);
    }
}

template <class Policy, class T>
void device_network<Policy, T>::embed(const batch& b, rows& x) {
    start(b, false);
    embed_rows(nullptr, make_rows(b.tokens(), hidden(), x));
}

template <class Policy, class T>
void device_network<Policy, T>::units(std::size_t l, unit_kind kind, const rows& x, const batch& b,
                                      rows& values) {
    check_rows("x", x, b.tokens(), hidden());
    const index_t columns = reader(l, kind).inputs;
    T* const out = make_rows(x.count, columns, values);
    if (kind == unit_kind::filter) return activate(l, x.count, data(x), out, nullptr, out);
    start(b, false);
    attend(l, data(x), projected_, {}, nullptr, out, nullptr);
}

template <class Policy, class T>
void device_network<Policy, T>::add_units(std::size_t l, unit_kind kind, const rows& values,
                                          const rows& x, rows& sum) {
    const dense_weights& to = reader(l, kind);
    check_rows("x", x, x.count, hidden());
    check_rows("values", values, x.count, to.inputs);
    add_rows(to, x.count, data(values), data(x), make_rows(x.count, hidden(), sum));
}

template <class Policy, class T>
void device_network<Policy, T>::normalize(std::size_t l, unit_kind kind, const rows& sum, rows& x) {
    check_rows("sum", sum, sum.count, hidden());
    const weights& w = layer_at(l);
    normalize_rows(kind == unit_kind::head ? w.attention_norm : w.output_norm, sum.count, data(sum),
                   make_rows(sum.count, hidden(), x));
}

template <class Policy, class T>
void device_network<Policy, T>::replace(std::size_t l, unit_kind kind, dense with) {
    const bool is_head = kind == unit_kind::head;
    dense_weights& to = reader(l, kind);
    check_shape(is_head ? "attention output" : "output", with, hidden(), to.inputs);
    if (learned_) fetch_weights();
    device::upload(policy_, with, to);
    encoder::reader(model_.layers[l], kind) = std::move(with);
}

} // namespace encoder
