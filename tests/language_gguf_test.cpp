#include "encoder_fixtures.hpp"
#include "language_gguf.hpp"
#include "support.hpp"

#include "language_model/gguf.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

namespace language_gguf_test {

namespace fs = std::filesystem;
using encoder::file_error;
using fixtures::error_of;
using fixtures::scratch_folder;
using gguf::array;
using gguf::key;
using gguf::raw;
using gguf::small_file;
using gguf::tensor;
using gguf::text;
using language::gguf_file;

namespace {

fs::path write(const fs::path& path, const std::string& content) {
    std::ofstream(path, std::ios::binary) << content;
    return path;
}

/// A half by the definition of the format. Its bits are not those of NaN or infinity.
double half_value(std::uint32_t bits) {
    const std::uint32_t exponent = bits >> 10 & 0x1fu, fraction = bits & 0x3ffu;
    const double magnitude = exponent == 0
                                 ? std::ldexp(fraction, -24)
                                 : std::ldexp(0x400u + fraction, static_cast<int>(exponent) - 25);
    return bits & 0x8000u ? -magnitude : magnitude;
}

bool is_finite_half(std::uint32_t bits) {
    return (bits & 0x7c00u) != 0x7c00u;
}

std::uint16_t random_half(random_source& random) {
    std::uint32_t bits = 0x7c00;
    while (!is_finite_half(bits)) bits = static_cast<std::uint32_t>(random.integer(0, 0xffff));
    return static_cast<std::uint16_t>(bits);
}

/// Blocks of a quantised type, and the values that they stand for.
struct quantised {
    std::string bytes;
    std::vector<float> values;

