#include "train.hpp"

#include "encoder/report/progress.hpp"
#include "encoder/task/loss.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <stdexcept>

namespace encoder {
namespace {

/// The order of examples in an epoch: a function of its arguments alone.
std::vector<std::size_t> shuffled(std::size_t n, std::initializer_list<std::uint64_t> from) {
    std::seed_seq seed(from.begin(), from.end());
    std::mt19937_64 random(seed);
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), std::size_t{0});
    // std::shuffle is another one in each standard library.
    for (std::size_t i = n; i > 1; --i) std::swap(order[i - 1], order[random() % i]);
    return order;
}

double share_of(engine& net, const std::vector<sequence>& text) {
    std::vector<token_use> use;
    matrix outputs;
    for (const batch& b : make_batches(text, net.forward_tokens(), any_number))
        net.forward(b, outputs, &use);
    return token_macs(net.model(), use) / dense_token_macs(net.model(), text);
}

/// A copy on the CPU, which lets one look between the steps of a layer.
network here(const engine& net) {
    network copy(net.model());
    copy.set_token_pruning(net.tokens());
    return copy;
}

/// Rises from 0 to 1 in the first tenth and falls to 0 again.
double warm_up_and_decay(double done) {
    constexpr double warm = 0.1;
    return done < warm ? done / warm : (1 - done) / (1 - warm);
}

} // namespace

const char* name_of(stage_kind s) {
    switch (s) {
    case stage_kind::calibrate:
        return "calibrate";
    case stage_kind::finetune:
        return "finetune";
    case stage_kind::soft:
        return "soft";
    default:
        return "hard";
    }
}

std::pair<recipe, recipe> split(const recipe& how) {
    recipe first = how, rest = how;
    const auto dropping = std::find_if(how.stages.begin(), how.stages.end(), [](const stage& s) {
        return s.kind != stage_kind::finetune;
    });
    first.stages.assign(how.stages.begin(), dropping);
    rest.stages.assign(dropping, how.stages.end());
    return {first, rest};
}

double scale_thresholds(engine& net, const std::vector<sequence>& text, double share) {
    token_pruning p = net.tokens();
    const std::vector<double> thresholds = p.numbers;
    const auto share_at = [&](double factor) {
        for (std::size_t l = 0; l < thresholds.size(); ++l) p.numbers[l] = factor * thresholds[l];
        net.set_token_pruning(p);
        return share_of(net, text);
    };
    double low = 0, high = 1;
    while (share_at(high) > share) {
        low = high;
        if ((high *= 2) > 1e6) {
            const double least = share_at(low);
            share_at(1);
            fail_as_too_small(share, least);
        }
    }
    for (int i = 0; i < 8; ++i) {
        const double middle = (low + high) / 2;
        (share_at(middle) > share ? low : high) = middle;
    }
    return share_at(high);
}

void check_target(const engine& dense, const dataset& data, const recipe& how) {
    if (!how.target) return;
    model m = dense.model();
    if (how.exits && m.counts_what_left() && m.exits.empty()) m.exits = plain_exits(m);
    network net(std::move(m));
    token_pruning p;
    p.numbers.assign(net.model().layers.size(), 1e30); // above every score
    net.set_token_pruning(p);
    // Where there is little to save, exits may cost more than that; dropping nothing costs none.
    const double least = std::min(1., share_of(net, trainer::sample(data, how.seed)));
    if (*how.target < least) fail_as_too_small(*how.target, least);
}

std::vector<sequence> trainer::sample(const dataset& data, std::uint64_t seed, std::size_t tokens) {
    std::vector<sequence> some;
    std::size_t sum = 0;
    for (const std::size_t i : shuffled(data.texts.size(), {seed})) {
        if (sum >= tokens) break;
        some.push_back(data.texts[i]);
        sum += some.back().size();
    }
    return some;
}

