#include "model.hpp"

#include "encoder/files/safetensors.hpp"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <string_view>
#include <utility>

namespace language {
namespace {

template <class T>
std::string raw(T value) {
    return {reinterpret_cast<const char*>(&value), sizeof value};
}
std::string raw(std::string_view text) {
    return raw<std::uint64_t>(text.size()) + std::string(text);
}

// Types of values and of tensors, as numbered in the file.
constexpr std::uint32_t u32_value = 4, string_value = 8, array_value = 9, f32_tensor = 0,
                        f16_tensor = 1;

bool all_same(const std::vector<index_t>& all) {
    return std::equal(all.begin() + 1, all.end(), all.begin());
}

/// Type and value: one number where all are the same.
std::string numbers(const std::vector<index_t>& all) {
    const auto number = [](index_t n) { return raw(static_cast<std::uint32_t>(n)); };
    if (all_same(all)) return raw(u32_value) + number(all[0]);
    std::string value = raw(array_value) + raw(u32_value) + raw<std::uint64_t>(all.size());
    for (const index_t n : all) value += number(n);
    return value;
}

struct stored {
    std::vector<std::int64_t> shape; ///< outermost first
    std::uint32_t type;
    std::string bytes;
};

stored matrix_of(const std::string& name, const matrix& x) {
    const encoder::tensor t =
        encoder::make_tensor(name, {x.rows(), x.cols()}, x.data(), encoder::data_type::f16);
    return {t.shape, f16_tensor, {reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size()}};
}
stored vector_of(const vector& x) {
    return {{x.size()},
            f32_tensor,
            {reinterpret_cast<const char*>(x.data()), static_cast<std::size_t>(x.size()) * 4}};
}

/// The layers' matrices and biases.
std::map<std::string, stored> layers_of(const model& m, bool turns_halves) {
    std::map<std::string, stored> all;
    for (std::size_t i = 0; i < m.layers.size(); ++i) {
        const layer& l = m.layers[i];
        const auto add = [&, of = "blk." + std::to_string(i) + "."](const char* name, linear x,
                                                                    bool turned) {
            if (turned && turns_halves) {
                x.weight = with_halves(x.weight, m.config.head_size);
                x.bias = with_halves(x.bias, m.config.head_size);
            }
            all[of + name + ".weight"] = matrix_of(of + name, x.weight);
            if (x.bias.size() > 0) all[of + name + ".bias"] = vector_of(x.bias);
        };
        add("attn_q", l.query, true);
        add("attn_k", l.key, true);
        add("attn_v", l.value, false);
        add("attn_output", l.projection, false);
        add("ffn_gate", l.gate, false);
        add("ffn_up", l.up, false);
        add("ffn_down", l.down, false);
    }
    return all;
}

/// Of each layer.
struct layer_widths {
    std::vector<index_t> heads, groups, filters;

    explicit layer_widths(const model& m) {
        for (const layer& l : m.layers) {
            groups.push_back(groups_of(l, m.config));
            heads.push_back(groups.back() * m.config.heads_of_group());
            filters.push_back(l.up.weight.rows());
        }
    }
};

std::map<std::string, std::string> keys_of(const model& m, const gguf_file& from,
                                           const std::string& architecture) {
    constexpr const char* const name = "general.architecture";
    const std::string was = from.text(name) + ".", of = architecture + ".";
    std::map<std::string, std::string> all;
    for (const std::string& key : from.keys()) {
        const bool of_model = key.compare(0, was.size(), was) == 0;
        all[of_model ? of + key.substr(was.size()) : key] = std::string(from.bytes(key));
    }
    all[name] = raw(string_value) + raw(std::string_view(architecture));
    const layer_widths w(m);
    all[of + "attention.head_count"] = numbers(w.heads);
    all[of + "attention.head_count_kv"] = numbers(w.groups);
    all[of + "feed_forward_length"] = numbers(w.filters);
    for (const char* key : {"attention.key_length", "attention.value_length"})
        all[of + key] = numbers({m.config.head_size}); // else columns / heads
    all["general.file_type"] = numbers({1});           // most are F16
    return all;
}

} // namespace

std::string architecture_of(const model& m, const gguf_file& from) {
    const std::string was = from.text("general.architecture");
    if (was == "qwen3") return was;
    const layer_widths w(m);
    if (!all_same(w.groups) || !all_same(w.filters)) return "deci";
    const bool is_as_wide = w.heads[0] * m.config.head_size == m.config.hidden;
    return was == "qwen2" && !is_as_wide ? "llama" : was;
}

std::string to_gguf(const model& m, const gguf_file& from) {
    const std::string architecture = architecture_of(m, from);
    const auto keys = keys_of(m, from, architecture);
    std::map<std::string, stored> tensors = layers_of(m, turns_halves(architecture));
    for (const auto& [name, e] : from.entries())
        if (tensors.count(name) == 0)
            tensors[name] = {e.shape, e.type, {reinterpret_cast<const char*>(e.data), e.bytes}};

    const auto alignment = static_cast<std::size_t>(from.alignment());
    const auto pad = [&](std::string& x) {
        x.resize((x.size() + alignment - 1) / alignment * alignment, '\0');
    };
    constexpr std::uint32_t version = 3;
    std::string file = "GGUF" + raw(version) + raw<std::uint64_t>(tensors.size()) +
                       raw<std::uint64_t>(keys.size());
    for (const auto& [key, value] : keys) file += raw(std::string_view(key)) + value;
    std::size_t begin = 0;
    for (const auto& [name, t] : tensors) {
        file += raw(std::string_view(name)) + raw(static_cast<std::uint32_t>(t.shape.size()));
        for (auto n = t.shape.rbegin(); n != t.shape.rend(); ++n)
            file += raw(static_cast<std::uint64_t>(*n));
        file += raw(t.type) + raw(static_cast<std::uint64_t>(begin));
        begin += (t.bytes.size() + alignment - 1) / alignment * alignment;
    }
    pad(file);
    file.reserve(file.size() + begin);
    for (const auto& [name, t] : tensors) {
        file += t.bytes;
        pad(file);
    }
    return file;
}

} // namespace language