    void add_q8_0(random_source& random) {
        const std::uint16_t scale = random_half(random);
        bytes += raw(scale);
        for (int i = 0; i < 32; ++i) {
            const auto q = static_cast<std::int8_t>(random.integer(-128, 127));
            bytes += raw(q);
            values.push_back(static_cast<float>(q * half_value(scale)));
        }
    }
    /// Of Q4_1 with an offset, of Q4_0 without.
    void add_q4(random_source& random, bool has_offset) {
        const std::uint16_t scale = random_half(random), offset = random_half(random);
        bytes += raw(scale);
        if (has_offset) bytes += raw(offset);
        int nibbles[32];
        for (int& n : nibbles) n = static_cast<int>(random.integer(0, 15));
        for (int i = 0; i < 16; ++i)
            bytes += raw(static_cast<std::uint8_t>(nibbles[i] | nibbles[i + 16] << 4));
        for (const int n : nibbles)
            values.push_back(static_cast<float>(has_offset
                                                    ? n * half_value(scale) + half_value(offset)
                                                    : (n - 8) * half_value(scale)));
    }
};

/// Reads all that there is. What may be refused of a file that was opened are numbers that are
/// negative or not finite.
void read_all(const gguf_file& file, const gguf::file& keys_of) {
    const auto try_to = [](const std::function<void()>& read) {
        try {
            read();
        } catch (const file_error& error) {
            CHECK(*error.what() != '\0');
        }
    };
    for (const std::string& k : keys_of.keys) {
        std::uint64_t length;
        std::memcpy(&length, k.data(), sizeof length);
        const std::string name = k.substr(sizeof length, length);
        try_to([&] { file.text(name); });
        try_to([&] { file.number(name); });
        try_to([&] { file.real(name); });
        try_to([&] { file.flag(name, false); });
        try_to([&] { file.texts(name); });
        try_to([&] { file.numbers(name); });
    }
    for (const auto& [name, entry] : file.entries()) {
        CHECK(std::count(entry.data, entry.data + entry.bytes, std::byte{0}) >= 0);
        try_to([&, &of = name, &shape = entry.shape] { file.read(of, shape); });
    }
}

} // namespace

TEST_CASE("keys of a GGUF file have the values that were written") {
    const scratch_folder folder;
    gguf::file written = small_file();
    written.version = GENERATE(2u, 3u);
    const gguf_file file(write(folder / "small.gguf", written.content()));
    CHECK(file.path() == folder / "small.gguf");
    CHECK(file.has("a.u8"));
    CHECK_FALSE(file.has("a.u9"));
    CHECK(file.number("a.u8") == 200);
    CHECK(file.number("a.i8") == 100);
    CHECK(file.number("a.u16") == 60000);
    CHECK(file.number("a.i16") == 30000);
    CHECK(file.number("a.u32") == 4000000000);
    CHECK(file.number("a.i32") == 2000000000);
    CHECK(file.number("a.u64") == 18000000000000000000u);
    CHECK(file.number("a.i64") == 9000000000000000000);
    CHECK(file.real("a.f32") == double{0.1f});
    CHECK(file.real("a.f64") == 0.1);
    CHECK(file.flag("a.bool", false));
    CHECK(file.flag("a.u9", true));
    CHECK_FALSE(file.flag("a.u9", false));
    CHECK(file.text("a.string") == "some\ntext");
    CHECK(file.texts("some.string") == std::vector<std::string>{"a", "", {"\0\xff", 2}});
    CHECK(file.texts("none").empty());
    CHECK(file.numbers("some.i32") == std::vector<std::uint64_t>{7, 0, 2147483647});
    CHECK(file.numbers("some.u8") == std::vector<std::uint64_t>{'a', 'b'});
    CHECK(file.reals("some.f32") == std::vector<double>{1.5});
}

TEST_CASE("an integer of a GGUF file must not be negative, of any type") {
    const scratch_folder folder;
    gguf::file written;
    const std::pair<std::uint32_t, std::string> minus_twos[] = {{1, raw<std::int8_t>(-2)},
                                                                {3, raw<std::int16_t>(-2)},
                                                                {5, raw<std::int32_t>(-2)},
                                                                {11, raw<std::int64_t>(-2)}};
    for (const auto& [type, value] : minus_twos) {
        const std::string name = std::to_string(type);
        written.keys.push_back(key(name, type, value));
        written.keys.push_back(array("of" + name, type, 2, std::string(value.size(), 0) + value));
    }
    const gguf_file file(write(folder / "some.gguf", written.content()));
    for (const auto& of : minus_twos) {
        const std::string name = std::to_string(of.first);
        CHECK_THAT(error_of([&] { file.number(name); }),
                   ContainsSubstring("some.gguf: key '" + name + "' is -2, which must not be"));
        CHECK_THAT(error_of([&] { file.numbers("of" + name); }),
                   ContainsSubstring("key 'of" + name + "' is -2 at element 1, which must not be"));
    }
}

TEST_CASE("a key that is missing or of another type is refused by name") {
    const scratch_folder folder;
    gguf::file written = small_file();
    written.keys.push_back(key("nan", 6, raw(not_a_number<float>())));
    written.keys.push_back(key("infinite", 12, raw(minus_infinite<double>())));
    written.keys.push_back(array("nans", 6, 2, raw(1.f) + raw(not_a_number<float>())));
    const gguf_file file(write(folder / "some.gguf", written.content()));
    const auto check = [](const auto& read, const std::string& sentence) {
        const std::string error = error_of(read);
        CHECK_THAT(error, ContainsSubstring("some.gguf: " + sentence));
        CHECK(error.find('\n') == error.npos);
    };
    check([&] { file.text("b"); }, "there is no key 'b'");
    check([&] { file.number("b"); }, "there is no key 'b'");
    check([&] { file.real("b"); }, "there is no key 'b'");
    check([&] { file.texts("b"); }, "there is no key 'b'");
    check([&] { file.numbers("a\nb\x7f"); }, "there is no key 'a\\x0ab\\x7f'");
    check([&] { file.text(std::string(5000, 'b')); },
          "there is no key '" + std::string(100, 'b') + "...'");
    check([&] { file.text("a.u8"); }, "key 'a.u8' is of type u8, not string");
    check([&] { file.text("some.string"); }, "key 'some.string' is of type string[], not string");
    check([&] { file.texts("a.string"); }, "key 'a.string' is of type string, not string[]");
    check([&] { file.texts("some.u8"); }, "key 'some.u8' is of type u8[], not string[]");
    check([&] { file.number("a.f32"); }, "key 'a.f32' is of type f32, not integer");
    check([&] { file.number("a.bool"); }, "key 'a.bool' is of type bool, not integer");
    check([&] { file.number("some.i32"); }, "key 'some.i32' is of type i32[], not integer");
    check([&] { file.numbers("a.i32"); }, "key 'a.i32' is of type i32, not integer[]");
    check([&] { file.numbers("some.f32"); }, "key 'some.f32' is of type f32[], not integer[]");
    check([&] { file.numbers("some.bool"); }, "key 'some.bool' is of type bool[], not integer[]");
    check([&] { file.real("a.u64"); }, "key 'a.u64' is of type u64, not f32 or f64");
    check([&] { file.real("nan"); }, "key 'nan' is NaN or infinite");
    check([&] { file.real("infinite"); }, "key 'infinite' is NaN or infinite");
    check([&] { file.reals("nans"); }, "key 'nans' is NaN or infinite");
    check([&] { file.reals("a.f32"); }, "key 'a.f32' is of type f32, not f32 or f64[]");
    check([&] { file.flag("a.u8", true); }, "key 'a.u8' is of type u8, not bool");
}

TEST_CASE("tensors of a GGUF file have the values that were written") {
    const scratch_folder folder;
    random_source random;
    CAPTURE(random);
    constexpr int blocks = 200;
    constexpr std::size_t rows = 50;
    quantised q4_0, q4_1, q8_0;
    for (int b = 0; b < blocks; ++b) {
        q4_0.add_q4(random, false);
        q4_1.add_q4(random, true);
        q8_0.add_q8_0(random);
    }
    const std::vector<float> singles = random.vector<float>(7 * 3 * 2);
    std::string f32, f16, bf16;
    for (const float x : singles) f32 += raw(x);
    std::vector<float> halves, bfloats;
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
        if (is_finite_half(bits)) {
            f16 += raw(static_cast<std::uint16_t>(bits));
            halves.push_back(static_cast<float>(half_value(bits)));
        }
        if ((bits & 0x7f80u) != 0x7f80u) {
            bf16 += raw(static_cast<std::uint16_t>(bits));
            bfloats.push_back(from_bits<float>(bits << 16, 0));
        }
    }

