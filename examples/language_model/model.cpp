#include "model.hpp"

#include "encoder/files/file.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>
#include <string>
#include <utility>

namespace language {
namespace {

using encoder::detail::fail;

/// A number that sizes arrays: from 1 to 2^24, so that no product of two of them overflows.
index_t checked(const gguf_file& file, const std::string& key, std::uint64_t n) {
    if (n < 1 || n > (std::uint64_t{1} << 24))
        fail(file.path(), key, " is ", n, "; from 1 to 16777216 are read");
    return static_cast<index_t>(n);
}
index_t extent(const gguf_file& file, const std::string& key) {
    return checked(file, key, file.number(key));
}

/// Of each layer; the file may have one number for all.
std::vector<index_t> extents(const gguf_file& file, const std::string& key, index_t layers) {
    if (!file.is_array(key))
        return std::vector<index_t>(static_cast<std::size_t>(layers), extent(file, key));
    std::vector<index_t> all;
    for (const std::uint64_t n : file.numbers(key)) all.push_back(checked(file, key, n));
    if (static_cast<index_t>(all.size()) != layers)
        fail(file.path(), key, " has ", all.size(), " numbers for ", layers, " layers");
    return all;
}

double positive(const gguf_file& file, const std::string& key) {
    const double x = file.real(key);
    if (!(x > 0)) fail(file.path(), key, " is ", x, ", and should be more than 0");
    return x;
}

/// Architectures that are read. "deci" is llama.cpp's for a llama whose layers have widths of their own.
struct family {
    const char* name;
    bool turns_halves; ///< against each other, by positions; else neighbours
    bool has_norms;    ///< of queries and keys
};
constexpr family families[] = {
    {"llama", false, false}, {"deci", false, false}, {"qwen2", true, false}, {"qwen3", true, true}};

const family* find_family(const std::string& architecture) {
    const auto found = std::find_if(std::begin(families), std::end(families),
                                    [&](const family& f) { return architecture == f.name; });
    return found == std::end(families) ? nullptr : found;
}

const family& family_of(const gguf_file& file) {
    const std::string kind = file.text("general.architecture");
    if (const family* known = find_family(kind)) return *known;
    fail(file.path(), "its architecture is ", kind, "; llama, deci, qwen2 and qwen3 are read");
}

/// What the file says of the model must be known: it may change what that computes.
void check_keys(const gguf_file& file, const std::string& of_model) {
    static const std::set<std::string> read = {"attention.causal",
                                               "attention.head_count",
                                               "attention.head_count_kv",
                                               "attention.key_length",
                                               "attention.layer_norm_rms_epsilon",
                                               "attention.value_length",
                                               "block_count",
                                               "context_length",
                                               "embedding_length",
                                               "expert_count",
                                               "feed_forward_length",
                                               "rope.dimension_count",
                                               "rope.freq_base",
                                               "rope.scaling.attn_factor",
                                               "rope.scaling.factor",
                                               "rope.scaling.type"},
                                       without_effect = {"expert_used_count",
                                                         "rope.scaling.finetuned",
                                                         "rope.scaling.original_context_length",
                                                         "tensor_data_layout", "vocab_size"};
    for (const std::string& key : file.keys()) {
        if (key.compare(0, of_model.size(), of_model) != 0) continue;
        const std::string name = key.substr(of_model.size());
        if (read.count(name) + without_effect.count(name) == 0)
            fail(file.path(), "has the key ", key, ", whose meaning is not known here");
    }
}

/// What places are divided by before a model takes them for its own. A factor without a type is
/// linear, as readers have it.
double scale_of_places(const gguf_file& file, const std::string& of_model) {
    const std::string scaling = of_model + "rope.scaling.", type = scaling + "type",
                      factor = scaling + "factor", of_logits = scaling + "attn_factor";
    if (file.has(of_logits) && file.real(of_logits) != 1)
        fail(file.path(), of_logits, " is ", file.real(of_logits), "; only 1 is read");
    const std::string kind = file.has(type) ? file.text(type) : "linear";
    if (kind == "none" || !file.has(factor)) {
        if (kind == "none" || kind == "linear") return 1;
    } else if (kind == "linear") {
        return positive(file, factor);
    }
    fail(file.path(), "its rotary positions are scaled (", kind, "), which is not read");
}

/// model::turns, by the base and what is in the file beside it.
std::vector<double> read_turns(const gguf_file& file, const std::string& of_model, index_t size) {
    constexpr const char* name = "rope_freqs.weight";
    const std::string base = of_model + "rope.freq_base";
    const double speed = file.has(base) ? positive(file, base) : 10000,
                 scale = scale_of_places(file, of_model);
    std::vector<float> factors(static_cast<std::size_t>(size / 2), 1.0f);
    if (file.entries().count(name) > 0) factors = file.read(name, {size / 2});
    std::vector<double> turns;
    for (std::size_t i = 0; i < factors.size(); ++i) {
        if (!(factors[i] > 0))
            fail(file.path(), "tensor ", name, " holds ", factors[i], " at element ", i,
                 ", and should hold more than 0");
        const double share = 2.0 * static_cast<double>(i) / static_cast<double>(size);
        turns.push_back(std::pow(speed, -share) / (scale * static_cast<double>(factors[i])));
    }
    return turns;
}

/// Of each layer.
struct widths {
    std::vector<index_t> heads, groups, filters;