trainer::trainer(engine& net, const dataset& data, recipe how)
    : net_(net), data_(data), how_(std::move(how)), sample_(sample(data, how_.seed)),
      model_(fingerprint_of(net.model())), learner_(net.make_learner()), lambda_(how_.lambda) {
    if (net.tokens().scores == pare::score_scale::per_query) {
        std::size_t tokens = 0;
        for (const sequence& text : sample_) tokens += text.size();
        mean_score_ = static_cast<double>(sample_.size()) / static_cast<double>(tokens);
    }
    for (const layer& y : net.model().layers) costs_.push_back(costs_of(y, net.model().config));
}

trainer::soft_macs trainer::count_soft(const batch& b, const std::vector<double>& left) const {
    double tokens = 0, pairs = 0, sum = 0, all = 0;
    for (std::size_t s = 0; s + 1 < b.offsets.size(); ++s) {
        const auto n = static_cast<double>(b.offsets[s + 1] - b.offsets[s]);
        tokens += n;
        pairs += n * n;
    }
    std::vector<double> slopes;
    double in = 1;
    for (std::size_t l = 0; l < costs_.size(); ++l) {
        const double project = costs_[l].projections * tokens, attend = costs_[l].attention * pairs,
                     rest = costs_[l].rest * tokens;
        sum += project * in + attend * in * in + rest * left[l];
        all += project + attend + rest;
        if (l > 0) slopes[l - 1] += project + 2 * attend * in;
        slopes.push_back(rest);
        in = left[l];
    }
    for (double& s : slopes) s /= all;
    return {sum / all, slopes};
}

void trainer::begin_stage() {
    const stage_kind s = how_.stages[at_].kind;
    learner_.reset(); // its memory first
    net_.end_backward();
    const bool counts = net_.model().counts_what_left(); // by its exit
    if (s != stage_kind::finetune && how_.exits && counts && net_.model().exits.empty()) {
        network copy = here(net_);
        fit_exits(copy, sample(data_, how_.seed, 32768)); // dozens of tokens an unknown
        net_.update([&](model& m) { m.exits = copy.model().exits; });
    }
    token_pruning p = net_.tokens();
    if (s == stage_kind::finetune) {
        p.numbers.clear();
        net_.set_token_pruning(p);
    } else if (s == stage_kind::calibrate) {
        network copy = here(net_);
        net_.set_token_pruning(
            schedule_for(copy, sample_, token_pruning::rule::threshold, how_.target.value_or(0.5)));
    } else if (s == stage_kind::soft && p.numbers.empty()) {
        std::vector<token_use> use;
        network copy = here(net_);
        p = schedule(copy, sample_, token_pruning::rule::threshold, 0, use);
        for (double& t : p.numbers) t = std::max(0., t - 2 * mean_score_ * how_.temperature);
        net_.set_token_pruning(p);
    } else if (s == stage_kind::hard) {
        fit_to_target();
    }
    learner_ = net_.make_learner(); // and its memory last
}

void trainer::fit_to_target() {
    if (how_.target && !net_.tokens().numbers.empty() &&
        net_.tokens().by == token_pruning::rule::threshold)
        scale_thresholds(net_, sample_, *how_.target);
}

/// learner::learn() for texts, `each` of which belong together, in parts that a backward pass has
/// room for: gradients, means and the loss that is returned are those of all.
double trainer::learn(const std::vector<sequence>& texts, std::size_t each,
                      const loss_of_texts& loss, learning how) {
    const std::size_t depth = costs_.size();
    std::vector<double> left(depth), left_by_threshold(depth);
    double mean = 0;
    const double lambda = how.lambda;
    for (std::size_t first = 0, end = 0; first < texts.size(); first = end) {
        batch part;
        const auto tokens_of_next = [&] {
            std::size_t tokens = 0;
            for (std::size_t t = end; t < end + each; ++t) tokens += texts[t].size();
            return static_cast<std::int64_t>(tokens);
        };
        do {
            for (std::size_t t = 0; t < each; ++t) part.append(texts[end++]);
        } while (end < texts.size() && part.tokens() + tokens_of_next() <= net_.backward_tokens());

        const double share = static_cast<double>(end - first) / static_cast<double>(texts.size());
        how.lambda = share * lambda;
        learner_->learn(
            part,
            [&](const matrix& outputs, matrix& gradient) {
                mean += share * loss(first, end, outputs, gradient);
                gradient *= static_cast<float>(share);
            },
            how);
        const token_gradients& found = learner_->found();
        for (std::size_t l = 0; l < depth; ++l) {
            left[l] += share * found.left[l];
            left_by_threshold[l] += share * found.left_by_threshold[l];
        }
    }
    learner_->found().left = std::move(left);
    learner_->found().left_by_threshold = std::move(left_by_threshold);
    return mean;
}

