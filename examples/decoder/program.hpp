// What the programs that prune a small decoder have in common: the text that they are given, and
// what they print of a model.
#pragma once

#include "decoder.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

namespace decoder {

/// Nine tenths of a text, some batches of them for statistics, and of the last tenth 100 sequences
/// with the token behind each of theirs.
struct texts {
    tokens learned;
    std::vector<tokens> calibration;
    tokens ids, next;
};

/// argv[1], the steps of training. Throws std::runtime_error if it is no whole number from 1 to 1e6.
inline int read_steps(int argc, char** argv) {
    if (argc < 3) throw std::runtime_error(std::string("usage: ") + argv[0] + " STEPS TEXT...");
    char* end = nullptr;
    const long steps = std::strtol(argv[1], &end, 10);
    if (*end != '\0' || steps < 1 || steps > 1000000)
        throw std::runtime_error(std::string("STEPS is '") + argv[1] +
                                 "', expected a whole number from 1 to 1000000");
    return static_cast<int>(steps);
}

/// The files argv[2], ...: a byte is a token. Throws std::runtime_error.
inline texts read_texts(int argc, char** argv, index sequence) {
    tokens text;
    for (int i = 2; i < argc; ++i) {
        std::ifstream file(argv[i], std::ios::binary);
        if (!file) throw std::runtime_error(std::string(argv[i]) + ": cannot be read");
        for (std::istreambuf_iterator<char> c(file), end; c != end; ++c)
            text.push_back(static_cast<std::uint8_t>(*c & 127));
    }
    const auto length = static_cast<std::size_t>(sequence);
    if (text.size() < 1000 * length + 10)
        throw std::runtime_error(std::to_string(text.size()) + " bytes of text, " +
                                 std::to_string(1000 * length + 10) + " are needed");
    const std::size_t learned = text.size() / 10 * 9;
    const std::size_t held =
        std::min<std::size_t>(100, (text.size() - learned - 1) / length) * length;
    texts found{
        part(text, 0, learned), {}, part(text, learned, held), part(text, learned + 1, held)};
    for (std::size_t i = 0; i < 10; ++i)
        found.calibration.push_back(part(text, i * (learned / 10), 8 * length));
    return found;
}

/// Of a model, by sequence of the text's last tenth.
using losses = std::vector<double>;

inline double mean(const losses& of) {
    return std::accumulate(of.begin(), of.end(), 0.0) / static_cast<double>(of.size());
}

/// Prints the mean of the losses, which it returns, with what they are above the dense model's and
/// two standard errors of that, unless that is null; and the speed.
template <class Model>
losses report(const std::string& what, const Model& m, const texts& text,
              const losses* dense = nullptr) {
    const auto begin = std::chrono::steady_clock::now();
    losses found, above;
    const auto length = static_cast<std::size_t>(m.config.length);
    for (std::size_t at = 0; at < text.ids.size(); at += length)
        found.push_back(loss(m, part(text.ids, at, length), part(text.next, at, length)));
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    std::printf("%-30s loss %.4f", what.c_str(), mean(found));
    if (dense) {
        for (std::size_t i = 0; i < found.size(); ++i) above.push_back(found[i] - (*dense)[i]);
        double squares = 0;
        for (const double x : above) squares += (x - mean(above)) * (x - mean(above));
        const auto count = static_cast<double>(above.size());
        std::printf(", %.4f +- %.4f above dense", mean(above),
                    2 * std::sqrt(squares / (count * std::max(1.0, count - 1))));
    }
    std::printf("; %.0f tokens/s\n", static_cast<double>(text.ids.size()) / seconds.count());
    return found;
}

} // namespace decoder