    gguf::file written;
    written.alignment = GENERATE(8u, 32u, 4096u);
    written.keys = {
        key("general.alignment", 4, raw(static_cast<std::uint32_t>(written.alignment)))};
    written.add("f16", {halves.size()}, 1, f16);
    written.add("q4_0", {32 * blocks / rows, rows}, 2, q4_0.bytes);
    written.add("q4_1", {32, blocks / rows, rows}, 3, q4_1.bytes);
    written.add("f32", {7, 3, 1, 2}, 0, f32);
    written.add("q8_0", {32 * blocks}, 8, q8_0.bytes);
    written.add("bf16", {1, bfloats.size()}, 30, bf16);
    const gguf_file file(write(folder / "some.gguf", written.content()));
    CHECK(file.entries().size() == 6);
    const auto size = [](const auto& x) { return static_cast<std::int64_t>(x.size()); };
    CHECK(same_bits(file.read("f32", {2, 1, 3, 7}), singles));
    CHECK(same_bits(file.read("f16", {size(halves)}), halves));
    CHECK(same_bits(file.read("bf16", {size(bfloats), 1}), bfloats));
    CHECK(file.read("q4_0", {rows, 32 * blocks / rows}) == q4_0.values);
    CHECK(file.read("q4_1", {rows, blocks / rows, 32}) == q4_1.values);
    CHECK(file.read("q8_0", {32 * blocks}) == q8_0.values);

    const gguf_file::entry& e = file.entries().at("q4_1");
    CHECK(e.type == 3);
    CHECK(e.shape == std::vector<std::int64_t>{rows, blocks / rows, 32});
    CHECK(std::string(reinterpret_cast<const char*>(e.data), e.bytes) == q4_1.bytes);
}

