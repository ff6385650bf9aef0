#include "onnx.hpp"

#include "encoder/files/fingerprint.hpp"

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>

namespace encoder {
namespace {

/// The last bytes of a file, which say what those before them are.
constexpr std::size_t seal_digits = 20;

std::string seal_of(fingerprint others) {
    const std::string number = std::to_string(others.value);
    return std::string(seal_digits - number.size(), '0') + number;
}

bool is_sealed(const std::filesystem::path& path) {
    std::error_code error;
    const std::uintmax_t size =
        std::filesystem::file_size(path, error); // of what is no file: error
    if (error || size <= seal_digits) return false;
    std::ifstream file(path, std::ios::binary);
    fingerprint others;
    others.add(file, size - seal_digits);
    std::string seal(seal_digits, '\0');
    return file.read(seal.data(), seal_digits) && seal == seal_of(others);
}

} // namespace

const output::kind written_graph = {"an ONNX graph that was written here and is as it was", false,
                                    is_sealed};

} // namespace encoder

#ifndef PARE_HAVE_ONNX

namespace encoder {

void check_can_export() {
    throw std::invalid_argument(
        "--export onnx: this is a build without ONNX; install libonnx-dev libprotobuf-dev "
        "and configure again");
}

std::string to_onnx(const model&) {
    check_can_export();
    return {};
}

} // namespace encoder

#else

#include "encoder/network/network.hpp"

#include <onnx/onnx_pb.h>

#include <cmath>
#include <initializer_list>
#include <limits>

namespace encoder {
namespace {

using Eigen::Index;
using numbers = std::vector<std::int64_t>;
using value = std::string; // the name of one in the graph
using onnx::AttributeProto, onnx::TensorProto;

constexpr int opset = 17; // the first with LayerNormalization; of ONNX 1.12 and ONNX Runtime 1.12
constexpr int ir_version = 8;

/// What is added to scores of padding, and to its states before a maximum: finite, also where the graph
/// is made one of fp16 and something is added, as infinity would make a text of padding alone NaN.
constexpr float hidden_away = -1e4f;
/// What embeddings are divided by at least: in fp16 it is not 0.
constexpr float shortest_length = 1e-7f;

AttributeProto attribute(const char* name, std::int64_t of) {
    AttributeProto a;
    a.set_name(name);
    a.set_type(AttributeProto::INT);
    a.set_i(of);
    return a;
}

AttributeProto attribute(const char* name, float of) {
    AttributeProto a;
    a.set_name(name);
    a.set_type(AttributeProto::FLOAT);
    a.set_f(of);
    return a;
}

AttributeProto attribute(const char* name, const numbers& of) {
    AttributeProto a;
    a.set_name(name);
    a.set_type(AttributeProto::INTS);
    for (const std::int64_t i : of) a.add_ints(i);
    return a;
}

/// Nodes, constants and weights as they are added.
class graph {
  public:
    explicit graph(onnx::GraphProto& to) : to_(to) {}

    value node(const char* op, std::initializer_list<value> inputs,
               std::initializer_list<AttributeProto> attributes = {}) {
        return node_named(op + std::to_string(to_.node_size()), op, inputs, attributes);
    }

    value node_named(const value& name, const char* op, std::initializer_list<value> inputs,
                     std::initializer_list<AttributeProto> attributes = {}) {
        onnx::NodeProto& n = *to_.add_node();
        n.set_op_type(op);
        n.set_name(name);
        for (const value& v : inputs) n.add_input(v);
        for (const AttributeProto& a : attributes) *n.add_attribute() = a;
        n.add_output(name);
        return name;
    }

    value weight(const std::string& name, const matrix& of) {
        return tensor(name, TensorProto::FLOAT, {of.rows(), of.cols()}, of.data(), of.size());
    }
    value weight(const std::string& name, const vector& of) {
        return tensor(name, TensorProto::FLOAT, {of.size()}, of.data(), of.size());
    }
    value constant(float of) { return tensor(next(), TensorProto::FLOAT, {}, &of, 1); }
    value constant(std::int64_t of) { return tensor(next(), TensorProto::INT64, {}, &of, 1); }
    value constant(const numbers& of) {
        const auto n = static_cast<Index>(of.size());
        return tensor(next(), TensorProto::INT64, {n}, of.data(), n);
    }

