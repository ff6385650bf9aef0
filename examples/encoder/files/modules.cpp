#include "modules.hpp"

namespace encoder::detail {

modules read_modules(const std::filesystem::path& folder) {
    modules m;
    const std::filesystem::path file = folder / "modules.json";
    if (!is_file(file)) {
        m.others = {"1_Pooling"};
        if (is_file(folder / "1_Pooling" / "config.json")) m.pooling = "1_Pooling";
        return m;
    }
    bool transforms = false;
    for (const nlohmann::json& value :
         parse_json(file, read_text(file), nlohmann::json::value_t::array)) {
        if (!value.is_object()) fail(file, "holds ", value, ", not a module");
        const settings part(file, value);
        const std::string type = part.text("type", ""), path = part.text("path", "");
        const std::string kind = type.substr(type.rfind('.') + 1);
        const bool is_transformer = kind == "Transformer", is_pooling = kind == "Pooling";
        if (!is_transformer && !is_pooling && kind != "Normalize")
            fail(file, "holds a module of type '", type,
                 "', only Transformer, Pooling and Normalize are possible");
        if (!is_inside(path))
            fail(file, "names the folder ", nlohmann::json(path), ", which is not in the model's");
        if (is_transformer == transforms || (is_pooling && m.pooling))
            fail(file, "holds a module of type '", type,
                 "' in a place where none is possible: the order is Transformer, Pooling, "
                 "Normalize");
        transforms = true;
        if (is_pooling) m.pooling = path;
        if (is_transformer)
            m.transformer = path;
        else
            m.others.emplace_back(path);
    }
    if (!transforms) fail(file, "holds no module of type Transformer");
    return m;
}

} // namespace encoder::detail
