#include "model.hpp"

#include "encoder/files/file.hpp"

#include <set>
#include <string>
#include <utility>

namespace language {
namespace {

using encoder::detail::fail;

/// A number that sizes arrays: from 1 to 2^24, so that no product of two of them overflows.
index_t extent(const gguf_file& file, const std::string& key) {
    const std::uint64_t n = file.number(key);
    if (n < 1 || n > (std::uint64_t{1} << 24))
        fail(file.path(), key, " is ", n, "; from 1 to 16777216 are read");
    return static_cast<index_t>(n);
}

double positive(const gguf_file& file, const std::string& key) {
    const double x = file.real(key);
    if (!(x > 0)) fail(file.path(), key, " is ", x, ", and should be more than 0");
    return x;
}

/// What the file says of the model must be known: it may change what that computes.
void check_keys(const gguf_file& file) {
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
    const std::string of_model = "llama.";
    for (const std::string& key : file.keys()) {
        if (key.compare(0, of_model.size(), of_model) != 0) continue;
        const std::string name = key.substr(of_model.size());
        if (read.count(name) + without_effect.count(name) == 0)
            fail(file.path(), "has the key ", key, ", whose meaning is not known here");
    }
}

/// Whatever type the file gives, or none: readers take a factor without one as linear.
void check_positions(const gguf_file& file) {
    const std::string type = "llama.rope.scaling.type";
    if (file.has(type) && file.text(type) != "none")
        fail(file.path(), "its rotary positions are scaled (", file.text(type),
             "), which is not read");
    for (const char* factor : {"llama.rope.scaling.factor", "llama.rope.scaling.attn_factor"})
        if (file.has(factor) && file.real(factor) != 1)
            fail(file.path(), "its rotary positions are scaled (", factor, " is ",
                 file.real(factor), "), which is not read");
    if (file.entries().count("rope_freqs.weight") > 0)
        fail(file.path(), "its rotary positions have factors of their own, which are not read");
}

} // namespace

shape read_shape(const gguf_file& file) {
    if (file.has("split.count") && file.number("split.count") > 1)
        fail(file.path(), "is one of ", file.number("split.count"),
             " parts of a model; give the file that llama-gguf-split --merge makes of them");
    if (const std::string kind = file.text("general.architecture"); kind != "llama")
        fail(file.path(), "its architecture is ", kind, "; llama is read");
    shape c{};
    c.hidden = extent(file, "llama.embedding_length");
    c.heads = extent(file, "llama.attention.head_count");
    c.groups = file.has("llama.attention.head_count_kv")
                   ? extent(file, "llama.attention.head_count_kv")
                   : c.heads;
    c.filters = extent(file, "llama.feed_forward_length");
    c.length = extent(file, "llama.context_length");
    c.rotary_base =
        file.has("llama.rope.freq_base") ? positive(file, "llama.rope.freq_base") : 10000;
    c.epsilon = positive(file, "llama.attention.layer_norm_rms_epsilon");
    if (c.hidden % c.heads != 0 || c.heads % c.groups != 0 || c.head_size() % 2 != 0)
        fail(file.path(), c.hidden, " columns, ", c.heads, " heads and ", c.groups,
             " groups do not divide each other into heads of an even size");
    for (const char* key : {"llama.attention.key_length", "llama.attention.value_length",
                            "llama.rope.dimension_count"})
        if (file.has(key) && file.number(key) != static_cast<std::uint64_t>(c.head_size()))
            fail(file.path(), key, " is ", file.number(key), "; only ", c.head_size(),
                 ", the columns of a head, is read");
    if (!file.flag("llama.attention.causal", true))
        fail(file.path(), "its attention is not causal, which is not read");
    if (file.has("llama.expert_count") && file.number("llama.expert_count") > 0)
        fail(file.path(), "it has ", file.number("llama.expert_count"),
             " experts, which are not read");
    check_positions(file);
    check_keys(file);
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
    model m{c, {}, {}, {}, {}};
    tensors read(file, only_looks);
    m.words = read("token_embd.weight", c.vocabulary, c.hidden);
    const index_t keys = c.groups * c.head_size(), layers = extent(file, "llama.block_count");
    for (index_t i = 0; i < layers; ++i) {
        const std::string of = "blk." + std::to_string(i) + ".";
        layer l;
        l.before_attention = read(of + "attn_norm.weight", c.hidden);
        l.query = read(of + "attn_q.weight", c.hidden, c.hidden);
        l.key = read(of + "attn_k.weight", keys, c.hidden);
        l.value = read(of + "attn_v.weight", keys, c.hidden);
        l.projection = read(of + "attn_output.weight", c.hidden, c.hidden);
        l.before_filters = read(of + "ffn_norm.weight", c.hidden);
        l.gate = read(of + "ffn_gate.weight", c.filters, c.hidden);
        l.up = read(of + "ffn_up.weight", c.filters, c.hidden);
        l.down = read(of + "ffn_down.weight", c.hidden, c.filters);
        m.layers.push_back(std::move(l));
    }
    m.last = read("output_norm.weight", c.hidden);
    if (file.entries().count("output.weight") > 0)
        m.head = read("output.weight", c.vocabulary, c.hidden);
    read.check_all_read();
    return m;
}

} // namespace

model read_model(const gguf_file& file) {
    const shape c = read_shape(file);
    read_tensors(file, c, true); // what cannot be read is said before gigabytes are
    return read_tensors(file, c, false);
}

} // namespace language