    /// [batch x length]
    void input(const char* name) {
        describe(*to_.add_input(), name, TensorProto::INT64)->set_dim_param("length");
    }
    /// [batch x columns], or if `of_tokens` [batch x length x columns]
    void output(const char* name, Index columns, const value& from, bool of_tokens = false) {
        onnx::ValueInfoProto& v = *to_.add_output();
        auto* side = describe(v, name, TensorProto::FLOAT);
        if (of_tokens) {
            side->set_dim_param("length");
            side = v.mutable_type()->mutable_tensor_type()->mutable_shape()->add_dim();
        }
        side->set_dim_value(columns);
        node_named(name, "Identity", {from});
    }
    /// [batch x length]
    void output_of_tokens(const char* name, const value& from) {
        describe(*to_.add_output(), name, TensorProto::FLOAT)->set_dim_param("length");
        node_named(name, "Identity", {from});
    }

  private:
    value next() const { return "constant" + std::to_string(to_.initializer_size()); }

    template <class T>
    value tensor(const std::string& name, TensorProto::DataType type, const numbers& shape,
                 const T* data, Index size) {
        TensorProto& t = *to_.add_initializer();
        t.set_name(name);
        t.set_data_type(type);
        for (const std::int64_t n : shape) t.add_dims(n);
        t.set_raw_data(data, static_cast<std::size_t>(size) * sizeof(T));
        return name;
    }

    /// Returns the second side, to be filled in; the first is the batch.
    static onnx::TensorShapeProto::Dimension* describe(onnx::ValueInfoProto& v, const char* name,
                                                       TensorProto::DataType type) {
        v.set_name(name);
        auto& t = *v.mutable_type()->mutable_tensor_type();
        t.set_elem_type(type);
        t.mutable_shape()->add_dim()->set_dim_param("batch");
        return t.mutable_shape()->add_dim();
    }

    onnx::GraphProto& to_;
};

/// The steps of an encoder, over x [batch x length x hidden].
class writer {
  public:
    writer(const model& m, onnx::GraphProto& to) : m_(m), c_(m.config), g_(to) {}

    void write() {
        g_.input("input_ids");
        g_.input("attention_mask");
        // A text's tokens are counted from 1; padding behind them has the last one's number.
        counted_ = g_.node("CumSum", {"attention_mask", g_.constant(std::int64_t{1})});
        mask_ = g_.node("Cast", {"attention_mask"},
                        {attribute("to", std::int64_t{TensorProto::FLOAT})});
        const value padding = g_.node("Sub", {g_.constant(1.f), mask_});
        away_ = g_.node("Mul", {padding, g_.constant(hidden_away)});
        key_bias_ = unsqueeze(away_, {1, 2});
        value x = embed();
        for (std::size_t l = 0; l < m_.layers.size(); ++l) x = run(l, x);
        write_outputs(x);
    }

  private:
    value add(const value& x, const value& y) { return g_.node("Add", {x, y}); }
    value mul(const value& x, const value& y) { return g_.node("Mul", {x, y}); }
    value unsqueeze(const value& x, const numbers& axes) {
        return g_.node("Unsqueeze", {x, g_.constant(axes)});
    }

    /// x weight' + bias. Of a layer without inputs the bias alone.
    value apply(const std::string& name, const dense& d, const value& x) {
        const value bias = g_.weight(name + ".bias", d.bias);
        if (d.weight.cols() == 0) return bias;
        const matrix transposed = d.weight.transpose();
        return add(g_.node("MatMul", {x, g_.weight(name + ".weight", transposed)}), bias);
    }

    value normalize(const std::string& name, const layer_norm& n, const value& x) {
        return g_.node(
            "LayerNormalization",
            {x, g_.weight(name + ".weight", n.weight), g_.weight(name + ".bias", n.bias)},
            {attribute("axis", std::int64_t{-1}), attribute("epsilon", c_.layer_norm_epsilon)});
    }

    /// In the order of operations that ONNX Runtime makes one of.
    value gelu(const value& x) {
        const value scaled = g_.node("Div", {x, g_.constant(std::sqrt(2.f))});
        const value share = add(g_.node("Erf", {scaled}), g_.constant(1.f));
        return mul(mul(x, share), g_.constant(0.5f));
    }

