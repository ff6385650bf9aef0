#include "catch.hpp"
#include "encoder_fixtures.hpp"

#include "encoder/files/model.hpp"
#include "encoder/files/safetensors.hpp"
#include "encoder/text/text.hpp"
#include "encoder/text/tokenizer.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>

namespace encoder_io_test {

namespace fs = std::filesystem;
using encoder::data_type;
using encoder::file_error;
using fixtures::error_of;
using fixtures::scratch_folder;
using nlohmann::json;

namespace {

std::string read_text(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void write_text(const fs::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
}

std::set<std::string> names_in(const fs::path& folder) {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder))
        names.insert(entry.path().filename().string());
    return names;
}

std::string length_field(std::uint64_t length) {
    return {reinterpret_cast<const char*>(&length), sizeof length};
}

/// A safetensors file: its length field, its header, and `data` bytes of zeros.
std::string file_of(const std::string& header, std::size_t data) {
    return length_field(header.size()) + header + std::string(data, '\0');
}

template <class T>
std::vector<T> contents(const encoder::tensor& t) {
    std::vector<T> values(t.bytes.size() / sizeof(T));
    std::memcpy(values.data(), t.bytes.data(), t.bytes.size());
    return values;
}

float from_bits(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

std::uint32_t to_bits(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

encoder::model tiny_bert() {
    return encoder::load_model(fixtures::path("tiny_bert"));
}

/// A folder with a copy of tiny_bert, whose config.json is changed by a merge patch.
void copy_tiny_bert(const fs::path& to, const json& patch = json::object()) {
    fs::copy(fixtures::path("tiny_bert"), to, fs::copy_options::recursive);
    json config = fixtures::json("tiny_bert/config.json");
    config.merge_patch(patch);
    write_text(to / "config.json", config.dump());
}

/// Keeps the first `heads` heads and `filters` filters.
void narrow(encoder::layer& l, Eigen::Index heads, Eigen::Index filters, Eigen::Index head_size) {
    l.heads = heads;
    for (encoder::dense* d : {&l.query, &l.key, &l.value}) {
        d->weight = d->weight.topRows(heads * head_size).eval();
        d->bias = d->bias.head(heads * head_size).eval();
    }
    l.attention_output.weight = l.attention_output.weight.leftCols(heads * head_size).eval();
    l.intermediate.weight = l.intermediate.weight.topRows(filters).eval();
    l.intermediate.bias = l.intermediate.bias.head(filters).eval();
    l.output.weight = l.output.weight.leftCols(filters).eval();
}

bool equal(const encoder::dense& a, const encoder::dense& b) {
    return a.weight == b.weight && a.bias == b.bias;
}

bool equal(const encoder::layer_norm& a, const encoder::layer_norm& b) {
    return a.weight == b.weight && a.bias == b.bias;
}

bool equal(const encoder::layer& a, const encoder::layer& b) {
    return equal(a.query, b.query) && equal(a.key, b.key) && equal(a.value, b.value) &&
           equal(a.attention_output, b.attention_output) &&
           equal(a.attention_norm, b.attention_norm) && equal(a.intermediate, b.intermediate) &&
           equal(a.output, b.output) && equal(a.output_norm, b.output_norm);
}

encoder::dense random_dense(Eigen::Index rows, Eigen::Index columns) {
    return {encoder::matrix::Random(rows, columns), encoder::vector::Random(rows)};
}

bool equal(const encoder::token_pruning& a, const encoder::token_pruning& b) {
    return a.by == b.by && a.numbers == b.numbers && a.alpha == b.alpha && a.carried == b.carried &&
           a.scores == b.scores;
}

bool equal(const encoder::operating_point& a, const encoder::operating_point& b) {
    return a.alpha == b.alpha && a.macs_ratio == b.macs_ratio &&
           (a.metric == b.metric || (std::isnan(a.metric) && std::isnan(b.metric)));
}

bool equal(const encoder::model& a, const encoder::model& b) {
    return a.head.has_value() == b.head.has_value() &&
           (!a.head || equal(a.head->output, b.head->output)) && equal(a.tokens, b.tokens) &&
           std::equal(a.curve.begin(), a.curve.end(), b.curve.begin(), b.curve.end(),
                      [](const auto& x, const auto& y) { return equal(x, y); }) &&
           std::equal(a.exits.begin(), a.exits.end(), b.exits.begin(), b.exits.end(),
                      [](const auto& x, const auto& y) { return equal(x, y); }) &&
           a.word_embeddings == b.word_embeddings &&
           a.position_embeddings == b.position_embeddings &&
           a.type_embeddings == b.type_embeddings && equal(a.embedding_norm, b.embedding_norm) &&
           std::equal(a.layers.begin(), a.layers.end(), b.layers.begin(), b.layers.end(),
                      [](const auto& x, const auto& y) { return equal(x, y); });
}

} // namespace

TEST_CASE("sentences stay on one line, whatever a file says") {
    CHECK(encoder::on_one_line("a\nb\x1b\xc2\x85" + std::string(1, '\0') +
                               "\xff\xe2\x80\xa8"
                               "c\xc3\xa4") == "a\\x0ab\\x1b\\xc2\\x85\\x00\\xff\\xe2\\x80\\xa8"
                                               "c\xc3\xa4");
    const std::string most(1000, 'x');
    CHECK(encoder::on_one_line(most) == most);
    std::string letters;
    for (int i = 0; i < 501; ++i) letters += "\xc3\xa4"; // cut between characters
    const std::string cut = encoder::on_one_line("a" + letters + "b");
    CHECK(cut.size() < 1000);
    CHECK(cut.find("\xa4 ... \xc3") < cut.size());
    CHECK(cut.find('\\') == cut.npos);
    for (const std::string& piece :
         {std::string("\x80"), std::string("\x01"), std::string("\xc3"),
          std::string("\xf0\x9f\x98\x80"), std::string("x\n"), std::string("\\x")})
        for (const int times : {1, 100, 249, 250, 251, 350, 500, 999, 1000, 1001, 3000, 1 << 20}) {
            CAPTURE(piece, times);
            std::string text(static_cast<std::size_t>(times % 5), 'a');
            for (int i = 0; i < times; ++i) text += piece;
            const std::string line = encoder::on_one_line(text);
            CHECK(line.size() <= 1000);
            CHECK(line.find('\n') == line.npos);
            CHECK(encoder::on_one_line(line) == line);
            const std::size_t middle = line.find(" ... ");
            if (middle == line.npos) continue;
            CHECK(middle >= 700);
            // Whole escapes on both sides.
            if (piece == "\x80" || piece == "\x01" || piece == "\xc3") {
                CHECK((middle - line.find('\\')) % 4 == 0);
                CHECK(line[middle + 5] == '\\');
            }
        }
    CHECK(std::string(encoder::file_error("a\nb").what()) == "a\\x0ab");
}

TEST_CASE("a bad safetensors file is refused by name") {
    struct bad {
        std::string content, sentence;
    };
    const std::string a = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
    const auto with = [](const std::string& entry) { return file_of("{\"a\":" + entry + "}", 8); };
    const bad files[] = {
        {"", "has 0 bytes"},
        {"1234567", "has 7 bytes"},
        {length_field(100) + "{}", "header says 100 bytes, the file has 10"},
        {length_field(~std::uint64_t{0}) + "{}", "header says 18446744073709551615 bytes"},
        {file_of("", 0), "not valid JSON"},
        {file_of("{\"a\":", 0), "not valid JSON at byte 6 of 5"},
        {file_of("{} {}", 0), "not valid JSON"},
        {file_of("{\"\xff\":1}", 0), "not valid JSON"},
        {file_of("[1]", 0), "holds a JSON array, not an object"},
        {file_of("{\"a\":1e999}", 0), "bad.safetensors"}, // -Ofast takes it for a number
        {file_of(std::string(100000, '['), 0), "nested deeper than 64"},
        {file_of("{" + a + "," + a + "}", 8), "the key 'a' stands twice"},
        {with(R"({"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]})"),
         "'dtype' stands twice"},
        {with("3"), "tensor 'a' lacks a valid 'dtype'"},
        {with(R"({"shape":[2],"data_offsets":[0,8]})"), "lacks a valid 'dtype'"},
        {with(R"({"dtype":7,"shape":[2],"data_offsets":[0,8]})"), "lacks a valid 'dtype'"},
        {with(R"({"dtype":"F32","data_offsets":[0,8]})"), "lacks a valid 'shape'"},
        {with(R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})"), "lacks a valid 'shape'"},
        {with(R"({"dtype":"F32","shape":[2]})"), "lacks a valid 'data_offsets'"},
        {with(R"({"dtype":"F31","shape":[2],"data_offsets":[0,8]})"), "unknown dtype 'F31'"},
        {with(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"), "has -2 in its 'shape'"},
        {with(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"), "has 2.0 in its 'shape'"},
        {with(R"({"dtype":"F32","shape":["2"],"data_offsets":[0,8]})"), "has \"2\" in its 'shape'"},
        {with(R"({"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8]})"),
         "has 9223372036854775808"},
        {with(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]})"),
         "impossible shape [4294967296, 4294967296]"},
        {with(R"({"dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8]})"),
         "impossible shape"},
        {with(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"),
         "has 8 bytes, F32 [3] needs 12"},
        {with(R"({"dtype":"F32","shape":[],"data_offsets":[0,8]})"), "has 8 bytes, F32 [] needs 4"},
        {with(R"({"dtype":"F32","shape":[2],"data_offsets":[0]})"), "has 1 data_offsets"},
        {with(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})"),
         "data_offsets [8, 0], the file has 8"},
        {with(R"({"dtype":"F32","shape":[2],"data_offsets":[-8,0]})"),
         "has -8 in its 'data_offsets'"},
        {with(R"({"dtype":"F32","shape":[2],"data_offsets":[4,12]})"),
         "data_offsets [4, 12], the file has 8"},
        {with(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})"),
         "begins at byte 4 of the data, after a hole"},
        {with(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})"),
         "the tensors end at byte 4 of the data, the file has 8"},
        {file_of("{" + a + R"(,"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8),
         "tensor 'b' begins at byte 4 of the data, inside"},
        {file_of("{" + a + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8),
         "inside"},
        {file_of("{" + a + R"(,"b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}})", 16),
         "tensor 'b' begins at byte 12 of the data, after a hole that begins at 8"},
        {file_of("{" + a + "}", 7), "the file has 7 bytes of data"},
        {file_of("{" + a + "}", 9), "the tensors end at byte 8"},
        {file_of("{}", 1), "the tensors end at byte 0 of the data, the file has 1"},
        {file_of(R"({"__metadata__":{"format":1}})", 0), "__metadata__ is not"},
        {file_of(R"({"__metadata__":"pt"})", 0), "__metadata__ is not"},
    };
    const scratch_folder folder;
    const auto path = folder / "bad.safetensors";
    for (const bad& file : files) {
        write_text(path, file.content);
        const std::string error = error_of([&] { encoder::safetensors_file{path}; });
        CAPTURE(file.content.substr(0, 120));
        CHECK_THAT(error, ContainsSubstring("bad.safetensors: "));
        CHECK_THAT(error, ContainsSubstring(file.sentence));
        CHECK(error.find('\n') == error.npos);
    }

    write_text(path, length_field(100'000'008));
    fs::resize_file(path, 100'000'016); // sparse
    CHECK_THAT(error_of([&] { encoder::safetensors_file{path}; }),
               ContainsSubstring("at most 100000000"));
    CHECK_THAT(error_of([&] { encoder::safetensors_file{folder.path()}; }),
               ContainsSubstring("is not a regular file"));
    CHECK_THAT(error_of([&] { encoder::safetensors_file{folder / "none"}; }),
               ContainsSubstring("none: there is no such file"));
}