TEST_CASE("tensors of all quantised types have the reference's values") {
    const scratch_folder folder;
    gguf::file written;
    const auto blocks = fixtures::json("gguf_blocks.json");
    for (const auto& [type, pair] : blocks.items())
        written.add(type, {fixtures::floats(pair[1]).size()},
                    static_cast<std::uint32_t>(std::stoul(type)), fixtures::bytes(pair[0]));
    const gguf_file file(write(folder / "some.gguf", written.content()));
    for (const auto& [type, pair] : blocks.items()) {
        CAPTURE(type);
        const std::vector<float> values = fixtures::floats(pair[1]);
        CHECK(file.read(type, {static_cast<std::int64_t>(values.size())}) == values);
    }
}

TEST_CASE("copies of a GGUF file share what is mapped") {
    const scratch_folder folder;
    auto first = std::make_unique<gguf_file>(write(folder / "small.gguf", small_file().content()));
    const gguf_file second = *first;
    gguf_file third = std::move(*first);
    first.reset();
    CHECK(second.read("f16", {2}) == std::vector<float>{1, -0.25f});
    third = second;
    CHECK(third.read("f16", {2}) == std::vector<float>{1, -0.25f});
    CHECK(third.text("a.string") == "some\ntext");
}

TEST_CASE("what is unusual in a GGUF file but right is accepted") {
    const scratch_folder folder;
    const auto path = folder / "good.gguf";
    const auto open = [&](const std::string& content) { return gguf_file(write(path, content)); };
    CHECK(open(gguf::file{}.begin()).entries().empty());
    CHECK(open(small_file().content() + "more").entries().size() == 9);

    gguf::file empty; // whose data begins behind its end
    empty.add("", {0}, 2, "");
    CHECK(open(empty.begin()).read("", {0}).empty());

    gguf::file unsorted;
    unsorted.data = std::string(100, '\0');
    unsorted.tensors = {tensor("b", {1}, 0, 96), tensor("\xff", {1}, 0, 32),
                        tensor("c", {0}, 0, 32), tensor("a", {8}, 0, 64)};
    const gguf_file file = open(unsorted.content());
    CHECK(file.read("b", {1}) == std::vector<float>{0});
    CHECK(file.read("\xff", {1}) == std::vector<float>{0});

    const gguf_file unknown = open(small_file().content());
    const gguf_file::entry& e = unknown.entries().at("iq2_xs");
    CHECK(e.type == 17);
    CHECK(e.bytes == 0);
    CHECK(e.data[0] == std::byte{7});
}

