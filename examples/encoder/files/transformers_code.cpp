#include "transformers_code.hpp"

#include "heads.hpp"

namespace encoder::detail {
namespace {

constexpr const char *key = "auto_map", *encoder_alone = "AutoModel";

std::string class_of(const std::string& name) {
    return "modeling_pare.Pare" + name;
}

} // namespace

bool asks_for_code(const nlohmann::json& config) {
    const auto map = config.find(key);
    if (map == config.end() || !map->is_object()) return false;
    const auto found = map->find(encoder_alone);
    return found != map->end() && found->is_string() &&
           found->get<std::string>().rfind(class_of(""), 0) == 0;
}

void ask_for_code(nlohmann::json& config) {
    const settings given({}, config);
    const std::string plain = find_stock_head(given.text("model_type", ""))->plain;
    const std::string family = plain.substr(0, plain.rfind("Model"));
    config[key] = {{encoder_alone, class_of(plain)}};
    for (const std::string& name : given.texts("architectures"))
        if (name != plain && name.rfind(family + "For", 0) == 0)
            config[key][encoder_alone + name.substr(family.size())] = class_of(name);
}

} // namespace encoder::detail