TEST_CASE("what is unusual in a safetensors file but right is accepted") {
    const scratch_folder folder;
    const auto path = folder / "good.safetensors";
    write_text(path, file_of("{}", 0));
    CHECK(encoder::safetensors_file(path).entries().empty());
    write_text(
        path,
        file_of(R"({"b":{"dtype":"F32","shape":[0,3],"data_offsets":[4,4]},)"
                R"("a":{"dtype":"F32","shape":[],"data_offsets":[4,8]},)"
                R"("__metadata__":{},"c":{"dtype":"F16","shape":[2,1],"data_offsets":[0,4]}} )",
                8));
    const encoder::safetensors_file file(path);
    CHECK(file.read("a", {}) == std::vector<float>{0});
    CHECK(file.read("b", {0, 3}).empty());
    CHECK(file.read("c", {2, 1}) == std::vector<float>{0, 0});
}

TEST_CASE("a tensor is checked when it is read") {
    const scratch_folder folder;
    const auto path = folder / "some.safetensors";
    const float values[] = {1, 2, 3, 4, 5, 6};
    auto whole = encoder::make_tensor("whole", {2, 3}, values, data_type::f32);
    whole.dtype = "I32";
    encoder::write_safetensors(path,
                               {encoder::make_tensor("a", {2, 3}, values, data_type::f32), whole});
    const encoder::safetensors_file file(path);
    CHECK(file.read("a", {2, 3}) == std::vector<float>(std::begin(values), std::end(values)));
    CHECK_THAT(error_of([&] {
                   file.read("b", {2, 3});
               }),
               ContainsSubstring("some.safetensors: there is no tensor 'b'"));
    CHECK_THAT(error_of([&] {
                   file.read("a", {3, 2});
               }),
               ContainsSubstring("some.safetensors: tensor 'a' has the shape [2, 3], not [3, 2]"));
    CHECK_THAT(error_of([&] {
                   file.read("whole", {2, 3});
               }),
               ContainsSubstring("some.safetensors: tensor 'whole' is I32"));
}

TEST_CASE("random changes of a safetensors header are accepted or refused, never more") {
    const scratch_folder folder;
    const auto path = folder / "flipped.safetensors";
    const std::vector<float> values(24, 1.5f);
    encoder::write_safetensors(
        path,
        {encoder::make_tensor("first", {2, 3}, values.data(), data_type::f32),
         encoder::make_tensor("second", {4, 6}, values.data(), data_type::bf16),
         encoder::make_tensor("third", {5}, values.data(), data_type::f16)},
        {{"format", "pt"}});
    const std::string good = read_text(path);
    const std::size_t header_end = good.size() - 6 * 4 - 24 * 2 - 5 * 2;
    std::mt19937 random(1);
    int accepted = 0;
    for (int i = 0; i < 4000; ++i) {
        std::string changed = good;
        for (auto flips = random() % 3 + 1; flips > 0; --flips)
            changed[random() % header_end] ^=
                static_cast<char>(i % 2 ? 1u << random() % 8 : random() % 255 + 1);
        write_text(path, changed);
        try {
            const encoder::safetensors_file file(path);
            for (const auto& [name, entry] : file.entries()) {
                REQUIRE(entry.bytes <= good.size());
                CHECK(std::count(entry.data, entry.data + entry.bytes, std::byte{0}) >= 0);
                if (encoder::data_type_of(entry.dtype) != data_type::other)
                    file.read(name, entry.shape);
            }
            ++accepted;
        } catch (const file_error& error) {
            CHECK_THAT(error.what(), ContainsSubstring("flipped.safetensors: "));
        }
    }
    CHECK(accepted < 4000);
}

TEST_CASE("F16 and BF16 keep all of their numbers") {
    struct half_type {
        data_type type;
        const char* dtype;
        std::uint32_t infinity;
    };
    const scratch_folder folder;
    const auto path = folder / "half.safetensors";
    for (const half_type& half :
         {half_type{data_type::f16, "F16", 0x7c00}, half_type{data_type::bf16, "BF16", 0x7f80}}) {
        CAPTURE(half.dtype);
        std::vector<encoder::tensor> tensors = {{"finite", half.dtype, {}, {}}};
        std::vector<std::uint16_t> finite;
        for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
            const auto pattern = static_cast<std::uint16_t>(bits);
            const auto* const bytes = reinterpret_cast<const std::byte*>(&pattern);
            if ((bits & half.infinity) == half.infinity) {
                tensors.push_back({std::to_string(bits), half.dtype, {1}, {bytes, bytes + 2}});
            } else {
                finite.push_back(pattern);
                tensors[0].bytes.insert(tensors[0].bytes.end(), bytes, bytes + 2);
            }
        }
        tensors[0].shape = {static_cast<std::int64_t>(finite.size())};
        encoder::write_safetensors(path, tensors);
        const encoder::safetensors_file file(path);

        const std::vector<float> values = file.read("finite", tensors[0].shape);
        CHECK(contents<std::uint16_t>(encoder::make_tensor("finite", tensors[0].shape,
                                                           values.data(), half.type)) == finite);
        for (std::size_t i = 1; i < tensors.size(); ++i)
            if (error_of([&] {
                    file.read(tensors[i].name, {1});
                }).find("NaN or infinity at element 0") == std::string::npos)
                FAIL("pattern " << tensors[i].name << " is not refused");
        for (std::size_t i = 0; i < finite.size(); ++i) { // against the definition of the formats
            const std::uint32_t bits = finite[i], exponent = bits >> 10 & 0x1fu,
                                fraction = bits & 0x3ffu;
            const double magnitude =
                exponent == 0 ? std::ldexp(fraction, -24)
                              : std::ldexp(0x400u + fraction, static_cast<int>(exponent) - 25);
            const std::uint32_t expected =
                half.type == data_type::bf16
                    ? bits << 16
                    : to_bits(static_cast<float>(magnitude)) | (bits & 0x8000u) << 16;
            if (to_bits(values[i]) != expected)
                FAIL("pattern " << bits << " is read as " << values[i]);
        }
    }
}

