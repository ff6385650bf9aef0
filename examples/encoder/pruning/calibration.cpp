#include "calibration.hpp"

#include "encoder/task/loss.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace encoder {
namespace {

// With r standard normal and s the roots of the probabilities p, s * r - p (s . r) has the
// covariance diag(p) - p p'.
void spread_as_classes(const Eigen::ArrayXf& logits, Eigen::ArrayXf& r) {
    Eigen::ArrayXf p = (logits - logits.maxCoeff()).exp();
    p /= p.sum();
    const Eigen::ArrayXf drawn = p.sqrt() * r;
    r = drawn - p * drawn.sum();
}

// The gradient of a random function of a text's outputs, by sample so that batches do not matter.
template <class Rows, class Gradient>
void draw_gradient(task_kind kind, std::uint64_t seed, std::int64_t sample, const Rows& outputs,
                   Gradient gradient) {
    std::seed_seq mixed{seed, static_cast<std::uint64_t>(sample)};
    std::mt19937_64 random(mixed);
    std::normal_distribution<float> normal;
    for (Eigen::Index i = 0; i < gradient.rows(); ++i)
        for (Eigen::Index j = 0; j < gradient.cols(); ++j) gradient(i, j) = normal(random);
    Eigen::ArrayXf drawn;
    if (kind == task_kind::classify || kind == task_kind::tag)
        for (Eigen::Index i = 0; i < gradient.rows(); ++i) {
            drawn = gradient.row(i).transpose();
            spread_as_classes(outputs.row(i).transpose(), drawn);
            gradient.row(i) = drawn.transpose();
        }
    if (kind == task_kind::answer) // its classes are the text's tokens
        for (Eigen::Index j = 0; j < gradient.cols(); ++j) {
            drawn = gradient.col(j);
            spread_as_classes(outputs.col(j), drawn);
            gradient.col(j) = drawn;
        }
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

std::vector<sequence> calibration::all() const {
    std::vector<sequence> both = examples.texts;
    both.insert(both.end(), beside.begin(), beside.end());
    return both;
}

calibration read_calibration(const std::filesystem::path& file, bool labelled, std::size_t samples,
                             std::uint64_t seed, const tokenizer& words, const model& m,
                             const std::filesystem::path& generic) {
    const task_kind kind = m.head || labelled ? task_of(m) : task_kind::distill;
    calibration data{read_dataset(kind, file, words, m, {samples, seed, labelled}), {}};
    const std::vector<double>& targets = data.examples.targets;
    if (labelled && !data.examples.is_per_token() &&
        std::equal(targets.begin() + 1, targets.end(), targets.begin()))
        throw file_error(file.string() + ": all " +
                         (kind == task_kind::classify ? "labels" : "scores") + " are the same");
    check_classes(data.examples, file, m);
    if (!data.examples.paired)
        data.beside = recut_text(data.examples.texts, 0.25,
                                 static_cast<std::size_t>(m.config.max_tokens), seed);
    if (!generic.empty()) {
        const task_kind unlabelled = m.head ? task_of(m) : task_kind::distill;
        const dataset others = read_dataset(unlabelled, generic, words, m, {samples, seed, false});
        data.beside.insert(data.beside.end(), others.texts.begin(), others.texts.end());
    }
    return data;
}

pruning_text gradient_text(const engine& net, const calibration& data, gradient_source source,
                           std::uint64_t seed) {
    const dataset& examples = data.examples;
    const bool labelled = source == gradient_source::labels;
    const std::size_t per_sample = labelled ? examples.texts_each() : 1;
    const std::vector<sequence> sequences = labelled ? examples.texts : data.all();
    pruning_text text;
    std::vector<std::int64_t> first;             // sample of each batch
    std::vector<std::vector<std::int64_t>> rows; // of each of its texts
    for (std::size_t next = 0; next < sequences.size();) {
        first.push_back(static_cast<std::int64_t>(next / per_sample));
        batch& b = text.batches.emplace_back();
        std::vector<std::int64_t>& offsets = text.samples.emplace_back(1, 0);
        while (next < sequences.size() && b.tokens() < net.backward_tokens()) {
            for (std::size_t i = 0; i < per_sample; ++i) b.append(sequences[next++]);
            offsets.push_back(b.tokens());
        }
        rows.push_back(b.offsets);
        if (!examples.is_per_token()) std::iota(rows.back().begin(), rows.back().end(), 0);
    }
    text.loss = [&examples, labelled, seed, first = std::move(first),
                 rows = std::move(rows)](std::int64_t b, const matrix& outputs, matrix& gradient) {
        const std::int64_t begin = first[static_cast<std::size_t>(b)];
        const std::vector<std::int64_t>& of_text = rows[static_cast<std::size_t>(b)];
        if (labelled) { // of the sum, not the mean
            std::vector<std::size_t> some((of_text.size() - 1) / examples.texts_each());
            std::iota(some.begin(), some.end(), static_cast<std::size_t>(begin));
            loss(examples, some, outputs, gradient);
            gradient *= static_cast<float>(counted(examples, some));
            return;
        }
        for (std::size_t s = 0; s + 1 < of_text.size(); ++s) {
            const std::int64_t n = of_text[s + 1] - of_text[s];
            draw_gradient(examples.kind, seed, begin + static_cast<std::int64_t>(s),
                          outputs.middleRows(of_text[s], n), gradient.middleRows(of_text[s], n));
        }
    };
    return text;
}

pruning_text forward_text(const engine& net, const std::vector<sequence>& sequences) {
    return {make_batches(sequences, net.forward_tokens(), any_number), {}, {}};
}

} // namespace encoder
