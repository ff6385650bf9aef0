// Text files: documents, pairs with a score, texts with a label or score, and texts alone.
#include "files.hpp"

#include "encoder/text/text.hpp"

#include <cmath>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const fuzz::folder here;
    const auto file = here.file("text", {reinterpret_cast<const char*>(data), size});
    fuzz::unusable([&] {
        for (const std::string& text : encoder::read_documents(file)) EXPECT(!text.empty());
    });
    fuzz::unusable([&] {
        for (const encoder::scored_pair& pair : encoder::read_pairs(file))
            EXPECT(std::isfinite(pair.score));
    });
    fuzz::unusable([&] {
        for (const encoder::labelled_text& text : encoder::read_labelled(file))
            EXPECT(text.target >= 0 && text.target <= 65535);
    });
    fuzz::unusable([&] {
        for (const encoder::labelled_text& text :
             encoder::read_labelled(file, encoder::target_kind::score))
            EXPECT(std::isfinite(text.target));
    });
    fuzz::unusable([&] {
        for (const encoder::labelled_text& text :
             encoder::read_labelled(file, encoder::target_kind::none))
            EXPECT(text.target == 0 && text.first.find('\t') == std::string::npos);
    });
    return 0;
}