TEST_CASE("F16 and BF16 are rounded to nearest, ties to even") {
    // From each number to the next: what is just below the middle, the middle, and just above it.
    std::vector<float> values;
    std::vector<std::uint16_t> halves, brains;
    const auto expect = [](std::vector<std::uint16_t>& to, std::uint32_t below) {
        for (const std::uint32_t rounded : {below, below + (below & 1), below + 1})
            to.push_back(static_cast<std::uint16_t>(rounded));
    };
    const auto check = [&](data_type type, const std::vector<std::uint16_t>& expected) {
        const auto size = static_cast<std::int64_t>(values.size());
        CHECK(contents<std::uint16_t>(encoder::make_tensor("x", {size}, values.data(), type)) ==
              expected);
        for (float& value : values) value = -value;
        std::vector<std::uint16_t> negative = expected;
        for (std::uint16_t& bits : negative) bits = static_cast<std::uint16_t>(bits | 0x8000u);
        CHECK(contents<std::uint16_t>(encoder::make_tensor("x", {size}, values.data(), type)) ==
              negative);
    };
    for (std::uint32_t below = 0; below + 1 < 0x7c00; ++below) {
        const auto value = [](std::uint32_t half) {
            return half < 0x400
                       ? std::ldexp(half, -24)
                       : std::ldexp((half & 0x3ff) + 0x400, static_cast<int>(half >> 10) - 25);
        };
        const auto middle = to_bits(static_cast<float>((value(below) + value(below + 1)) / 2));
        for (const std::uint32_t bits : {middle - 1, middle, middle + 1})
            values.push_back(from_bits(bits));
        expect(halves, below);
    }
    check(data_type::f16, halves);
    values.clear();
    for (std::uint32_t below = 0; below + 1 < 0x7f80; ++below) {
        for (const std::uint32_t rest : {0x7fffu, 0x8000u, 0x8001u})
            values.push_back(from_bits(below << 16 | rest));
        expect(brains, below);
    }
    check(data_type::bf16, brains);
}

TEST_CASE("a tensor that could not be read again is not made, nor written") {
    const auto made = [](float value, data_type type) {
        return error_of([&] { encoder::make_tensor("x", {1}, &value, type); });
    };
    const float infinity = std::numeric_limits<float>::infinity();
    for (const data_type type : {data_type::f32, data_type::f16, data_type::bf16})
        for (const float bad : {infinity, -infinity, from_bits(0x7fc00000), from_bits(0x7fffffff),
                                from_bits(0xffffffff)})
            CHECK_THAT(made(bad, type), ContainsSubstring("x: element 0 is"));
    CHECK(made(65519, data_type::f16) == "no error");
    CHECK_THAT(made(65520, data_type::f16), ContainsSubstring("65520, which is not finite as F16"));
    CHECK_THAT(made(1e30f, data_type::f16), ContainsSubstring("not finite as F16"));
    CHECK_THAT(made(std::numeric_limits<float>::max(), data_type::bf16),
               ContainsSubstring("not finite as BF16"));
    CHECK_THAT(made(1, data_type::other), ContainsSubstring("F32, F16 or BF16 only"));

    const scratch_folder folder;
    const auto path = folder / "out.safetensors";
    write_text(path, "old");
    const auto written = [&](const std::vector<encoder::tensor>& tensors) {
        return error_of([&] { encoder::write_safetensors(path, tensors); });
    };
    const encoder::tensor one{"one", "F32", {1}, std::vector<std::byte>(4)};
    CHECK_THAT(written({one, one}),
               ContainsSubstring("out.safetensors: there are two tensors 'one'"));
    CHECK_THAT(written({{"x", "F32", {2}, std::vector<std::byte>(4)}}),
               ContainsSubstring("has 4 bytes, F32 [2] needs 8"));
    CHECK_THAT(written({{"x", "F99", {1}, std::vector<std::byte>(4)}}),
               ContainsSubstring("unknown dtype"));
    CHECK_THAT(written({{"x", "F32", {-1}, {}}}), ContainsSubstring("impossible shape [-1]"));
    CHECK_THAT(written({{"\xff", "F32", {1}, std::vector<std::byte>(4)}}),
               ContainsSubstring("UTF-8"));
    CHECK_THAT(error_of([&] { encoder::write_safetensors(folder / "none" / "x", {one}); }),
               ContainsSubstring("cannot be written"));
    CHECK(read_text(path) == "old");
    CHECK(names_in(folder.path()) == std::set<std::string>{"out.safetensors"});

    CHECK(written({one}) == "no error");
    CHECK(encoder::safetensors_file(path).read("one", {1}) == std::vector<float>{0});
    std::uint64_t header = 0;
    std::memcpy(&header, read_text(path).data(), sizeof header);
    CHECK(header % 8 == 0);
}

TEST_CASE("a model is what its folder says") {
    const encoder::model m = tiny_bert();
    CHECK(m.config.hidden == 24);
    CHECK(m.config.head_size == 8);
    CHECK(m.config.max_tokens == 64);
    CHECK(m.config.pooling == encoder::pooling::mean);
    CHECK(m.layers.size() == 3);
    CHECK(m.layers[2].heads == 3);
    CHECK(m.layers[2].filters() == 40);
    CHECK(m.others.size() == 2);
    std::int64_t parameters = 0;
    const encoder::safetensors_file file(fixtures::path("tiny_bert/model.safetensors"));
    for (const auto& [name, entry] : file.entries())
        parameters += static_cast<std::int64_t>(entry.bytes / 4);
    CHECK(m.parameters() == parameters);
    const auto bias = file.read("encoder.layer.1.attention.self.key.bias", {24});
    CHECK(m.layers[1].key.bias == Eigen::Map<const encoder::vector>(bias.data(), 24));
    const auto weight = file.read("encoder.layer.0.output.dense.weight", {24, 40});
    CHECK(m.layers[0].output.weight == Eigen::Map<const encoder::matrix>(weight.data(), 24, 40));
}