/// The share of multiply-adds by the soft masks that the soft stage ends with, on the sample.
double trainer::soft_share() {
    double sum = 0, all = 0;
    for (std::size_t first = 0; first < sample_.size(); first += how_.batch) {
        const auto some = sample_.begin() + static_cast<std::ptrdiff_t>(first);
        const std::vector<sequence> texts(
            some, some + static_cast<std::ptrdiff_t>(std::min(how_.batch, sample_.size() - first)));
        batch b;
        for (const sequence& text : texts) b.append(text);
        // Without a loss there are no gradients either.
        learn(texts, 1, [](std::size_t, std::size_t, const matrix&, matrix&) { return 0.; },
              {mean_score_ * how_.temperature, 0, {}});
        const auto tokens = static_cast<double>(b.tokens());
        sum += tokens * count_soft(b, learner_->found().left).share;
        all += tokens;
    }
    return sum / all;
}

void trainer::epoch() {
    if (epoch_ == 0) begin_stage();
    if (how_.stages[at_].kind != stage_kind::calibrate) learn_epoch();
    ++epoch_;
    if (how_.stages[at_].kind == stage_kind::calibrate || epoch_ >= how_.stages[at_].epochs) {
        if (how_.stages[at_].kind == stage_kind::soft)
            gap_ = soft_share() - share_of(net_, sample_);
        ++at_;
        epoch_ = 0;
        if (done()) fit_to_target();
    }
}

/// Where the share of multiply-adds should be when `done` of a stage is done.
double trainer::line(double done) const {
    constexpr double falling = 0.6; // then it stays
    const bool soft = how_.stages[at_].kind == stage_kind::soft;
    return soft ? 1 - (1 - *how_.target) * std::min(1., done / falling) : *how_.target;
}

/// Leaves of the thresholds' gradient what does not change the share of multiply-adds; what does is
/// what a token's price must outweigh, so the price becomes that, slowly.
void trainer::free_of_price() {
    token_gradients& found = learner_->found();
    const std::vector<double>& by = found.left_by_threshold;
    const double square = std::inner_product(by.begin(), by.end(), by.begin(), 1e-30);
    const double along =
        std::inner_product(by.begin(), by.end(), found.thresholds.begin(), 0.) / square;
    for (std::size_t l = 0; l < by.size(); ++l) found.thresholds[l] -= along * by[l];
    lambda_ = std::max(0., lambda_ - 0.1 * along);
}

/// Moves thresholds so that the share of multiply-adds comes closer to the line.
void trainer::follow_line(double excess, std::vector<double>& thresholds) const {
    if (how_.stages[at_].kind == stage_kind::soft) { // by the shortest way
        const std::vector<double>& by = learner_->found().left_by_threshold;
        const double square = std::inner_product(by.begin(), by.end(), by.begin(), 1e-2);
        for (std::size_t l = 0; l < by.size(); ++l)
            thresholds[l] = std::max(0., thresholds[l] - 0.2 * excess * by[l] / square);
    } else { // by a common factor: scores move while weights are learned, the budget stays
        for (double& t : thresholds) t *= std::exp(0.1 * excess / *how_.target);
    }
}

