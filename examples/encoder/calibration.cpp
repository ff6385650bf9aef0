#include "calibration.hpp"

#include "progress.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <random>

namespace encoder {
namespace {

constexpr std::int64_t backward_tokens =
    2048; // a batch; the backward pass keeps all layers' activations

std::int64_t count_tokens(const std::vector<sequence>& sequences) {
    std::int64_t n = 0;
    for (const sequence& s : sequences) n += static_cast<std::int64_t>(s.size());
    return n;
}

// Gradient of r . e, r standard normal, drawn by sample so that batches do not matter.
void draw_projection(std::uint64_t seed, std::int64_t sample, Eigen::Ref<Eigen::RowVectorXf> out) {
    std::seed_seq mixed{seed, static_cast<std::uint64_t>(sample)};
    std::mt19937_64 random(mixed);
    std::normal_distribution<float> normal;
    for (float& x : out) x = normal(random);
}

// `count` of n indices, in ascending order.
std::vector<std::size_t> choose(std::size_t n, std::size_t count, std::uint64_t seed) {
    std::vector<std::size_t> all(n), some;
    std::iota(all.begin(), all.end(), std::size_t{0});
    std::mt19937_64 random(seed);
    std::sample(all.begin(), all.end(), std::back_inserter(some), count, random);
    return some;
}

// The texts of about `share` of the sequences, one after another, cut into pieces of 4 to
// max_tokens tokens between the special ones at the ends. Lengths are drawn with density 1 / n^2,
// so that each octave of lengths gets as many tokens.
std::vector<sequence> recut_text(const std::vector<sequence>& from, double share,
                                 std::size_t max_tokens, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<double> uniform;
    sequence text;
    for (const sequence& s : from)
        if (uniform(random) < share && s.size() > 2)
            text.insert(text.end(), s.begin() + 1, s.end() - 1);
    const double longest = std::max(static_cast<double>(max_tokens) - 2, 1.0);
    const double shortest = std::min(4.0, longest);
    std::vector<sequence> pieces;
    for (auto at = text.begin(); at != text.end();) {
        const double u = uniform(random);
        const double length = 1 / ((1 - u) / shortest + u / longest);
        const auto n = std::min<std::ptrdiff_t>(std::lround(length), text.end() - at);
        sequence piece{from.front().front()};
        piece.insert(piece.end(), at, at + n);
        piece.push_back(from.front().back());
        pieces.push_back(std::move(piece));
        at += n;
    }
    return pieces;
}

} // namespace

const dense& reader(const layer& l, unit_kind kind) {
    return kind == unit_kind::head ? l.attention_output : l.output;
}
dense& reader(layer& l, unit_kind kind) {
    return kind == unit_kind::head ? l.attention_output : l.output;
}

void advance(network& net, std::size_t l, unit_kind kind, const batch& b, matrix& x, matrix& inputs,
             matrix& sum) {
    if (kind == unit_kind::head) {
        net.attention(l, x, b, inputs);
        net.attention_residual(l, inputs, x, sum);
        net.attention_norm(l, sum, x);
    } else {
        net.activation(l, x, inputs);
        net.output_residual(l, inputs, x, sum);
        net.output_norm(l, sum, x);
    }
}

std::vector<sequence> calibration::all() const {
    std::vector<sequence> both = sequences;
    both.insert(both.end(), recut.begin(), recut.end());
    return both;
}

calibration read_calibration(const std::filesystem::path& file, bool labelled, std::size_t samples,
                             std::uint64_t seed, const tokenizer& words, std::size_t max_tokens) {
    calibration data;
    std::vector<std::string> texts;
    if (labelled) {
        const std::vector<scored_pair> pairs = read_pairs(file);
        const auto [least, most] = std::minmax_element(
            pairs.begin(), pairs.end(),
            [](const scored_pair& x, const scored_pair& y) { return x.score < y.score; });
        const double low = std::min(0.0, least->score), high = most->score;
        if (!(least->score < high)) throw file_error(file.string() + ": all scores are the same");
        for (const std::size_t i : choose(pairs.size(), samples, seed)) {
            texts.push_back(pairs[i].first);
            texts.push_back(pairs[i].second);
            data.labels.push_back((pairs[i].score - low) / (high - low));
        }
    } else {
        const std::vector<std::string> documents = read_documents(file);
        for (const std::size_t i : choose(documents.size(), samples, seed))
            texts.push_back(documents[i]);
    }
    data.sequences = tokenize(words, texts, max_tokens);
    data.recut = recut_text(data.sequences, 0.25, max_tokens, seed);
    return data;
}

std::vector<sequence> gradient_sequences(const calibration& data) {
    return data.labels.empty() ? data.all() : data.sequences;
}

void backward_over(
    network& net, const calibration& data, std::uint64_t seed,
    const std::function<void(const gradient_batch&, const network::sublayer_gradients&)>& visit) {
    const std::int64_t per_sample = data.labels.empty() ? 1 : 2;
    const std::vector<sequence> sequences = gradient_sequences(data);
    progress bar("gradients", count_tokens(sequences));
    std::int64_t first = 0, tokens = 0; // of the batch
    for (std::size_t next = 0; next < sequences.size();) {
        batch b;
        while (next < sequences.size() && b.tokens() < backward_tokens)
            for (std::int64_t i = 0; i < per_sample; ++i) b.append(sequences[next++]);
        const Eigen::Index count = b.sequences() / per_sample;
        std::vector<std::int64_t> offsets;
        for (std::int64_t s = 0; s <= b.sequences(); s += per_sample)
            offsets.push_back(b.offsets[static_cast<std::size_t>(s)]);

        const auto loss = [&](const matrix& e, matrix& gradient) {
            if (per_sample == 1) {
                for (Eigen::Index s = 0; s < e.rows(); ++s)
                    draw_projection(seed, first + s, gradient.row(s));
                return;
            }
            for (Eigen::Index p = 0; p < count; ++p) { // (cos - label)^2 of embeddings of length 1
                const float error =
                    e.row(2 * p).dot(e.row(2 * p + 1)) -
                    static_cast<float>(data.labels[static_cast<std::size_t>(first + p)]);
                gradient.row(2 * p) = 2 * error * e.row(2 * p + 1);
                gradient.row(2 * p + 1) = 2 * error * e.row(2 * p);
            }
        };
        net.backward(b, loss, [&](const network::sublayer_gradients& found) {
            visit({first, count, tokens, offsets}, found);
        });
        first += count;
        tokens += b.tokens();
        bar.advance(b.tokens());
    }
}

} // namespace encoder