TEST_CASE("an impossible config is refused by name") {
    struct bad {
        json patch;
        std::string sentence;
    };
    const json even = {3, 3, 3};
    const auto tokens = [](json value, const json& numbers = {}) {
        if (!numbers.is_null()) value.update({{"by", "threshold"}, {"numbers", numbers}});
        return json{{"pare", {{"tokens", value}}}};
    };
    const json point = {{"alpha", 1}, {"macs_ratio", 0.5}, {"metric", 0.75}};
    const bad configs[] = {
        {{{"model_type", "albert"}},
         "config.json: model_type is 'albert', not one of bert, roberta, xlm-roberta, camembert, "
         "distilbert, electra, mpnet"},
        {{{"model_type", nullptr}}, "config.json: model_type is ''"},
        {{{"model_type", 7}}, "config.json: model_type is 7, not a string"},
        {{{"position_embedding_type", "relative_key"}},
         "config.json: position_embedding_type is 'relative_key'"},
        {{{"is_decoder", true}}, "config.json: is_decoder is true"},
        {{{"hidden_act", "silu"}}, "config.json: hidden_act is 'silu'"},
        {{{"hidden_size", nullptr}}, "config.json: has no hidden_size"},
        {{{"hidden_size", 25}},
         "config.json: hidden_size 25 is no multiple of num_attention_heads 3"},
        {{{"hidden_size", 0}}, "config.json: hidden_size is 0"},
        {{{"hidden_size", -24}}, "config.json: hidden_size is -24"},
        {{{"hidden_size", 24.0}}, "config.json: hidden_size is 24.0"},
        {{{"hidden_size", "24"}}, "config.json: hidden_size is \"24\""},
        {{{"hidden_size", 1e30}}, "config.json: hidden_size is 1e+30"},
        {{{"hidden_size", 18446744073709551615u}},
         "config.json: hidden_size is 18446744073709551615"},
        {{{"num_attention_heads", 0}}, "config.json: num_attention_heads is 0"},
        {{{"num_hidden_layers", 0}}, "config.json: num_hidden_layers is 0"},
        {{{"num_hidden_layers", 1000000000}}, "config.json: num_hidden_layers is 1000000000"},
        {{{"intermediate_size", 0}}, "config.json: intermediate_size is 0"},
        {{{"vocab_size", 0}}, "config.json: vocab_size is 0"},
        {{{"max_position_embeddings", 0}}, "config.json: max_position_embeddings is 0"},
        {{{"max_position_embeddings", 1}}, "config.json: max_position_embeddings is 1"},
        {{{"type_vocab_size", 0}}, "config.json: type_vocab_size is 0"},
        {{{"vocab_size", 1 << 24}, {"type_vocab_size", 128}},
         "vocab_size 16777216 times 128 types is more than 1073741824"},
        {{{"layer_norm_eps", 0}}, "config.json: layer_norm_eps is 0"},
        {{{"layer_norm_eps", -1e-12}}, "config.json: layer_norm_eps is -1e-12"},
        {{{"layer_norm_eps", "x"}}, "config.json: layer_norm_eps is \"x\""},
        {{{"pare", {{"heads", {3, 3}}, {"filters", even}}}},
         "config.json: pare.heads has 2 entries, the model has 3"},
        {{{"pare", {{"heads", {3, 4, 3}}, {"filters", even}}}},
         "config.json: pare.heads holds 4, not a whole number from 0 to 3"},
        {{{"pare", {{"heads", even}, {"filters", {-1, 1, 1}}}}},
         "config.json: pare.filters holds -1"},
        {{{"pare", {{"heads", even}, {"filters", {41, 1, 1}}}}},
         "config.json: pare.filters holds 41"},
        {{{"pare", {{"queries", {8, 0, 8}}}}},
         "config.json: pare.queries holds 0 for layer 1, which has 3 heads"},
        {{{"pare", {{"values", {8, 0, 8}}}}},
         "config.json: pare.values holds 0 for layer 1, which has 3 heads"},
        {{{"pare", {{"values", {8, 8, 9}}}}}, "config.json: pare.values holds 9"},
        {{{"pare", {{"queries", {8, 9, 8}}}}}, "config.json: pare.queries holds 9"},
        {{{"pare", {{"queries", {8, 8}}}}}, "config.json: pare.queries has 2 entries"},
        {{{"pare", {{"filters", 40}}}},
         "config.json: pare.filters is not a list with a number for each of 3 layers"},
        {{{"pare", 3}}, "config.json: pare is 3, not an object"},
        {{{"pare", {{"classes", 0}}}},
         "config.json: pare.classes is 0, not a whole number from 1 to 65536"},
        {{{"pare", {{"classes", 65537}}}}, "config.json: pare.classes is 65537"},
        {{{"pare", {{"classes", 2.0}}}}, "config.json: pare.classes is 2.0"},
        {{{"pare", {{"classes", {"a", "b"}}}}}, "config.json: pare.classes is [\"a\",\"b\"]"},
        {{{"pare", {{"classes", 2}}}}, "model.safetensors: there is no tensor 'classifier.weight'"},
        {tokens(3), "config.json: pare.tokens is 3, not an object"},
        {tokens({{"by", "threshold"}}), "config.json: has no pare.tokens.numbers"},
        {tokens({{"numbers", even}}),
         "config.json: pare.tokens.by is '', not one of threshold, share, count"},
        {tokens({{"by", "chance"}, {"numbers", even}}), "config.json: pare.tokens.by is 'chance'"},
        {tokens({{"by", 1}, {"numbers", even}}), "config.json: pare.tokens.by is 1, not a string"},
        {tokens({{"by", "share"}, {"numbers", 0.5}}),
         "config.json: pare.tokens.numbers is not a list with a number for each of 3 layers"},
        {tokens({{"by", "share"}, {"numbers", {1, 1}}}),
         "config.json: pare.tokens.numbers has 2 entries, the model has 3 layers"},
        {tokens({{"by", "share"}, {"numbers", {1, -0.5, 1}}}),
         "config.json: pare.tokens.numbers holds -0.5, not a number from 0 to 1.79769e+308"},
        {tokens({{"by", "share"}, {"numbers", {1, nullptr, 1}}}),
         "config.json: pare.tokens.numbers holds null, not a number"},
        {tokens({{"alpha", -1}}, even), "config.json: pare.tokens.alpha is -1, not a number from"},
        {tokens({{"alpha", "1"}}, even), "config.json: pare.tokens.alpha is \"1\""},
        {tokens({{"scores", "fixed"}}, even),
         "config.json: pare.tokens.scores is 'fixed', not one of relative, per_query"},
        {tokens({{"carried", 1}}, even),
         "config.json: pare.tokens.carried is 1, not true or false"},
        {tokens({{"curve", 1}}, even), "config.json: pare.tokens.curve is 1, not a list"},
        {tokens({{"curve", {point, 7}}}, even),
         "config.json: pare.tokens.curve[1] is 7, not an object"},
        {tokens({{"curve", {point, {{"alpha", 1}}}}}, even),
         "config.json: has no pare.tokens.curve[1].macs_ratio"},
        {tokens({{"curve", {{{"macs_ratio", 1}}, point}}}, even),
         "config.json: has no pare.tokens.curve[0].alpha"},
        {tokens({{"curve", {{{"alpha", 1}, {"macs_ratio", -1}}, point}}}, even),
         "config.json: pare.tokens.curve[0].macs_ratio is -1, not a number from 0"},
        {tokens({{"curve", {point, {{"alpha", 1}, {"macs_ratio", 1}, {"metric", "x"}}}}}, even),
         "config.json: pare.tokens.curve[1].metric is \"x\", not a number"},
        // the weights say something else
        {{{"num_hidden_layers", 2}},
         "model.safetensors: holds 3 layers, num_hidden_layers in config.json is 2"},
        {{{"num_hidden_layers", 4}},
         "model.safetensors: holds 3 layers, num_hidden_layers in config.json is 4"},
        {{{"vocab_size", 121}},
         "model.safetensors: tensor 'embeddings.word_embeddings.weight' has the shape [120, 24], "
         "not [121, 24]"},
        {{{"max_position_embeddings", 32}}, "has the shape [64, 24], not [32, 24]"},
        {{{"type_vocab_size", 1}}, "has the shape [2, 24], not [1, 24]"},
        {{{"hidden_size", 48}}, "has the shape [120, 24], not [120, 48]"},
        {{{"intermediate_size", 41}}, "has the shape [40, 24], not [41, 24]"},
        {{{"pare", {{"queries", {8, 4, 8}}}}},
         "model.safetensors: tensor 'encoder.layer.1.attention.self.query.weight' has the shape "
         "[24, 24], not [12, 24]"},
        {{{"pare", {{"heads", {3, 2, 3}}, {"filters", {40, 40, 40}}}}},
         "model.safetensors: tensor 'encoder.layer.1.attention.self.query.weight' has the shape "
         "[24, 24], not [16, 24]"},
    };
    const scratch_folder folder;
    for (const bad& config : configs) {
        CAPTURE(config.patch.dump());
        fs::remove_all(folder / "model");
        copy_tiny_bert(folder / "model", config.patch);
        CHECK_THAT(error_of([&] { encoder::load_model(folder / "model"); }),
                   ContainsSubstring(config.sentence));
    }
    const auto load = [&] { encoder::load_model(folder / "model"); };
    write_text(folder / "model/config.json", "{\"hidden_size\": 1");
    CHECK_THAT(error_of(load), ContainsSubstring("config.json: not valid JSON at byte"));
    write_text(folder / "model/config.json", "[]");
    CHECK_THAT(error_of(load), ContainsSubstring("config.json: holds a JSON array, not an object"));
    fs::remove(folder / "model/config.json");
    CHECK_THAT(error_of(load), ContainsSubstring("config.json: there is no such file"));
}

