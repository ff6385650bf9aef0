#include "baselines.hpp"

#include <algorithm>

namespace encoder {

std::vector<baseline> train_baselines(const std::vector<std::string>& names, const engine& dense,
                                      const dataset& train, const dataset& evaluate, recipe how,
                                      const token_pruning& as, const checkpoints& kept) {
    stage all{stage_kind::hard, 0, 0};
    for (const stage& s : how.stages)
        if (s.kind != stage_kind::calibrate)
            all = {stage_kind::hard, all.epochs + s.epochs, std::max(all.rate, s.rate)};
    how.stages = {all};
    std::vector<baseline> found;
    const std::vector<sequence> sample = trainer::sample(train, how.seed);
    for (const std::string& name : names) {
        const std::unique_ptr<engine> net = dense.make(dense.model());
        net->set_token_pruning(as);
        if (name == "hand-set") {
            token_pruning p = as;
            const std::size_t depth = dense.model().layers.size();
            for (std::size_t l = 0; l < depth; ++l)
                p.numbers.push_back(static_cast<double>(l + 1) / static_cast<double>(depth));
            net->set_token_pruning(p);
            scale_thresholds(*net, sample, *how.target);
        } else {
            network here(dense.model());
            here.set_token_pruning(as);
            net->set_token_pruning(schedule_for(here, sample,
                                                name == "calibrated"
                                                    ? token_pruning::rule::threshold
                                                : name == "top-k" ? token_pruning::rule::share
                                                                  : token_pruning::rule::count,
                                                *how.target));
        }
        trainer t(*net, train, how);
        kept.run(t, std::filesystem::path("baselines") / name, name);
        matrix outputs;
        found.push_back({name, measure_at(*net, evaluate, outputs)});
    }
    return found;
}

} // namespace encoder