    value gelu_tanh(const value& x) {
        const value cube = mul(mul(x, x), x);
        const value inner = add(x, mul(cube, g_.constant(0.044715f)));
        const value angle = mul(inner, g_.constant(0.7978845608028654f)); // sqrt(2 / pi)
        const value share = add(g_.node("Tanh", {angle}), g_.constant(1.f));
        return mul(mul(x, share), g_.constant(0.5f));
    }

    value activate(const value& x) {
        return c_.activation == activation::relu   ? g_.node("Relu", {x})
               : c_.activation == activation::gelu ? gelu(x)
                                                   : gelu_tanh(x);
    }

    value embed() {
        value x =
            g_.node("Gather", {g_.weight("embeddings.words", m_.word_embeddings), "input_ids"});
        matrix positions = m_.position_embeddings.middleRows(c_.first_position, c_.longest());
        if (c_.types == 1) positions.rowwise() += m_.type_embeddings.row(0);
        const value from_0 = g_.node("Sub", {counted_, g_.constant(std::int64_t{1})});
        const value position = g_.node("Max", {from_0, g_.constant(std::int64_t{0})});
        x = add(x, g_.node("Gather", {g_.weight("embeddings.positions", positions), position}));
        if (c_.types > 1) {
            g_.input("token_type_ids");
            x = add(x, g_.node("Gather", {g_.weight("embeddings.types", m_.type_embeddings),
                                          "token_type_ids"}));
        }
        x = normalize("embeddings.norm", m_.embedding_norm, x);
        return c_.narrow_embeddings > 0 ? apply("embeddings.projection", m_.embedding_projection, x)
                                        : x;
    }

    /// Of a layer's heads at distances [heads x length x length]; those of the layer before if equal.
    value distance_bias(std::size_t l) {
        const matrix& of = m_.layers[l].distance_bias;
        if (l > 0 && of.cols() == m_.layers[l - 1].distance_bias.cols() &&
            of == m_.layers[l - 1].distance_bias)
            return last_bias_;
        const matrix table = biases_by_distance(m_.layers[l]);
        const std::int64_t most = table.cols() / 2;
        if (distances_.empty()) {
            const value length =
                g_.node("Gather", {g_.node("Shape", {"input_ids"}), g_.constant(std::int64_t{1})});
            const value at = g_.node(
                "Range", {g_.constant(std::int64_t{0}), length, g_.constant(std::int64_t{1})});
            const value behind = g_.node("Sub", {unsqueeze(at, {0}), unsqueeze(at, {1})});
            const value near = g_.node("Clip", {behind, g_.constant(-most), g_.constant(most)});
            distances_ = add(near, g_.constant(most));
        }
        const value weight = g_.weight("layers." + std::to_string(l) + ".distance_bias", table);
        return g_.node("Gather", {weight, distances_}, {attribute("axis", std::int64_t{1})});
    }

    value attend(std::size_t l, const std::string& name, const value& x) {
        const layer& y = m_.layers[l];
        const auto by_heads = [&](const char* part, const dense& d, const numbers& order) {
            const value shape = g_.constant(numbers{0, 0, y.heads, d.weight.rows() / y.heads});
            const value split = g_.node("Reshape", {apply(name + part, d, x), shape});
            return g_.node("Transpose", {split}, {attribute("perm", order)});
        };
        dense query = y.query; // scaled here rather than its products with all keys
        const float scale = 1 / std::sqrt(static_cast<float>(y.queries()));
        query.weight *= scale;
        query.bias *= scale;
        const value q = by_heads("query", query, {0, 2, 1, 3});
        const value k = by_heads("key", y.key, {0, 2, 3, 1});
        const value v = by_heads("value", y.value, {0, 2, 1, 3});
        value scores = add(g_.node("MatMul", {q, k}), key_bias_);
        if (c_.distance_buckets > 0) scores = add(scores, last_bias_ = distance_bias(l));
        const value shares = g_.node("Softmax", {scores}, {attribute("axis", std::int64_t{-1})});
        const value heads = g_.node("Transpose", {g_.node("MatMul", {shares, v})},
                                    {attribute("perm", numbers{0, 2, 1, 3})});
        return g_.node("Reshape", {heads, g_.constant(numbers{0, 0, y.value.weight.rows()})});
    }