TEST_CASE("what may be left out under pare is as it would be without") {
    const scratch_folder folder;
    const auto load = [&](const json& pare) {
        fs::remove_all(folder / "model");
        copy_tiny_bert(folder / "model", {{"pare", pare}});
        return encoder::load_model(folder / "model");
    };
    const encoder::model plain = tiny_bert();
    CHECK(equal(load(json::object()), plain));
    CHECK(equal(load({{"heads", {3, 3, 3}}, {"tokens", nullptr}}), plain));
    CHECK(equal(load({{"filters", {40, 40, 40}}, {"tokens", json::object()}}), plain));
    const encoder::model m = load({{"tokens", {{"by", "share"}, {"numbers", {1, 0.5, 0}}}}});
    CHECK(equal(m.tokens, {encoder::token_pruning::rule::share, {1, 0.5, 0}, 1, true}));
    CHECK(m.curve.empty());
    const json point = {{"alpha", 2}, {"macs_ratio", 1}};
    const auto curve =
        load({{"tokens",
               {{"by", "count"}, {"numbers", {9, 5, 2}}, {"curve", json::array({point})}}}})
            .curve;
    REQUIRE(curve.size() == 1);
    CHECK(equal(curve[0], {2, 1, std::nan("")}));
}

TEST_CASE("weights that are missing, unknown or not finite are refused by name") {
    const scratch_folder folder;
    copy_tiny_bert(folder / "model");
    std::vector<encoder::tensor> all;
    {
        const encoder::safetensors_file file(folder / "model/model.safetensors");
        for (const auto& [name, e] : file.entries())
            all.push_back({name, e.dtype, e.shape, {e.data, e.data + e.bytes}});
    }
    const auto find = [](auto& tensors, const char* name) {
        return std::find_if(tensors.begin(), tensors.end(),
                            [&](const auto& t) { return t.name == name; });
    };
    const auto error_with = [&](const std::vector<encoder::tensor>& tensors) {
        encoder::write_safetensors(folder / "model/model.safetensors", tensors);
        return error_of([&] { encoder::load_model(folder / "model"); });
    };
    const char* const bias = "encoder.layer.2.output.dense.bias";
    auto changed = all;
    changed.erase(find(changed, bias));
    CHECK_THAT(error_with(changed),
               ContainsSubstring(
                   "model.safetensors: there is no tensor 'encoder.layer.2.output.dense.bias'"));
    changed = all;
    const float nan = from_bits(0x7fc00000);
    std::memcpy(find(changed, bias)->bytes.data() + 8, &nan, sizeof nan);
    CHECK_THAT(error_with(changed),
               ContainsSubstring("model.safetensors: tensor 'encoder.layer.2.output.dense.bias' "
                                 "holds NaN or infinity at element 2"));
    changed = all;
    changed.push_back({"encoder.layer.3.output.dense.bias", "F32", {1}, std::vector<std::byte>(4)});
    CHECK_THAT(error_with(changed),
               ContainsSubstring(
                   "tensor 'encoder.layer.3.output.dense.bias' has no place in 3 layers of BERT"));
    changed = all;
    changed.push_back({"embeddings.position_ids", "I64", {1}, std::vector<std::byte>(8)});
    changed.push_back({"classifier.bias", "U8", {1}, std::vector<std::byte>(1)});
    CHECK(error_with(changed) == "no error");
    CHECK(encoder::load_model(folder / "model").others.size() == 4);
    fs::remove(folder / "model/model.safetensors");
    CHECK_THAT(error_of([&] { encoder::load_model(folder / "model"); }),
               ContainsSubstring("model.safetensors: there is no such file"));
}

TEST_CASE("the files beside the weights are followed, or refused by name") {
    const scratch_folder folder;
    copy_tiny_bert(folder / "model", {{"hidden_act", "gelu_pytorch_tanh"}});
    fs::create_directory(folder / "model/1_Pooling");
    const auto with = [&](const char* file, const json& content) {
        write_text(folder / "model" / file, content.dump());
        return encoder::load_model(folder / "model").config;
    };
    const auto error = [&](const char* file, const json& content) {
        const std::string sentence = error_of([&] { with(file, content); });
        fs::remove(folder / "model" / file);
        return sentence;
    };
    const char *const tokenizer = "tokenizer_config.json",
                      *const sentence = "sentence_bert_config.json",
                      *const pooling = "1_Pooling/config.json", *const modules = "modules.json";

    CHECK(with(tokenizer, {{"model_max_length", 50}}).max_tokens == 50);
    CHECK(with(tokenizer, {{"model_max_length", 1e30}}).max_tokens == 64);
    CHECK(with(tokenizer, {{"model_max_length", 512}}).max_tokens == 64);
    CHECK(with(tokenizer, {{"model_max_length", 50}}).max_tokens == 50);
    CHECK(with(sentence, {{"max_seq_length", nullptr}}).max_tokens == 50);
    CHECK(with(sentence, {{"max_seq_length", 60}}).max_tokens == 60);
    CHECK(with(sentence, {{"max_seq_length", 100}}).max_tokens == 64);
    CHECK(with(sentence, {{"max_seq_length", 30}}).max_tokens == 30);
    CHECK(with(sentence, {{"max_seq_length", 30}}).activation == encoder::activation::gelu_tanh);
    CHECK_THAT(error(sentence, {{"max_seq_length", 1}}),
               ContainsSubstring("sentence_bert_config.json: max_seq_length is 1"));
    CHECK_THAT(error(sentence, {{"max_seq_length", "x"}}),
               ContainsSubstring("sentence_bert_config.json: max_seq_length is \"x\""));

    CHECK(with(pooling, {{"pooling_mode_mean_tokens", true}, {"pooling_mode_cls_token", false}})
              .pooling == encoder::pooling::mean);
    CHECK(with(pooling, {{"pooling_mode_cls_token", true}}).pooling == encoder::pooling::cls);
    CHECK(with(pooling, {{"pooling_mode", "cls"}, {"embedding_dimension", 24}}).pooling ==
          encoder::pooling::cls);
    CHECK(with(pooling, {{"pooling_mode", "mean"}}).pooling == encoder::pooling::mean);
    CHECK_THAT(
        error(pooling, {{"pooling_mode_mean_tokens", true}, {"pooling_mode_cls_token", true}}),
        ContainsSubstring("config.json: asks for pooling by 'pooling_mode_cls_token and "
                          "pooling_mode_mean_tokens'"));
    CHECK(with(pooling, {{"pooling_mode", "max"}}).pooling == encoder::pooling::max);
    CHECK(with(pooling, {{"pooling_mode_max_tokens", true}}).pooling == encoder::pooling::max);
    CHECK(with(pooling, {{"pooling_mode_mean_sqrt_len_tokens", true}}).pooling ==
          encoder::pooling::mean); // a multiple of it
    CHECK_THAT(error(pooling, {{"pooling_mode", "weightedmean"}}),
               ContainsSubstring("asks for pooling by 'weightedmean', only the mean, the maximum "
                                 "or the cls token is possible"));
    CHECK_THAT(error(pooling, {{"pooling_mode_lasttoken", true}}),
               ContainsSubstring("asks for pooling by 'pooling_mode_lasttoken'"));
    CHECK_THAT(
        error(pooling, {{"pooling_mode", "cls"}, {"word_embedding_dimension", 25}}),
        ContainsSubstring("word_embedding_dimension is 25, hidden_size in config.json is 24"));

    CHECK_THAT(error(modules, json::object()),
               ContainsSubstring("modules.json: holds a JSON object, not an array"));
}