TEST_CASE("a bad GGUF file is refused by name") {
    struct bad {
        std::string content, sentence;
    };
    const auto with_count = [](std::uint64_t tensors, std::uint64_t keys) {
        return "GGUF" + raw(3u) + raw(tensors) + raw(keys) + std::string(40, '\0');
    };
    const auto with_keys = [](std::vector<std::string> keys) {
        return gguf::file{std::move(keys), {}, ""}.content();
    };
    const auto with_version = [](std::uint32_t version) {
        return gguf::file{{}, {}, "", version}.content();
    };
    const auto with_alignment = [&](std::uint32_t alignment) {
        return with_keys({key("general.alignment", 4, raw(alignment))});
    };
    const auto with = [](std::vector<std::string> tensors) { // in 100 bytes of data
        return gguf::file{{}, std::move(tensors), std::string(100, '\0')}.content();
    };
    constexpr std::uint64_t most = ~std::uint64_t{0}, half = std::uint64_t{1} << 32;
    const std::string a = tensor("a", {8}, 0, 32);
    const bad files[] = {
        {"", "has 0 bytes, a GGUF file has at least 24"},
        {std::string(23, 'G'), "has 23 bytes"},
        {std::string(24, 'G'), "does not begin with 'GGUF'"},
        {"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer"},
        {with_version(1), "of version 1, only 2 and 3 are read"},
        {with_version(4), "of version 4"},
        {with_version(3u << 24), "is a big-endian GGUF file"},
        {with_count(0, 4), "says that it has 4 keys, of which each needs 13 bytes or more; the "
                           "file has 64"},
        {with_count(2, 0), "says that it has 2 tensors, of which each needs 32 bytes or more"},
        {with_count(0, most), "has 18446744073709551615 keys"},
        {with_count(most, 0), "has 18446744073709551615 tensors"},
        {with_keys({raw(most) + std::string(8, '\0')}),
         "key 1 of 1 needs 18446744073709551615 times 1 bytes at byte 32, the file has 64"},
        {with_keys({key("a", 13, raw(0))}), "key 'a' is of the unknown type 13"},
        {with_keys({key("a\n", most & 0xffffffffu, raw(0))}),
         "key 'a\\x0a' is of the unknown type 4294967295"},
        {with_keys({array("a", 13, 1, "12345678")}), "key 'a' is an array of the unknown type 13"},
        {with_keys({array("a", 9, 0, "")}), "key 'a' is an array of arrays"},
        {with_keys({array("a", 8, most, "")}),
         "the value of key 'a' needs 18446744073709551615 times 8 bytes at byte 49, the file "
         "has 64"},
        {with_keys({array("a", 10, (most >> 3) + 1, "")}),
         "the value of key 'a' needs 2305843009213693952 times 8 bytes"},
        {with_keys({key("a", 8, raw(most - 7))}), "needs 18446744073709551608 times 1 bytes"},
        {with_keys({key("a", 7, "\2")}), "key 'a' holds a bool that is not 0 or 1"},
        {with_keys({array("a", 7, 2, "\1\xff")}), "key 'a' holds a bool that is not 0 or 1"},
        {with_keys({key("a", 0, "1"), key("a", 8, text("b"))}), "the key 'a' stands twice"},
        {with_keys({key("general.alignment", 10, raw(most))}),
         "key 'general.alignment' is of type u64, not u32"},
        {with_alignment(0), "key 'general.alignment' is 0, not a power of two of at least 8"},
        {with_alignment(4), "is 4, not a power of two"},
        {with_alignment(33), "is 33, not a power of two"},
        {with({raw(most) + std::string(24, '\0')}),
         "tensor 1 of 1 needs 18446744073709551615 times 1 bytes at byte 32"},
        {with({tensor("a", {}, 0, 0) + std::string(8, '\0')}),
         "tensor 'a' has 0 dimensions, not 1 to 4"},
        {with({tensor("a", {1, 1, 1, 1, 1}, 0, 0)}), "tensor 'a' has 5 dimensions"},
        {with({tensor("a", {1, most}, 0, 0)}),
         "tensor 'a' has the impossible dimension 18446744073709551615"},
        {with({tensor("a", {half, half}, 0, 0)}),
         "tensor 'a' has the impossible shape [4294967296, 4294967296]"},
        {with({tensor("a", {half, half / 2}, 0, 0)}), "has the impossible shape"},
        {with({tensor("a", {half, half / 4}, 0, 0)}), "has the impossible shape"},
        {with({tensor("a", {half, half, half, half}, 99, 0)}), "has the impossible shape"},
        {with({tensor("a", {half, half / 8}, 0, 0)}), "needs 9223372036854775808 bytes"},
        {with({tensor("a", {48, 2}, 2, 0)}),
         "tensor 'a' has rows of 48 elements, Q4_0 needs a multiple of 32"},
        {with({tensor("a", {16, 2}, 8, 0)}), "rows of 16 elements, Q8_0 needs"},
        {with({tensor("a", {1, 32}, 3, 0)}), "rows of 1 elements, Q4_1 needs"},
        {with({tensor("a", {1}, 0, 36)}),
         "tensor 'a' begins at byte 36 of the data, which is not a multiple of the alignment 32"},
        {with({a, a}), "there are two tensors 'a'"},
        {with({a, tensor("b", {17}, 0, 32)}),
         "tensor 'b' begins at byte 32 of the data, inside another one, which ends at 64"},
        {with({a, tensor("b", {9}, 0, 0)}), "tensor 'a' begins at byte 32 of the data, inside"},
        {with({a, tensor("b", {1}, 99, 32)}), "inside another one"},
        {with({tensor("a", {10}, 0, 64)}),
         "tensor 'a' needs 40 bytes from byte 64 of the data on, the file has 100 bytes of data"},
        {with({tensor("a", {1}, 0, 128)}), "needs 4 bytes from byte 128"},
        {with({tensor("a", {0}, 0, 128)}), "needs 0 bytes from byte 128"},
        {with({tensor("a", {1}, 0, most - 31)}), "needs 4 bytes from byte 18446744073709551584"},
        {with({tensor("a", {1}, 99, 128)}), "needs 1 bytes from byte 128"},
    };
    const scratch_folder folder;
    const auto path = folder / "bad.gguf";
    for (const bad& file : files) {
        write(path, file.content);
        const std::string error = error_of([&] { gguf_file{path}; });
        CAPTURE(file.content.substr(0, 120));
        CHECK_THAT(error, ContainsSubstring("bad.gguf: "));
        CHECK_THAT(error, ContainsSubstring(file.sentence));
        CHECK(error.find('\n') == error.npos);
    }
    CHECK_THAT(error_of([&] { gguf_file{folder.path()}; }),
               ContainsSubstring("is not a regular file"));
    CHECK_THAT(error_of([&] { gguf_file{folder / "none"}; }),
               ContainsSubstring("none: there is no such file"));
}

