// Decoders of all families that are read, beside the implementations that define them.
#include "encoder_fixtures.hpp"
#include "support.hpp"

#include "language_model/network.hpp"
#include "language_model/tokenizer.hpp"

namespace language_decoder_test {

using ids = std::vector<std::int32_t>;

namespace {

/// f(the file, what decoders.json says of it).
template <class F>
void for_each_model(const F& f) {
    const nlohmann::json all = fixtures::json("decoders.json");
    for (const auto& [name, expected] : all.items()) {
        CAPTURE(name);
        f(language::gguf_file(fixtures::path("decoders/" + name + ".gguf")), expected);
    }
}

} // namespace

TEST_CASE("decoders of every family give the reference's losses") {
    for_each_model([](const language::gguf_file& file, const nlohmann::json& expected) {
        const language::model m = language::read_model(file);
        for (std::size_t i = 0; i < expected["ids"].size(); ++i) {
            const auto text = expected["ids"][i].get<ids>();
            CAPTURE(text.size());
            language::cache all = make_cache(m, static_cast<index_t>(text.size()));
            const auto found = language::losses(m, language::forward(m, {text, 0}, all),
                                                {text.begin() + 1, text.end()});
            const auto losses = expected["losses"][i].get<std::vector<double>>();
            REQUIRE(found.size() == losses.size());
            for (std::size_t t = 0; t < losses.size(); ++t)
                CHECK(std::abs(found[t] - losses[t]) < 1e-4);
        }
    });
}

TEST_CASE("ids of every kind of decoder's texts are the reference's") {
    for_each_model([](const language::gguf_file& file, const nlohmann::json& expected) {
        const language::tokenizer words(language::read_vocabulary(file));
        const std::string pre = file.text("tokenizer.ggml.pre");
        const bool composes = pre == "qwen2", is_scored = pre == "default";
        for (const auto& pair : expected["texts"]) {
            const auto text = pair[0].get<std::string>();
            CAPTURE(text);
            const ids found = words.encode(text, true);
            CHECK(found == pair[1].get<ids>());
            // Spaces in front are there behind other tokens, too.
            if (!composes && !is_scored) CHECK(words.decode(found, true) == text);
        }
        CHECK(language::has_beginning(file) == (pre == "llama-bpe" || is_scored));
    });
}

} // namespace language_decoder_test