TEST_CASE("a model is written and read again") {
    const scratch_folder folder;
    const auto source = folder / "source", out = folder / "out";
    copy_tiny_bert(source);
    fs::create_directory(source / "1_Pooling");
    fs::create_directory(source / "2_Normalize");
    const std::map<std::string, std::string> companions = {
        {"tokenizer.json", "{\"a\": 1}"},
        {"tokenizer_config.json", "{\"model_max_length\": 40}"},
        {"special_tokens_map.json", "{}"},
        {"sentence_bert_config.json", "{\"max_seq_length\": 30}"},
        {"modules.json",
         R"([{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "1_Pooling"},)"
         R"( {"type": "a.Normalize", "path": "2_Normalize"}])"},
        {"config_sentence_transformers.json", "{ }"},
        {"1_Pooling/config.json", "{\"pooling_mode_cls_token\": true}"}};
    for (const auto& [name, content] : companions) write_text(source / name, content);
    write_text(source / "pytorch_model.bin", "not copied");

    encoder::model m = encoder::load_model(source);
    SECTION("with even layers it is a model for everybody") {
        narrow(m.layers[0], 3, 16, 8);
        narrow(m.layers[1], 3, 16, 8);
        narrow(m.layers[2], 3, 16, 8);
        encoder::save_model(m, source, out);
        const json config = encoder::load_model(out).json;
        CHECK(config.count("pare") == 0);
        CHECK(config["intermediate_size"] == 16);
        json expected = m.json;
        expected["intermediate_size"] = 16;
        CHECK(config == expected);
    }
    SECTION("with uneven layers") {
        narrow(m.layers[0], 2, 11, 8);
        narrow(m.layers[1], 0, 0, 8);
        encoder::save_model(m, source, out);
        const json config = encoder::load_model(out).json;
        CHECK(config["pare"] == json{{"heads", {2, 0, 3}}, {"filters", {11, 0, 40}}});
    }
    SECTION("with uneven heads alone") {
        narrow(m.layers[0], 2, 40, 8);
        encoder::save_model(m, source, out);
        CHECK(encoder::load_model(out).json["pare"] == json{{"heads", {2, 3, 3}}});
    }
    SECTION("with a classifier, whose tensors have no prefix") {
        m.prefix = "bert.";
        const auto before = m.parameters();
        m.head = encoder::head{random_dense(3, 24)};
        CHECK(m.parameters() == before + 3 * 24 + 3);
        encoder::save_model(m, source, out);
        CHECK(encoder::load_model(out).json["pare"] == json{{"classes", 3}});
        CHECK(encoder::safetensors_file(out / "model.safetensors")
                  .entries()
                  .count("classifier.weight") == 1);
    }
    SECTION("with tokens to drop") {
        using rule = encoder::token_pruning::rule;
        m.curve = {{0, 1, 0.875}, {1, 0.5, std::nan("")}};
        for (const rule by : {rule::threshold, rule::share, rule::count}) {
            m.tokens = {by, {0, 1e-7, 1.0 / 3}, 0.1, by == rule::share};
            if (by == rule::threshold) m.tokens.scores = pare::score_scale::per_query;
            encoder::save_model(m, source, out);
            CHECK(equal(encoder::load_model(out), m));
            for (const auto& l : m.layers) // from the second rule on
                if (m.exits.size() < m.layers.size())
                    m.exits.push_back(
                        random_dense(m.config.hidden, m.config.hidden + l.query.weight.rows()));
        }
        CHECK(encoder::load_model(out).json["pare"]["tokens"] ==
              json{{"by", "count"},
                   {"numbers", {0.0, 1e-7, 1.0 / 3}},
                   {"alpha", 0.1},
                   {"carried", false},
                   {"scores", "relative"},
                   {"curve",
                    {{{"alpha", 0.0}, {"macs_ratio", 1.0}, {"metric", 0.875}},
                     {{"alpha", 1.0}, {"macs_ratio", 0.5}, {"metric", nullptr}}}}});
    }
    SECTION("with no heads and filters at all") {
        for (auto& l : m.layers) narrow(l, 0, 0, 8);
        encoder::save_model(m, source, out);
    }
    SECTION("with a prefix") {
        m.prefix = "bert.";
        encoder::save_model(m, source, out);
        CHECK(encoder::safetensors_file(out / "model.safetensors")
                  .entries()
                  .count("bert.encoder.layer.0.output.dense.bias") == 1);
    }
    SECTION("in the place of an older one, through a link, with a trailing slash") {
        encoder::save_model(m, source, folder / "real/");
        fs::create_directory_symlink("real", out);
        m.layers[0].query.bias *= 2;
        encoder::save_model(m, source, out);
        CHECK(fs::is_symlink(out));
        CHECK(equal(encoder::load_model(folder / "real"), m));
        write_text(folder / "real/mine", "");
        CHECK_THAT(error_of([&] { encoder::save_model(m, source, out); }),
                   ContainsSubstring("out: exists and is not a model"));
        CHECK(names_in(folder.path()) == std::set<std::string>{"source", "real", "out"});
        return;
    }

    const encoder::model again = encoder::load_model(out);
    CHECK(equal(again, m));
    CHECK(again.parameters() == m.parameters());
    CHECK(again.prefix == m.prefix);
    CHECK(again.stored_as == data_type::f32);
    CHECK(again.config.max_tokens == 30);
    CHECK(again.config.pooling == encoder::pooling::cls);
    CHECK(again.config.layer_norm_epsilon == m.config.layer_norm_epsilon);
    REQUIRE(again.others.size() == 2);
    CHECK(again.others[1].bytes == m.others[1].bytes);
    for (const auto& [name, content] : companions) CHECK(read_text(out / name) == content);
    CHECK(read_text(out / "vocab.txt") == read_text(source / "vocab.txt"));
    CHECK(fs::is_directory(out / "2_Normalize"));
    CHECK(!fs::exists(out / "pytorch_model.bin"));
    CHECK(names_in(folder.path()) == std::set<std::string>{"source", "out"});
}

TEST_CASE("half types of the weights are kept") {
    const scratch_folder folder;
    encoder::model m = tiny_bert();
    for (const data_type type : {data_type::f16, data_type::bf16}) {
        m.stored_as = type;
        encoder::save_model(m, fixtures::path("tiny_bert"), folder / "once");
        const encoder::model once = encoder::load_model(folder / "once");
        CHECK(once.stored_as == type);
        CHECK((once.word_embeddings - m.word_embeddings).cwiseAbs().maxCoeff() < 0.02f);
        CHECK(!equal(once, m));
        encoder::save_model(once, folder / "once", folder / "twice");
        CHECK(equal(encoder::load_model(folder / "twice"), once));
        CHECK(read_text(folder / "once/model.safetensors") ==
              read_text(folder / "twice/model.safetensors"));
    }
}

TEST_CASE("a model that cannot be written leaves nothing behind") {
    const scratch_folder folder;
    const auto source = folder / "source", out = folder / "out";
    copy_tiny_bert(source);
    const encoder::model good = encoder::load_model(source);
    const auto save = [&](const encoder::model& m, const fs::path& from, const fs::path& to) {
        return error_of([&] { encoder::save_model(m, from, to); });
    };
    encoder::model bad = good;
    bad.layers[1].output.bias[3] = from_bits(0x7fc00000);
    CHECK_THAT(save(bad, source, out),
               ContainsSubstring("encoder.layer.1.output.dense.bias: element 3 is"));
    bad = good;
    bad.word_embeddings(5, 5) = 1e6f;
    bad.stored_as = data_type::f16;
    CHECK_THAT(save(bad, source, out), ContainsSubstring("not finite as F16"));
    bad = good;
    bad.layers[1].key = bad.layers[1].intermediate;
    CHECK_THAT(save(bad, source, out),
               ContainsSubstring("tensor 'encoder.layer.1.attention.self.key.weight' is 40 x 24, "
                                 "the other ones need 24 x 24"));
    bad = good;
    bad.others.push_back(bad.others[0]);
    CHECK_THAT(save(bad, source, out), ContainsSubstring("there are two tensors"));
    bad = good;
    bad.head = encoder::head{random_dense(1 << 17, 1)};
    CHECK_THAT(save(bad, source, out),
               ContainsSubstring("out/config.json: pare.classes is 131072"));
    bad.head = encoder::head{random_dense(2, 23)};
    CHECK_THAT(
        save(bad, source, out),
        ContainsSubstring("tensor 'classifier.weight' is 2 x 23, the other ones need 2 x 24"));
    bad = good;
    bad.tokens.numbers = {1, 1};
    CHECK_THAT(save(bad, source, out), ContainsSubstring("pare.tokens.numbers has 2 entries"));
    bad.tokens.numbers = {1, std::nan(""), 1};
    CHECK_THAT(save(bad, source, out), ContainsSubstring("pare.tokens.numbers holds null"));
    bad.tokens.numbers = {1, 1, 1};
    bad.curve = {{1, std::numeric_limits<double>::infinity(), 1}};
    CHECK_THAT(save(bad, source, out), ContainsSubstring("has no pare.tokens.curve[0].macs_ratio"));
    bad = good;
    bad.layers.clear();
    CHECK_THAT(save(bad, source, out), ContainsSubstring("a model of 0 layers"));
    CHECK_THAT(save(good, folder / "none", out),
               ContainsSubstring("none: there is no such folder"));
    CHECK_THAT(save(good, source, folder / "none/out"),
               ContainsSubstring("out: cannot be written"));
    CHECK_THAT(save(good, source, source), ContainsSubstring("is or holds the source"));
    CHECK_THAT(save(good, source, source / ".." / "source/"),
               ContainsSubstring("is or holds the source"));
    CHECK_THAT(save(good, source, folder.path()), ContainsSubstring("is or holds the source"));
    CHECK(names_in(folder.path()) == std::set<std::string>{"source"});

    fs::create_directory(out);
    CHECK(save(good, source, out) == "no error"); // an empty folder may be replaced
    bad = good;
    bad.others.push_back(bad.others[0]);
    CHECK(save(bad, source, out) != "no error");
    CHECK(equal(encoder::load_model(out), good));
    fs::remove(out / "config.json");
    CHECK_THAT(save(good, source, out), ContainsSubstring("out: exists and is not a model"));
    CHECK(fs::exists(out / "model.safetensors"));
    write_text(folder / "file", "");
    CHECK_THAT(save(good, source, folder / "file"),
               ContainsSubstring("file: exists and is not a model"));
    CHECK(names_in(folder.path()) == std::set<std::string>{"source", "out", "file"});
}