/// One step for some of the examples, when `done` of the stage is done; returns the loss.
double trainer::step(const std::vector<std::size_t>& examples, double done) {
    const stage_kind s = how_.stages[at_].kind;
    const std::size_t each = data_.texts_each();
    std::vector<sequence> texts;
    batch b;
    for (const std::size_t e : examples)
        for (std::size_t t = 0; t < each; ++t) {
            texts.push_back(data_.texts[e * each + t]);
            b.append(texts.back());
        }

    learning how;
    const std::vector<double>& left = learner_->found().left;
    if (s == stage_kind::soft) {
        how.temperature = mean_score_ * how_.temperature * std::pow(5, 1 - done);
        how.lambda = lambda_;
        how.weights =
            count_soft(b, left.empty() ? std::vector<double>(costs_.size(), 1) : left).slopes;
    }
    // Of an example, what its loss is a mean of: one, or tokens with tags.
    const auto counts_each = [&](const std::vector<std::size_t>& some) {
        return static_cast<double>(counted(data_, some)) / static_cast<double>(some.size());
    };
    const double counts = counts_each(examples);
    const double of_batch = learn(
        texts, each,
        [&](std::size_t first, std::size_t end, const matrix& outputs, matrix& gradient) {
            const auto at = [&](std::size_t text) {
                return examples.begin() + static_cast<std::ptrdiff_t>(text / each);
            };
            const std::vector<std::size_t> part(at(first), at(end));
            const double by = counts > 0 ? counts_each(part) / counts : 1;
            const double found = loss(data_, part, outputs, gradient);
            gradient *= static_cast<float>(by);
            return by * found;
        },
        how);
    share_ = count_soft(b, left).share;

    token_pruning p = net_.tokens();
    const bool adapts = s != stage_kind::finetune && how_.target && !p.numbers.empty() &&
                        p.by == token_pruning::rule::threshold;
    step_size size{how_.stages[at_].rate * warm_up_and_decay(done), 0};
    if (s == stage_kind::soft)
        size.threshold_rate = mean_score_ * how_.threshold_rate * std::min(1., 2 - 2 * done);
    if (s == stage_kind::soft && adapts) free_of_price();
    learner_->step(p.numbers, size);
    if (adapts) follow_line(share_ - line(done), p.numbers);
    net_.set_token_pruning(p);
    return of_batch;
}

void trainer::learn_epoch() {
    const std::vector<std::size_t> order =
        shuffled(data_.size(), {how_.seed, at_, static_cast<std::uint64_t>(epoch_)});
    const auto whole = static_cast<double>((data_.size() + how_.batch - 1) / how_.batch);
    const double epochs = how_.stages[at_].epochs;
    const auto steps = static_cast<std::size_t>(
        std::ceil(std::max(1., whole * std::min(1., epochs - epoch_)) - 1e-9));
    const std::string name =
        fmt::format("{} {} of {}", name_of(how_.stages[at_].kind), epoch_ + 1, std::ceil(epochs));
    progress bar(name, static_cast<std::int64_t>(steps));
    double loss_sum = 0, share_sum = 0;
    for (std::size_t i = 0; i < steps; ++i) {
        const auto at = [&](std::size_t place) {
            return order.begin() + static_cast<std::ptrdiff_t>(std::min(order.size(), place));
        };
        const double done =
            std::min(1., (epoch_ + (static_cast<double>(i) + 0.5) / whole) / epochs);
        const double of_batch = step({at(i * how_.batch), at((i + 1) * how_.batch)}, done);
        if (!std::isfinite(of_batch))
            throw std::runtime_error(
                fmt::format("{}: the loss of batch {} is {}", name, i + 1, of_batch));
        loss_sum += of_batch;
        share_sum += share_;
        bar.advance();
    }
    const auto n = static_cast<double>(steps);
    report_ = fmt::format("{}: loss {:.5f}, share of multiply-adds {:.3f}, {:.0f} s", name,
                          loss_sum / n, share_sum / n, bar.seconds());
}

} // namespace encoder
