#include "modules.hpp"

#include <algorithm>
#include <iterator>
#include <string_view>

namespace encoder::detail {

modules read_modules(const std::filesystem::path& folder) {
    modules m;
    const std::filesystem::path file = folder / "modules.json";
    if (!is_file(file)) {
        m.others = {"1_Pooling"};
        if (is_file(folder / "1_Pooling" / "config.json")) m.pooling = "1_Pooling";
        return m;
    }
    constexpr std::string_view kinds[] = {"Transformer", "Pooling", "Dense",
                                          "Normalize"}; // in this order
    const auto *next = std::begin(kinds), *const end = std::end(kinds);
    for (const nlohmann::json& value :
         parse_json(file, read_text(file), nlohmann::json::value_t::array)) {
        if (!value.is_object()) fail(file, "holds ", value, ", not a module");
        const settings part(file, value);
        const std::string type = part.text("type", ""), path = part.text("path", "");
        const std::string kind = type.substr(type.rfind('.') + 1);
        if (std::find(kinds, end, kind) == end)
            fail(file, "holds a module of type '", type,
                 "', only Transformer, Pooling, Dense and Normalize are possible");
        if (!is_inside(path))
            fail(file, "names the folder ", nlohmann::json(path), ", which is not in the model's");
        const auto* const found = std::find(next, end, kind);
        const bool is_first = next == std::begin(kinds);
        if (found == end || (is_first && found != next) || (kind == "Dense" && !m.pooling))
            fail(file, "holds a module of type '", type,
                 "' in a place where none is possible: the order is Transformer, Pooling, Dense "
                 "(behind a pooling), Normalize");
        next = found + 1;
        if (kind == "Transformer")
            m.transformer = path;
        else
            m.others.emplace_back(path);
        if (kind == "Pooling") m.pooling = path;
        if (kind == "Dense") m.dense = path;
    }
    if (next == std::begin(kinds)) fail(file, "holds no module of type Transformer");
    return m;
}

} // namespace encoder::detail