TEST_CASE("a bad vocabulary is refused by name") {
    const scratch_folder folder;
    const auto vocab = folder / "vocab.txt";
    encoder::config c = tiny_bert().config;
    const auto error_with = [&](const std::string& text, Eigen::Index size) {
        write_text(vocab, text);
        c.vocabulary = size;
        return error_of([&] { encoder::tokenizer(folder.path(), c); });
    };
    CHECK_THAT(error_of([&] { encoder::tokenizer(folder.path(), c); }),
               ContainsSubstring("has no tokenizer: no tokenizer.json, no vocab.txt"));
    CHECK(error_with("[UNK]\n[CLS]\r\n[SEP]", 3) == "no error");
    CHECK(error_with("[UNK]\n[CLS]\n[SEP]", 5) == "no error");
    CHECK_THAT(error_with("", 3), ContainsSubstring("vocab.txt: lacks the token [UNK]"));
    CHECK_THAT(error_with("[UNK]\n[CLS]\n[SEP]\na\n", 3),
               ContainsSubstring("vocab.txt: has 4 tokens, vocab_size in config.json is 3"));
    CHECK(error_with("[UNK]\n[CLS]\n[SEP]\n[CLS]\n", 4) == "no error");
    CHECK_THAT(error_with("[UNK]\n[CLS]\na\n", 3),
               ContainsSubstring("vocab.txt: lacks the token [SEP]"));
    CHECK_THAT(error_with("a\n[CLS]\n[SEP]\n", 3),
               ContainsSubstring("vocab.txt: lacks the token [UNK]"));
    CHECK_THAT(error_with("[UNK]\na\n[SEP]\n", 3),
               ContainsSubstring("vocab.txt: lacks the token [CLS]"));
}

TEST_CASE("text that is not UTF-8 is refused, with the byte") {
    const encoder::tokenizer tokenizer(fixtures::path("tiny_bert"), tiny_bert().config);
    const auto error = [&](const std::string& text) -> std::string {
        try {
            tokenizer.encode(text, 64);
        } catch (const std::invalid_argument& e) {
            return e.what();
        }
        return "no error";
    };
    for (const char* bad : {"\x80", "\xc3", "\xc3(", "\xc0\xaf", "\xe2\x82", "\xed\xa0\x80",
                            "\xf4\x90\x80\x80", "\xff"}) {
        CHECK_THAT(error(bad), ContainsSubstring("at byte 0"));
        CHECK_THAT(error("a\xc3\xa9[SEP]b" + std::string(bad) + "[MASK]c"),
                   ContainsSubstring("at byte 9"));
    }
    CHECK_THROWS_AS(tokenizer.encode("a", 1), std::invalid_argument);
    CHECK_THROWS_AS(tokenizer.encode("a", 0), std::invalid_argument);

    std::mt19937 random(2);
    int accepted = 0;
    for (int i = 0; i < 20000; ++i) {
        std::string text;
        for (auto size = random() % 12; size > 0; --size)
            text += i % 4 == 1 ? "[SEP]a\xcc\x81 "[random() % 9]
                               : static_cast<char>(random() % (i % 4 == 0 ? 256 : 128));
        accepted += error(text) == "no error";
    }
    CHECK(accepted > 10000);
}

TEST_CASE("of a line that is too long a document is its beginning") {
    const scratch_folder folder;
    constexpr std::size_t most = std::size_t{1} << 22;
    const std::string umlaut = "\xc3\xa4";
    for (const std::size_t more : {0, 1, 2}) { // wherever the limit is in a character
        std::string line(more, 'a');
        while (line.size() < most + 4) line += umlaut;
        write_text(folder / "texts", "first\n" + line + '\n' + std::string(most, 'b') + "\nlast");
        const std::vector<std::string> found = encoder::read_documents(folder / "texts");
        REQUIRE(found.size() == 4);
        CHECK(found[1].size() <= most);
        CHECK(found[1].size() > most - 4);
        CHECK(line.compare(0, found[1].size(), found[1]) == 0);
        CHECK(found[2] == std::string(most, 'b'));
        CHECK(found[3] == "last");
    }
    write_text(folder / "texts", std::string(most + 1, '\x80'));
    CHECK_THAT(error_of([&] { encoder::read_documents(folder / "texts"); }),
               ContainsSubstring("texts: line 1 is not UTF-8 at byte 1"));
    write_text(folder / "labels", "1\tfirst\n1\t" + std::string(most, 'b'));
    CHECK_THAT(error_of([&] { encoder::read_labelled(folder / "labels"); }),
               ContainsSubstring("labels: line 2 is longer than 4194304 bytes"));
}

TEST_CASE("labelled texts are read, or refused by line") {
    const scratch_folder folder;
    const auto read = [&](const std::string& text) {
        write_text(folder / "labels", text);
        return encoder::read_labelled(folder / "labels");
    };
    const auto single = read("\xEF\xBB\xBF"
                             "0\tone\r\n\n65535\t two words \n");
    REQUIRE(single.size() == 2);
    CHECK(single[0].target == 0);
    CHECK(single[0].first == "one");
    CHECK(single[0].second.empty());
    CHECK(single[1].target == 65535);
    CHECK(single[1].first == " two words ");
    const auto pairs = read("3\tone\ttwo\n1\tthree\t\n");
    REQUIRE(pairs.size() == 2);
    CHECK(pairs[0].target == 3);
    CHECK(pairs[0].first == "one");
    CHECK(pairs[0].second == "two");
    CHECK(pairs[1].second.empty());

    const std::pair<const char*, const char*> bad[] = {
        {"", "labels: holds no text"},
        {" \n\t\n", "labels: holds no text"},
        {"1\ta\n1 a\n", "labels: line 2 does not have two or three columns"},
        {"1\ta\tb\tc\n", "labels: line 1 does not have two or three columns"},
        {"1\ta\n\n1\ta\tb\n", "labels: line 3 has 3 columns, the lines before it have 2"},
        {"1\ta\tb\n1\ta\n", "labels: line 2 has 2 columns, the lines before it have 3"},
        {"-1\ta\n", "labels: line 1 has the label '-1', which is not a whole number from 0 to"},
        {"1.0\ta\n", "line 1 has the label '1.0'"},
        {"\ta\n", "line 1 has the label ''"},
        {" 1\ta\n", "line 1 has the label ' 1'"},
        {"65536\ta\n", "line 1 has the label '65536'"},
        {"99999999999\ta\n", "line 1 has the label '99999999999'"},
        {"1\ta\n1\t\xff\n", "labels: line 2 is not UTF-8 at byte 3"},
    };
    for (const auto& [text, sentence] : bad) {
        CAPTURE(text);
        const char* const content = text; // a structured binding cannot be captured
        CHECK_THAT(error_of([&] { read(content); }), ContainsSubstring(sentence));
    }
    CHECK_THAT(error_of([&] { encoder::read_labelled(folder / "none"); }),
               ContainsSubstring("none: cannot be read"));

    const encoder::tokenizer words(fixtures::path("tiny_bert"), tiny_bert().config);
    encoder::config c = tiny_bert().config;
    CHECK(encoder::tokenize(words, single, c).at(1) == words.encode("two words", 64));
    const auto sequences = encoder::tokenize(words, pairs, c);
    CHECK(sequences.at(0) == words.encode("one", "two", 64));
    CHECK(sequences.at(1) == words.encode("three", "", 64));
    c.max_tokens = 5;
    CHECK(encoder::tokenize(words, pairs, c).at(0).size() == 5);
    c.types = 1; // the separators alone keep the texts apart
    const encoder::tokenizer of_one_type(fixtures::path("tiny_bert"), c);
    const encoder::sequence of_both = encoder::tokenize(of_one_type, pairs, c).at(0);
    CHECK(std::all_of(of_both.begin(), of_both.end(), [](std::int32_t id) { return id < 120; }));
}