TEST_CASE("a tensor of a GGUF file is checked when it is read") {
    const scratch_folder folder;
    gguf::file written = small_file();
    const std::string nan("\1\x7c", 2), infinity("\0\xfc", 2), one("\0\x3c", 2);
    const std::string nibbles(16, '\0'), good = one + one + nibbles;
    written.add("nan.f32", {2}, 0, raw(1.f) + raw(not_a_number<float>()));
    written.add("nan.f16", {3}, 1, one + one + infinity);
    written.add("nan.bf16", {2}, 30, raw<std::uint16_t>(0x7f7f) + raw<std::uint16_t>(0x7f80));
    written.add("nan.q4_0", {32}, 2, nan + nibbles);
    written.add("nan.q4_1", {32, 3}, 3, good + good + infinity + one + nibbles);
    written.add("nan.least", {64}, 3, good + one + nan + nibbles);
    written.add("nan.q8_0", {32}, 8, infinity + nibbles + nibbles);
    const std::string many(192, '\0');
    const auto large = [&](const std::string& begin, const std::string& end, std::size_t size) {
        return begin + many.substr(0, size - begin.size() - end.size()) + end;
    };
    written.add("nan.q5_0", {32}, 6, large(nan, "", 22));
    written.add("nan.q5_1", {32}, 7, large(one + infinity, "", 24));
    written.add("nan.q2_k", {256}, 10, large("", infinity + one, 84));
    written.add("nan.q2_k.least", {256}, 10, large("", one + nan, 84));
    written.add("nan.q3_k", {256}, 11, large("", nan, 110));
    written.add("nan.q4_k", {512}, 12, large(one + one, "", 144) + large(nan + one, "", 144));
    written.add("nan.q5_k", {256}, 13, large(one + infinity, "", 176));
    written.add("nan.q6_k", {256}, 14, many.substr(0, 192) + large("", nan, 18));
    written.add("nan.iq4_nl", {32}, 20, large(infinity, "", 18));
    written.add("nan.iq4_xs", {256}, 23, large(nan, "", 136));
    const gguf_file file(write(folder / "some.gguf", written.content()));
    const auto check = [&](const char* name, const std::vector<std::int64_t>& shape,
                           const std::string& sentence) {
        CHECK_THAT(error_of([&] { file.read(name, shape); }),
                   ContainsSubstring("some.gguf: " + sentence));
    };
    check("f", {2, 3}, "there is no tensor 'f'");
    check("f32", {3, 2}, "tensor 'f32' has the shape [2, 3], not [3, 2]");
    check("f32", {6}, "tensor 'f32' has the shape [2, 3], not [6]");
    check("iq2_xs", {256},
          "tensor 'iq2_xs' is of type 17, not one of F32 (0), F16 (1), Q4_0 (2), Q4_1 (3), "
          "Q5_0 (6), Q5_1 (7), Q8_0 (8), Q2_K (10), Q3_K (11), Q4_K (12), Q5_K (13), Q6_K (14), "
          "IQ4_NL (20), IQ4_XS (23), BF16 (30)");
    check("nan.f32", {2}, "tensor 'nan.f32' holds NaN or infinity at element 1");
    check("nan.f16", {3}, "tensor 'nan.f16' holds NaN or infinity at element 2");
    check("nan.bf16", {2}, "tensor 'nan.bf16' holds NaN or infinity at element 1");
    check("nan.q4_0", {32}, "tensor 'nan.q4_0' holds NaN or infinity at element 0");
    check("nan.q4_1", {3, 32}, "tensor 'nan.q4_1' holds NaN or infinity at element 64");
    check("nan.least", {64}, "tensor 'nan.least' holds NaN or infinity at element 32");
    check("nan.q8_0", {32}, "tensor 'nan.q8_0' holds NaN or infinity at element 0");
    for (const char* name : {"q2_k", "q2_k.least", "q3_k", "q5_k", "q6_k", "iq4_xs"})
        check(("nan." + std::string(name)).c_str(), {256},
              "tensor 'nan." + std::string(name) + "' holds NaN or infinity at element 0");
    for (const char* name : {"q5_0", "q5_1", "iq4_nl"})
        check(("nan." + std::string(name)).c_str(), {32},
              "tensor 'nan." + std::string(name) + "' holds NaN or infinity at element 0");
    check("nan.q4_k", {512}, "tensor 'nan.q4_k' holds NaN or infinity at element 256");
}

