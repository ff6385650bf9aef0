// Learned token pruning (arXiv:2107.00910, section 3.3): weights and thresholds learned in stages.
#pragma once

#include "encoder/files/output.hpp"
#include "encoder/network/learner.hpp"
#include "encoder/task/dataset.hpp"
#include "tokens.hpp"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace encoder {

enum class stage_kind {
    calibrate, ///< thresholds from quantiles of the scores on sample text; nothing is learned
    finetune,  ///< weights, with all tokens; thresholds are forgotten
    soft,      ///< weights and thresholds, tokens fading out
    hard       ///< weights, thresholds fixed, tokens gone
};
const char* name_of(stage_kind kind);

struct stage {
    stage_kind kind;
    double epochs; ///< one to calibrate; the last one may be a part of one
    double rate;   ///< of weights, behind a warm-up of a tenth of the stage, then falling
};

struct recipe {
    std::vector<stage> stages;
    /// The share of the dense multiply-adds to reach. The price of a token then finds itself: it
    /// rises while the share is above a line from 1 to the target, and falls below it.
    std::optional<double> target;
    double lambda = 0; ///< the price without a target: times the share is added to the loss
    /// Of the soft masks in the end, of scores with mean 1; they begin with 5 times that.
    double temperature = 0.01;
    double threshold_rate = 0.02; ///< of thresholds, of scores with mean 1
    bool exits = true;            ///< fitted before tokens leave for the first time
    std::size_t batch = 32;       ///< examples
    std::uint64_t seed = 1;
};

/// The stages before tokens are dropped, and the others.
std::pair<recipe, recipe> split(const recipe& how);

/// One run of a recipe, where the engine runs; what is found once on a sample is found on the CPU. The
/// same seed gives the same bits on the same machine, with any number of threads, and also where a
/// run is interrupted and goes on from a checkpoint. A run on the CPU may go on on a GPU, and the
/// other way round.
class trainer {
  public:
    /// The engine's thresholds, if it has any, are the first ones. `net` and `data` are kept by
    /// reference.
    trainer(engine& net, const dataset& data, recipe how);
    ~trainer() { net_.end_backward(); }
    trainer(const trainer&) = delete;
    trainer& operator=(const trainer&) = delete;

    bool done() const { return at_ == how_.stages.size(); }
    /// Runs the next epoch, or what is left of one. Throws std::runtime_error if the loss is not
    /// finite.
    void epoch();

    /// Everything that the next epochs depend on, in a folder that appears, or replaces an older
    /// one, when it is complete. Throws file_error.
    void save(const std::filesystem::path& folder);
    /// Goes on from save(). Throws file_error for a folder that is damaged or of another run.
    void resume(const std::filesystem::path& folder);

    /// Texts of the data, about so many tokens in all.
    static std::vector<sequence> sample(const dataset& data, std::uint64_t seed,
                                        std::size_t tokens = 8192);

    /// A sentence about the last epoch.
    const std::string& report() const { return report_; }
    /// Share of multiply-adds by soft masks less that of dropping, before tokens were dropped for
    /// the first time; none without a soft stage.
    std::optional<double> soft_hard_gap() const { return gap_; }

  private:
    void begin_stage();
    void learn_epoch();
    /// The mean loss of texts first ... end - 1 of a step, and its gradient.
    using loss_of_texts = std::function<double(std::size_t first, std::size_t end,
                                               const matrix& outputs, matrix& gradient)>;
    double learn(const std::vector<sequence>& texts, std::size_t each, const loss_of_texts& loss,
                 learning how);
    double step(const std::vector<std::size_t>& examples, double done);
    double line(double done) const;
    void free_of_price();
    void follow_line(double excess, std::vector<double>& thresholds) const;
    void fit_to_target();
    double soft_share();
    nlohmann::json arguments() const;
    static std::uint64_t fingerprint_of(const model& m);

    /// The multiply-adds of sequences of which `left` stays behind each layer, as a share of all;
    /// and what the share grows by with each of `left`.
    struct soft_macs {
        double share;
        std::vector<double> slopes;
    };
    soft_macs count_soft(const batch& b, const std::vector<double>& left) const;

    engine& net_;
    const dataset& data_;
    recipe how_;
    std::vector<sequence> sample_; // on which shares are measured
    double mean_score_ = 1;        // there, by the engine's scale
    std::uint64_t model_;          // of the weights that it begins with
    std::vector<layer_costs> costs_;
    std::unique_ptr<learner> learner_; // of the stage
    std::size_t at_ = 0;               // stage
    int epoch_ = 0;                    // of the stage
    double lambda_, share_ = 1;        // of the last batch
    std::optional<double> gap_;
    std::string report_;
};

/// What save() writes, and no more.
extern const output::kind training_checkpoint;

/// Throws std::invalid_argument if no thresholds make the trainer's sample of the data take so small a
/// share of the multiply-adds as the recipe's target. What weights learn does not change that. A
/// forward pass over the sample.
void check_target(const engine& dense, const dataset& data, const recipe& how);

/// Multiplies the thresholds by the number that makes the text take at most `share` of the dense
/// multiply-adds, by bisection; returns the share.
double scale_thresholds(engine& net, const std::vector<sequence>& text, double share);

} // namespace encoder