TEST_CASE("words are cut, special tokens stand, long text is truncated") {
    const encoder::tokenizer tokenizer(fixtures::path("tiny_bert"), tiny_bert().config);
    const std::int32_t unknown = 1, cls = 2, sep = 3, mask = 4;
    const auto ids = [&](const std::string& text) { return tokenizer.encode(text, 64); };
    using list = std::vector<std::int32_t>;
    const auto id_of = [&](const std::string& token) { return ids(token).at(1); };

    CHECK(ids("") == list{cls, sep});
    CHECK(ids("The QUICK fox") == list{cls, id_of("the"), id_of("quick"), id_of("fox"), sep});
    CHECK(ids("f\xc3\xb3x") == ids("fox"));
    CHECK(ids("a.b") == ids("a . b"));
    CHECK(ids("the\xe4\xb8\xad") == list{cls, id_of("the"), unknown, sep});
    CHECK(ids("x[SEP]y[MASK]") == list{cls, id_of("x"), sep, id_of("y"), mask, sep});
    CHECK(ids(std::string(100, 'x')) == tokenizer.encode(std::string(100, 'x'), 64));
    CHECK(tokenizer.encode(std::string(100, 'x'), 200).size() == 102);
    CHECK(ids(std::string(101, 'x')) == list{cls, unknown, sep});
    CHECK(tokenizer.word(cls) == "[CLS]");
    CHECK(tokenizer.word(id_of("fox")) == "fox");
    CHECK(tokenizer.word(ids("foxing").at(2)) == "##ing");
    CHECK(tokenizer.word(119) == "[unused15]");
    CHECK(tokenizer.word(id_of("fox") + 120) == "fox"); // of the second text of a pair
    for (std::size_t most = 2; most < 10; ++most) {
        const list cut = tokenizer.encode("a[MASK] xyz fox foxing", most);
        REQUIRE(cut.size() == std::min<std::size_t>(most, 10));
        CHECK(cut.back() == sep);
        list whole = ids("a[MASK] xyz fox foxing");
        CHECK(std::equal(cut.begin(), cut.end() - 1, whole.begin()));
    }
    std::string marks = "a"; // a long run of marks to be ordered
    for (int i = 0; i < 100000; ++i) marks += i % 2 ? "\xcc\x81" : "\xcc\xa7";
    CHECK(ids(marks) == ids("a"));
}

TEST_CASE("a pair of texts is two token types, and the longer text is cut first") {
    const encoder::tokenizer tokenizer(fixtures::path("tiny_bert"), tiny_bert().config);
    using list = std::vector<std::int32_t>;
    const auto id_of = [&](const std::string& token) { return tokenizer.encode(token, 3).at(1); };
    const std::int32_t cls = 2, sep = 3, the = id_of("the"), fox = id_of("fox");
    CHECK(tokenizer.encode("", "", 3) == list{cls, sep, sep + 120});
    CHECK(tokenizer.encode("the fox", "", 9) == list{cls, the, fox, sep, sep + 120});
    CHECK(tokenizer.encode("The", "fox[SEP]the", 9) ==
          list{cls, the, sep, fox + 120, sep + 120, the + 120, sep + 120});

    for (std::size_t a = 0; a < 7; ++a)
        for (std::size_t b = 0; b < 7; ++b)
            for (std::size_t most = 3; most < 17; ++most) {
                CAPTURE(a, b, most);
                // Of equal numbers the second text keeps one more: the first one is cut.
                std::size_t first = a, second = b;
                while (first + second > most - 3) --(first >= second ? first : second);
                if (a > b && first < second) std::swap(first, second); // unless it was the longer
                list expected = {cls};
                expected.insert(expected.end(), first, the);
                expected.push_back(sep);
                expected.insert(expected.end(), second, fox + 120);
                expected.push_back(sep + 120);
                std::string x, y;
                for (std::size_t i = 0; i < a; ++i) x += "the ";
                for (std::size_t i = 0; i < b; ++i) y += "fox ";
                CHECK(tokenizer.encode(x, y, most) == expected);
            }
    CHECK_THROWS_AS(tokenizer.encode("a", "b", 2), std::invalid_argument);
    CHECK_THROWS_AS(tokenizer.encode("a", "\xff", 9), std::invalid_argument);
}

TEST_CASE("marks that are kept are put in canonical order") {
    const scratch_folder folder;
    const std::string low = "\xe3\x80\xae", high = "\xf0\x9d\x85\xa5"; // classes 224 and 216
    write_text(folder / "vocab.txt", "[UNK]\n[CLS]\n[SEP]\n" + high + "\n##" + low + "\n");
    encoder::config c = tiny_bert().config;
    c.vocabulary = 5;
    const encoder::tokenizer tokenizer(folder.path(), c);
    const std::vector<std::int32_t> ordered = {1, 3, 4, 2};
    CHECK(tokenizer.encode(high + low, 9) == ordered);
    CHECK(tokenizer.encode(low + "\xcc\x81" + high, 9) == ordered);
}

TEST_CASE("token ids are the reference's", "[model]") {
    const auto folder = fixtures::model_folder();
    if (!folder) return;
    const encoder::model m = encoder::load_model(*folder);
    const json expected = fixtures::json("minilm_tokens.json");
    REQUIRE(m.config.max_tokens == expected["max_tokens"]);
    const encoder::tokenizer tokenizer(*folder, m.config);
    for (const json& c : expected["cases"]) {
        CAPTURE(c["text"].dump());
        CHECK(tokenizer.encode(c["text"].get<std::string>(),
                               static_cast<std::size_t>(m.config.max_tokens)) ==
              c["ids"].get<std::vector<std::int32_t>>());
    }
}

TEST_CASE("token ids and types of pairs are the reference's", "[model]") {
    const auto folder = fixtures::model_folder();
    if (!folder) return;
    const encoder::model m = encoder::load_model(*folder);
    const encoder::tokenizer tokenizer(*folder, m.config);
    for (const json& c : fixtures::json("minilm_tokens.json")["pairs"]) {
        CAPTURE(c.dump());
        auto expected = c["ids"].get<std::vector<std::int32_t>>();
        const auto types = c["types"].get<std::vector<std::int32_t>>();
        for (std::size_t t = 0; t < expected.size(); ++t)
            expected[t] += types.at(t) * static_cast<std::int32_t>(m.config.vocabulary);
        CHECK(tokenizer.encode(c["first"].get<std::string>(), c["second"].get<std::string>(),
                               c["max_tokens"].get<std::size_t>()) == expected);
    }
}

TEST_CASE("the real model is loaded, and written again bit by bit", "[model]") {
    const auto folder = fixtures::model_folder();
    if (!folder) return;
    const scratch_folder scratch;
    const encoder::model m = encoder::load_model(*folder);
    CHECK(m.layers.size() == 6);
    CHECK(m.config.pooling == encoder::pooling::mean);
    encoder::save_model(m, *folder, scratch / "copy");
    const encoder::safetensors_file before(*folder / "model.safetensors"),
        after(scratch / "copy/model.safetensors");
    REQUIRE(after.entries().size() == before.entries().size());
    std::int64_t parameters = 0;
    for (const auto& [name, a] : before.entries()) {
        CAPTURE(name);
        const auto& b = after.entries().at(name);
        CHECK(b.shape == a.shape);
        CHECK(b.dtype == a.dtype);
        CHECK(std::equal(a.data, a.data + a.bytes, b.data, b.data + b.bytes));
        parameters += static_cast<std::int64_t>(a.bytes / (a.dtype == "I64" ? 8 : 4));
    }
    CHECK(m.parameters() == parameters);
    CHECK(encoder::load_model(scratch / "copy").json == m.json);
}

} // namespace encoder_io_test