    widths(const gguf_file& file, const std::string& of_model) {
        const index_t layers = extent(file, of_model + "block_count");
        const std::string of_groups = of_model + "attention.head_count_kv";
        heads = extents(file, of_model + "attention.head_count", layers);
        groups = file.has(of_groups) ? extents(file, of_groups, layers) : heads;
        filters = extents(file, of_model + "feed_forward_length", layers);
    }
};

} // namespace

shape read_shape(const gguf_file& file) {
    if (file.has("split.count") && file.number("split.count") > 1)
        fail(file.path(), "is one of ", file.number("split.count"),
             " parts of a model; give the file that llama-gguf-split --merge makes of them");
    const std::string of = std::string(family_of(file).name) + ".";
    const auto given = [&](const char* name, index_t otherwise) {
        return file.has(of + name) ? extent(file, of + name) : otherwise;
    };
    const widths all(file, of);
    const auto largest = [](const std::vector<index_t>& x) {
        return *std::max_element(x.begin(), x.end());
    };
    shape c{};
    c.hidden = extent(file, of + "embedding_length");
    c.heads = largest(all.heads);
    c.groups = largest(all.groups);
    c.filters = largest(all.filters);
    c.length = extent(file, of + "context_length");
    c.epsilon = positive(file, of + "attention.layer_norm_rms_epsilon");
    if (!file.has(of + "attention.key_length") && c.hidden % c.heads != 0)
        fail(file.path(), c.hidden, " columns do not divide into ", c.heads, " heads");
    c.head_size = given("attention.key_length", c.hidden / c.heads);
    if (c.heads % c.groups != 0)
        fail(file.path(), c.heads, " heads do not divide into ", c.groups, " groups");
    for (std::size_t l = 0; l < all.heads.size(); ++l)
        if (all.heads[l] != all.groups[l] * c.heads_of_group())
            fail(file.path(), "layer ", l, " has ", all.heads[l], " heads and ", all.groups[l],
                 " groups, others ", c.heads, " and ", c.groups,
                 "; as many heads to each group are read");
    if (c.head_size % 2 != 0)
        fail(file.path(), "its heads have ", c.head_size, " columns, not pairs of them");
    for (const char* key : {"attention.value_length", "rope.dimension_count"})
        if (const index_t n = given(key, c.head_size); n != c.head_size)
            fail(file.path(), of, key, " is ", n, "; only ", c.head_size,
                 ", the columns of a head, is read");
    if (!file.flag(of + "attention.causal", true))
        fail(file.path(), "its attention is not causal, which is not read");
    if (file.has(of + "expert_count") && file.number(of + "expert_count") > 0)
        fail(file.path(), "it has ", file.number(of + "expert_count"),
             " experts, which are not read");
    scale_of_places(file, of); // which throws
    check_keys(file, of);
    const auto words = file.entries().find("token_embd.weight");
    if (words == file.entries().end() || words->second.shape.size() != 2 ||
        words->second.shape[0] < 1)
        fail(file.path(), "has no matrix token_embd.weight");
    c.vocabulary = static_cast<index_t>(words->second.shape[0]);
    return c;
}

namespace {

/// Reads tensors, or only looks at what is said of them, and knows which it has not seen.
class tensors {
  public:
    tensors(const gguf_file& file, bool only_looks) : file_(file), only_looks_(only_looks) {
        for (const auto& [name, entry] : file.entries()) left_.insert(name);
    }
    matrix operator()(const std::string& name, index_t rows, index_t columns) {
        left_.erase(name);
        if (only_looks_) {
            file_.check(name, {rows, columns});
            return {};
        }
        const std::vector<float> values = file_.read(name, {rows, columns});
        return Eigen::Map<const matrix>(values.data(), rows, columns);
    }
    vector operator()(const std::string& name, index_t n) {
        left_.erase(name);
        if (only_looks_) {
            file_.check(name, {n});
            return {};
        }
        const std::vector<float> values = file_.read(name, {n});
        return Eigen::Map<const vector>(values.data(), n);
    }
    /// Of a matrix and a bias, if there is one.
    linear map(const std::string& name, index_t rows, index_t columns) {
        linear of{(*this)(name + ".weight", rows, columns), {}};
        if (has(name + ".bias")) of.bias = (*this)(name + ".bias", rows);
        return of;
    }
    bool has(const std::string& name) const { return file_.entries().count(name) > 0; }
    /// Of a tensor that is read elsewhere.
    void leave(const std::string& name) { left_.erase(name); }
    void check_all_read() const {
        if (!left_.empty())
            fail(file_.path(), "has a tensor ", *left_.begin(),
                 ", which a model of this kind that is "
                 "read here does not have");
    }

