#include "evaluate.hpp"

#include "metrics.hpp"

#include "encoder/report/progress.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <numeric>

namespace encoder {
namespace {

constexpr std::int64_t documents = 32; // a batch

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const std::size_t n = values.size();
    return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

} // namespace

matrix embed(engine& net, const std::vector<sequence>& sequences, const std::string& stage,
             std::vector<token_use>* use) {
    const std::vector<batch> batches = make_batches(sequences, any_number, documents);
    Eigen::Index rows = 0;
    for (const batch& b : batches) rows += net.model().is_per_token() ? b.tokens() : b.sequences();
    matrix all(rows, net.outputs()), some;
    progress bar(stage, static_cast<std::int64_t>(batches.size()));
    Eigen::Index row = 0;
    for (const batch& b : batches) {
        net.forward(b, some, use);
        all.middleRows(row, some.rows()) = some;
        row += some.rows();
        bar.advance();
    }
    return all;
}

similarity_task make_task(const tokenizer& words, const std::vector<scored_pair>& pairs,
                          std::size_t max_tokens) {
    similarity_task task;
    std::map<std::string, std::size_t> rows;
    const auto row = [&](const std::string& text) {
        const auto [at, is_new] = rows.try_emplace(text, rows.size());
        if (is_new) task.sequences.push_back(words.encode(text, max_tokens));
        return at->second;
    };
    for (const scored_pair& p : pairs) {
        const std::size_t first = row(p.first);
        task.pairs.emplace_back(first, row(p.second));
        task.scores.push_back(p.score);
    }
    return task;
}

correlations correlate(const similarity_task& task, const matrix& embeddings) {
    std::vector<double> cosines;
    for (const auto& [a, b] : task.pairs)
        cosines.push_back(embeddings.row(static_cast<Eigen::Index>(a))
                              .cast<double>()
                              .dot(embeddings.row(static_cast<Eigen::Index>(b)).cast<double>()));
    return {spearman(cosines, task.scores), pearson(cosines, task.scores)};
}

double mean_cosine(const matrix& a, const matrix& b) {
    return a.cast<double>().cwiseProduct(b.cast<double>()).rowwise().sum().mean();
}

double same_class(const matrix& a, const matrix& b) {
    double same = 0;
    for (Eigen::Index i = 0; i < a.rows(); ++i) {
        Eigen::Index of_a, of_b;
        a.row(i).maxCoeff(&of_a);
        b.row(i).maxCoeff(&of_b);
        same += of_a == of_b;
    }
    return same / static_cast<double>(a.rows());
}

double seconds_of(engine& net, const batch& b) {
    thread_local matrix outputs;
    const auto start = std::chrono::steady_clock::now();
    net.forward(b, outputs);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

speed compare_speed(engine& dense, engine& pruned, const std::vector<sequence>& sequences,
                    std::int64_t sequences_a_batch) {
    // About as much work for batches of one sequence.
    const std::size_t most_batches = sequences_a_batch < documents ? 64 : 4;
    const auto most = most_batches * static_cast<std::size_t>(sequences_a_batch);
    constexpr int rounds = 4; // the first one warms up
    const std::vector<sequence> some(
        sequences.begin(),
        sequences.begin() + static_cast<std::ptrdiff_t>(std::min(sequences.size(), most)));
    const std::vector<batch> batches = make_batches(some, any_number, sequences_a_batch);
    progress bar("measure speed", rounds * static_cast<std::int64_t>(batches.size()));
    std::vector<double> of_dense, of_pruned, ratios;
    for (int round = 0; round < rounds; ++round)
        for (const batch& b : batches) {
            const double t_dense = seconds_of(dense, b), t_pruned = seconds_of(pruned, b);
            bar.advance();
            if (round == 0) continue;
            of_dense.push_back(static_cast<double>(b.tokens()) / t_dense);
            of_pruned.push_back(static_cast<double>(b.tokens()) / t_pruned);
            ratios.push_back(t_dense / t_pruned);
        }
    return {median(of_dense), median(of_pruned), median(ratios)};
}

} // namespace encoder