TEST_CASE("a GGUF file that ends early is refused, wherever it ends") {
    const scratch_folder folder;
    const auto path = folder / "short.gguf";
    const std::string good = small_file().content();
    // The last of its tensors has no elements, but begins at the end.
    for (std::size_t size = 0; size < good.size(); ++size) {
        write(path, good.substr(0, size));
        const std::string error = error_of([&] { gguf_file{path}; });
        if (error.find("short.gguf: ") == error.npos) FAIL(size << " bytes: " << error);
    }

    gguf::file padded;
    padded.add("a", {1}, 0, raw(1.5f));
    padded.data = padded.padded(padded.data);
    const std::string whole = padded.content();
    for (std::size_t size = 0; size <= whole.size(); ++size) {
        write(path, whole.substr(0, size));
        if (size >= whole.size() - 28)
            CHECK(gguf_file(path).read("a", {1}) == std::vector<float>{1.5f});
        else if (error_of([&] { gguf_file{path}; }).find("short.gguf: ") == std::string::npos)
            FAIL(size << " bytes are accepted");
    }
}

TEST_CASE("random changes of a GGUF file are accepted or refused, never more") {
    const scratch_folder folder;
    const auto path = folder / "flipped.gguf";
    const gguf::file small = small_file();
    const std::string good = small.content();
    read_all(gguf_file(write(path, good)), small);
    random_source random;
    CAPTURE(random);
    int accepted = 0;
    constexpr int times = 2000;
    for (int i = 0; i < times; ++i) {
        std::string changed = good;
        for (index_t flips = random.integer(1, 3); flips > 0; --flips)
            changed[static_cast<std::size_t>(
                random.integer(0, static_cast<index_t>(good.size()) - 1))] ^=
                static_cast<char>(i % 2 ? 1u << random.integer(0, 7) : random.integer(1, 255));
        write(path, changed);
        try {
            const gguf_file file(path);
            ++accepted;
            read_all(file, small);
        } catch (const file_error& error) {
            CHECK_THAT(error.what(), ContainsSubstring("flipped.gguf: "));
        }
    }
    CHECK(accepted > 0);
    CHECK(accepted < times);
}

} // namespace language_gguf_test