  private:
    const gguf_file& file_;
    bool only_looks_;
    std::set<std::string> left_;
};

model read_tensors(const gguf_file& file, const shape& c, bool only_looks) {
    const family& kind = family_of(file);
    const std::string of_model = std::string(kind.name) + ".";
    model m{};
    m.config = c;
    m.turns = read_turns(file, of_model, c.head_size);
    tensors read(file, only_looks);
    read.leave("rope_freqs.weight");
    m.words = read("token_embd.weight", c.vocabulary, c.hidden);
    const widths all(file, of_model);
    for (std::size_t i = 0; i < all.heads.size(); ++i) {
        const std::string of = "blk." + std::to_string(i) + ".";
        const index_t queries = all.heads[i] * c.head_size, keys = all.groups[i] * c.head_size,
                      filters = all.filters[i];
        layer l;
        l.before_attention = read(of + "attn_norm.weight", c.hidden);
        l.query = read.map(of + "attn_q", queries, c.hidden);
        l.key = read.map(of + "attn_k", keys, c.hidden);
        l.value = read.map(of + "attn_v", keys, c.hidden);
        l.projection = read.map(of + "attn_output", c.hidden, queries);
        if (kind.has_norms) {
            l.query_norm = read(of + "attn_q_norm.weight", c.head_size);
            l.key_norm = read(of + "attn_k_norm.weight", c.head_size);
        }
        if (kind.turns_halves) {
            for (matrix* rows : {&l.query.weight, &l.key.weight})
                *rows = with_neighbours(*rows, c.head_size);
            for (vector* of_heads : {&l.query.bias, &l.key.bias, &l.query_norm, &l.key_norm})
                *of_heads = with_neighbours(*of_heads, c.head_size);
        }
        l.before_filters = read(of + "ffn_norm.weight", c.hidden);
        l.gate = read.map(of + "ffn_gate", filters, c.hidden);
        l.up = read.map(of + "ffn_up", filters, c.hidden);
        l.down = read.map(of + "ffn_down", c.hidden, filters);
        m.layers.push_back(std::move(l));
    }
    m.last = read("output_norm.weight", c.hidden);
    if (read.has("output.weight")) m.head = read("output.weight", c.vocabulary, c.hidden);
    read.check_all_read();
    return m;
}

} // namespace

bool turns_halves(const std::string& architecture) {
    const family* const known = find_family(architecture);
    return known != nullptr && known->turns_halves;
}

namespace {

/// Where a row of a head whose halves are pairs stands if neighbours are.
index_t beside_its_pair(index_t row, index_t head_size) {
    const index_t i = row % head_size, half = head_size / 2;
    return row - i + 2 * (i % half) + i / half;
}

} // namespace

matrix with_neighbours(const matrix& halves, index_t head_size) {
    matrix pairs(halves.rows(), halves.cols());
    for (index_t row = 0; row < halves.rows(); ++row)
        pairs.row(beside_its_pair(row, head_size)) = halves.row(row);
    return pairs;
}
matrix with_halves(const matrix& pairs, index_t head_size) {
    matrix halves(pairs.rows(), pairs.cols());
    for (index_t row = 0; row < pairs.rows(); ++row)
        halves.row(row) = pairs.row(beside_its_pair(row, head_size));
    return halves;
}

model read_model(const gguf_file& file) {
    const shape c = read_shape(file);
    read_tensors(file, c, true); // what cannot be read is said before gigabytes are
    return read_tensors(file, c, false);
}

} // namespace language
