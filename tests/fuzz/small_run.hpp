// A run of a small model that stops after its first epoch, and its checkpoint.
#pragma once

#include "files.hpp"
#include "small_model.hpp"

#include "encoder/files/file.hpp"
#include "encoder/training/train.hpp"

#include <nlohmann/json.hpp>

namespace fuzz {

struct small_run {
    folder here;
    encoder::model model;
    encoder::dataset data{
        encoder::task_kind::distill, {{2, 4, 5, 3}, {2, 6, 3}, {2, 3}}, {}, {}, {}};
    encoder::recipe how;

    small_run() : model(small_model()) {
        model.head.reset();
        model.tokens = {};
        model.exits.clear();
        encoder::network net(model);
        data.teacher = encoder::embed(net, data.texts, "teacher");
        how.stages = {{encoder::stage_kind::soft, 1.5, 0.001},
                      {encoder::stage_kind::hard, 1, 0.001}};
        how.target = 0.7;
        how.batch = 2;
        encoder::trainer t(net, data, how);
        t.epoch();
        t.save(here / "saved");
        state_ = nlohmann::json::parse(encoder::detail::read_text(here / "saved/state.json"));
        weights_ = encoder::detail::read_text(here / "saved/weights.safetensors");
    }

    /// A state.json up to and with the arguments of the run.
    std::string beginning() const {
        return "{\"arguments\":" + state_.at("arguments").dump() + ",";
    }
    /// The rest of it.
    std::string state() const {
        nlohmann::json rest = state_;
        rest.erase("arguments");
        return rest.dump().substr(1);
    }
    const std::string& weights() const { return weights_; }

  private:
    nlohmann::json state_;
    std::string weights_;
};

} // namespace fuzz