    value run(std::size_t l, value x) {
        const layer& y = m_.layers[l];
        const std::string name = "layers." + std::to_string(l) + '.';
        const value context = y.heads > 0 ? attend(l, name, x) : value();
        x = add(apply(name + "attention_output", y.attention_output, context), x);
        x = normalize(name + "attention_norm", y.attention_norm, x);
        const value active =
            y.filters() > 0 ? activate(apply(name + "intermediate", y.intermediate, x)) : value();
        x = add(apply(name + "output", y.output, active), x);
        return normalize(name + "output_norm", y.output_norm, x);
    }

    /// x [batch x hidden]
    value pool(const value& x) {
        const auto greatest = [&](const value& of, std::int64_t keeps) {
            return g_.node("ReduceMax", {of},
                           {attribute("axes", numbers{1}), attribute("keepdims", keeps)});
        };
        // Of a text of padding alone zeros come out.
        if (c_.pooling == pooling::max)
            return mul(greatest(add(x, unsqueeze(away_, {2})), 0), greatest(mask_, 1));
        value weights = mask_;
        if (c_.pooling == pooling::cls) {
            const value first = g_.node("Equal", {counted_, g_.constant(std::int64_t{1})});
            weights = mul(mask_, g_.node("Cast", {first},
                                         {attribute("to", std::int64_t{TensorProto::FLOAT})}));
        }
        const value axis = g_.constant(numbers{1});
        const value sum = g_.node("MatMul", {unsqueeze(weights, {1}), x});
        const value tokens =
            g_.node("Max", {g_.node("ReduceSum", {weights, axis}), g_.constant(1.0f)});
        return g_.node("Div", {g_.node("Squeeze", {sum, axis}), tokens});
    }

    void write_outputs(value x) {
        if (!m_.head) {
            x = pool(x);
            if (m_.projection) {
                x = apply("projection", m_.projection->layer, x);
                if (m_.projection->tanh) x = g_.node("Tanh", {x});
            }
            const value length =
                g_.node("ReduceL2", {x},
                        {attribute("axes", numbers{1}), attribute("keepdims", std::int64_t{1})});
            x = g_.node("Div", {x, g_.node("Max", {length, g_.constant(shortest_length)})});
            g_.output("embeddings", m_.outputs(), x);
            return;
        }
        const head& h = *m_.head;
        if (!m_.is_per_token()) x = pool(x);
        if (h.before) {
            x = apply("head.before", *h.before, x);
            x = h.between == head::function::gelu   ? gelu(x)
                : h.between == head::function::relu ? g_.node("Relu", {x})
                                                    : g_.node("Tanh", {x});
        }
        const value logits = apply("head.output", h.output, x);
        if (h.of != head::subject::span)
            return g_.output("logits", h.output.weight.rows(), logits, m_.is_per_token());
        for (const auto& [name, column] :
             {std::pair("start_logits", std::int64_t{0}), std::pair("end_logits", std::int64_t{1})})
            g_.output_of_tokens(name, g_.node("Gather", {logits, g_.constant(column)},
                                              {attribute("axis", std::int64_t{2})}));
    }

    const model& m_;
    const config& c_;
    graph g_;
    value counted_, mask_, away_, key_bias_;
    value distances_, last_bias_; // of families that bias attention by distance
};

} // namespace

void check_can_export() {}

std::string to_onnx(const model& m) {
    constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max() - (1 << 20);
    const auto bytes = m.parameters() * static_cast<std::int64_t>(sizeof(float));
    if (bytes > most)
        throw std::runtime_error("--export onnx: the model has " + std::to_string(bytes) +
                                 " bytes of weights, a file holds " + std::to_string(most) +
                                 "; prune to fewer");
    onnx::ModelProto file;
    file.set_ir_version(ir_version);
    file.set_producer_name("pare");
    onnx::OperatorSetIdProto& operators = *file.add_opset_import();
    operators.set_domain("");
    operators.set_version(opset);
    file.mutable_graph()->set_name("encoder");
    writer(m, *file.mutable_graph()).write();
    onnx::StringStringEntryProto& sealed =
        *file.add_metadata_props(); // the last field, so far empty
    sealed.set_key("pare");
    sealed.set_value(std::string(seal_digits, '0'));
    std::string all;
    if (!file.SerializeToString(&all))
        throw std::runtime_error("--export onnx: protobuf cannot write the graph");
    fingerprint others;
    others.add({all.data(), all.size() - seal_digits});
    all.replace(all.size() - seal_digits, seal_digits, seal_of(others));
    return all;
}

} // namespace encoder

#endif
