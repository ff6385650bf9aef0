#include "checkpoint.hpp"

#include "encoder/files/file.hpp"
#include "encoder/files/fingerprint.hpp"
#include "encoder/files/settings.hpp"
#include "encoder/report/report.hpp"
#include "results.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <unistd.h>

namespace encoder {
namespace {

namespace fs = std::filesystem;

/// Models whose weights a checkpoint holds, by name.
template <class Model> // const or not
std::vector<std::pair<std::string, Model*>> checkpointed(Model& current, moments& state) {
    return {
        {"weights", &current}, {"first moments", &state.first}, {"second moments", &state.second}};
}

/// To be read alone, not copied.
const std::vector<weight> weights_of(const model& m) {
    return weights(const_cast<model&>(m));
}

constexpr const char *state_file = "state.json", *weights_file = "weights.safetensors";

} // namespace

const output::kind training_checkpoint = {
    "a checkpoint with nothing added", true, [](const fs::path& folder) {
        std::error_code error;
        fs::directory_iterator at(folder, error);
        for (; !error && at != decltype(at)(); at.increment(error)) {
            const fs::path name = at->path().filename();
            if ((name != state_file && name != weights_file) ||
                !fs::is_regular_file(at->symlink_status(error)))
                return false;
        }
        return !error;
    }};

std::uint64_t trainer::fingerprint_of(const model& m) {
    fingerprint found;
    for (const weight& w : weights_of(m)) found.add(w.data, static_cast<std::size_t>(w.size()));
    return found.value;
}

/// What must be the same for a run to go on.
nlohmann::json trainer::arguments() const {
    nlohmann::json stages;
    for (const stage& s : how_.stages) stages.push_back({name_of(s.kind), s.epochs, s.rate});
    fingerprint text;
    for (const sequence& s : data_.texts) text.add(s.data(), s.size());
    text.add(data_.targets.data(), data_.targets.size());
    return {{"stages", stages},
            {"target", how_.target.value_or(-1)},
            {"lambda", how_.lambda},
            {"temperature", how_.temperature},
            {"threshold_rate", how_.threshold_rate},
            {"exits", how_.exits},
            {"carried", net_.tokens().carried},
            {"scores", name_of(net_.tokens().scores)},
            {"rule", name_of(net_.tokens().by)},
            {"batch", how_.batch},
            {"seed", how_.seed},
            {"imitates", data_.teacher.size() > 0},
            {"texts", data_.texts.size()},
            {"text", text.value},
            {"model", model_}};
}

void trainer::save(const fs::path& folder) try {
    nlohmann::json state = {{"arguments", arguments()},
                            {"stage", at_},
                            {"epoch", epoch_},
                            {"lambda", lambda_},
                            {"gap", gap_ ? nlohmann::json(*gap_) : nlohmann::json()},
                            {"left", learner_->found().left},
                            {"numbers", net_.tokens().numbers},
                            {"exits", !net_.model().exits.empty()}};
    const model& current = net_.model();
    fs::create_directories(folder.parent_path());
    output out(folder, training_checkpoint);
    learner_->update([&](moments& of) {
        state["steps"] = of.steps;
        state["first"] = of.first_of_thresholds;
        state["second"] = of.second_of_thresholds;
        std::vector<tensor_view> tensors; // as they are in memory, which is the most of a run's
        for (const auto& [prefix, m] : checkpointed(current, of))
            for (const weight& w : weights_of(*m))
                tensors.emplace_back(prefix + "/" + w.name, std::vector{w.rows, w.columns}, w.data);
        write_views(out.path() / weights_file, tensors);
    });
    write_file(out.path() / state_file, {state.dump(1) + '\n'});
    put_in_place({&out});
} catch (const fs::filesystem_error& error) {
    detail::fail(folder, "cannot be written: ", error.code().message());
}

void trainer::resume(const fs::path& folder) {
    using detail::settings;
    using Eigen::Index;
    const settings state(folder / state_file);
    const nlohmann::json mine = arguments();
    const settings its = state.object("arguments");
    for (const auto& [key, value] : mine.items())
        if (const nlohmann::json other = its.all().value(key, nlohmann::json()); other != value)
            detail::fail(folder, "is of a run whose ", key, " is ", other, ", not ", value);

    const auto whole = [&](const char* key, Index most) {
        return state.needed(key, state.count(key, 0, most));
    };
    const auto at =
        static_cast<std::size_t>(whole("stage", static_cast<Index>(how_.stages.size())));
    const double epochs = at < how_.stages.size() ? how_.stages[at].epochs : 1;
    const auto epoch = static_cast<int>(whole("epoch", static_cast<Index>(std::ceil(epochs)) - 1));
    const double lambda = state.needed("lambda", state.number("lambda", 0, settings::largest));
    const auto gap = state.number("gap", -settings::largest, settings::largest);
    const std::size_t layers = net_.model().layers.size();
    std::vector<double> left = state.numbers_or_none("left", layers);
    token_pruning p = net_.tokens();
    p.numbers = state.numbers_or_none("numbers", layers);
    model current = net_.model();
    if (state.flag("exits", false) && current.exits.empty()) current.exits = plain_exits(current);
    moments of = {zeros_like(current), zeros_like(current),
                  state.numbers_or_none("first", layers, -settings::largest),
                  state.numbers_or_none("second", layers), whole("steps", Index{1} << 53)};
    const safetensors_file tensors(folder / weights_file);
    std::size_t expected = 0;
    for (const auto& [prefix, m] : checkpointed(current, of))
        for (const weight& w : weights(*m)) {
            ++expected;
            const std::string name = prefix + "/" + w.name;
            const std::vector<float> values = tensors.read(name, {w.rows, w.columns});
            if (m == &of.second &&
                std::any_of(values.begin(), values.end(), [](float x) { return x < 0; }))
                detail::fail(tensors.path(), "tensor '", name, "' holds a negative number");
            std::copy(values.begin(), values.end(), w.data);
        }
    if (tensors.entries().size() != expected)
        detail::fail(tensors.path(), "holds ", tensors.entries().size(), " tensors, the run has ",
                     expected);

    at_ = at;
    epoch_ = epoch;
    lambda_ = lambda;
    gap_ = gap;
    learner_.reset();
    net_.update([&](model& m) { m = std::move(current); });
    net_.set_token_pruning(p);
    learner_ = net_.make_learner();
    learner_->found().left = std::move(left);
    learner_->update([&](moments& m) { m = std::move(of); });
}

fs::path checkpoints::folder_of(const fs::path& out) {
    return resolved(out) += ".checkpoint";
}

const output::kind checkpoints::kind = {
    "a folder of checkpoints", true, [](const fs::path& path) { return fs::is_directory(path); }};

checkpoints::~checkpoints() { // where they are empty, and no links to folders that are not
    ::rmdir((folder_ / "baselines").c_str());
    ::rmdir(folder_.c_str());
}

void checkpoints::run(trainer& t, const fs::path& at, const std::string& name) const {
    const fs::path checkpoint = folder_ / at;
    if (fs::exists(checkpoint)) {
        try {
            t.resume(checkpoint);
        } catch (const file_error& error) {
            throw file_error(
                fmt::format("{}; remove {} to begin anew", error.what(), folder_.string()));
        }
        say(fmt::format("{}: goes on from {}", name, checkpoint.string()));
    }
    while (!t.done()) {
        t.epoch();
        t.save(checkpoint);
        say(fmt::format("{}: {}", name, t.report()));
    }
}

void checkpoints::remove() const {
    std::vector<fs::path> all = {folder_ / "finetune", folder_ / "learned"};
    for (const std::string& name : baseline_names) all.push_back(folder_ / "baselines" / name);
    for (const fs::path& of_run : all) {
        if (!fs::exists(of_run) || !training_checkpoint.is(of_run)) continue;
        const output gone(of_run, training_checkpoint); // so that no half of one is left
        fs::rename(resolved(of_run), gone.path());      // a link stays, for the next run
    }
}

} // namespace encoder
