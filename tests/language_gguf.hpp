// GGUF files for the tests, from pieces that may be wrong.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace gguf {

template <class T>
std::string raw(T value) {
    return {reinterpret_cast<const char*>(&value), sizeof value};
}

inline std::string text(const std::string& s) {
    return raw<std::uint64_t>(s.size()) + s;
}

inline std::string key(const std::string& name, std::uint32_t type, const std::string& value) {
    return text(name) + raw(type) + value;
}

inline std::string array(const std::string& name, std::uint32_t type, std::uint64_t count,
                         const std::string& elements) {
    return key(name, 9, raw(type) + raw(count) + elements);
}

/// `dimensions` as in the file: innermost first.
inline std::string tensor(const std::string& name, const std::vector<std::uint64_t>& dimensions,
                          std::uint32_t type, std::uint64_t begin) {
    std::string entry = text(name) + raw(static_cast<std::uint32_t>(dimensions.size()));
    for (const std::uint64_t n : dimensions) entry += raw(n);
    return entry + raw(type) + raw(begin);
}

struct file {
    std::vector<std::string> keys, tensors;
    std::string data;
    std::uint32_t version = 3;
    std::size_t alignment = 32;

    /// Up to the data, without padding.
    std::string begin() const {
        std::string all = "GGUF" + raw(version) + raw<std::uint64_t>(tensors.size()) +
                          raw<std::uint64_t>(keys.size());
        for (const std::string& k : keys) all += k;
        for (const std::string& t : tensors) all += t;
        return all;
    }
    std::string content() const { return padded(begin()) + data; }
    std::string padded(std::string s) const {
        s.resize((s.size() + alignment - 1) / alignment * alignment, '\0');
        return s;
    }
    /// A tensor behind those that there are.
    void add(const std::string& name, const std::vector<std::uint64_t>& dimensions,
             std::uint32_t type, const std::string& bytes) {
        data = padded(data);
        tensors.push_back(tensor(name, dimensions, type, data.size()));
        data += bytes;
    }
};

/// A small file with a key and a tensor of each kind that is read.
inline file small_file() {
    file f;
    f.keys = {
        key("general.alignment", 4, raw<std::uint32_t>(32)),
        key("a.u8", 0, raw<std::uint8_t>(200)),
        key("a.i8", 1, raw<std::int8_t>(100)),
        key("a.u16", 2, raw<std::uint16_t>(60000)),
        key("a.i16", 3, raw<std::int16_t>(30000)),
        key("a.u32", 4, raw<std::uint32_t>(4000000000)),
        key("a.i32", 5, raw<std::int32_t>(2000000000)),
        key("a.f32", 6, raw(0.1f)),
        key("a.bool", 7, raw<std::uint8_t>(1)),
        key("a.string", 8, text("some\ntext")),
        key("a.u64", 10, raw<std::uint64_t>(18000000000000000000u)),
        key("a.i64", 11, raw<std::int64_t>(9000000000000000000)),
        key("a.f64", 12, raw(0.1)),
        array("some.string", 8, 3, text("a") + text("") + text(std::string("\0\xff", 2))),
        array("some.i32", 5, 3, raw(7) + raw(0) + raw(2147483647)),
        array("some.u8", 0, 2, "ab"),
        array("some.bool", 7, 2, std::string("\0\1", 2)),
        array("some.f32", 6, 1, raw(1.5f)),
        array("none", 8, 0, ""),
    };
    const std::string half("\0\x3c", 2), quarter("\0\xb4", 2); // 1 and -0.25
    const std::string nibbles = "0123456789abcdef", signs = nibbles + std::string(16, '\xf0');
    f.add("f32", {3, 2}, 0, raw(1.f) + raw(-2.f) + raw(3.f) + raw(0.f) + raw(1e-40f) + raw(1e30f));
    f.add("f16", {2}, 1, half + quarter);
    f.add("q4_0", {32, 2}, 2, half + nibbles + quarter + nibbles);
    f.add("q4_1", {32, 1, 1, 1}, 3, half + quarter + nibbles);
    f.add("q8_0", {32}, 8, quarter + signs);
    f.add("bf16", {1, 1, 2}, 30, half + quarter);
    f.add("q5_k", {256}, 13, std::string(176, '\6'));
    f.add("iq2_xs", {256}, 17, std::string(74, '\7'));
    f.add("empty", {0, 5}, 0, "");
    return f;
}

} // namespace gguf
