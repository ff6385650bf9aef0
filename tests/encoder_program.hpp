// Programs as a user runs them: in a folder of their own, good input and bad.
#pragma once

#include "encoder_fixtures.hpp"

#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <set>

namespace programs {

namespace fs = std::filesystem;

inline void write(const fs::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
}

inline std::string read(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

inline nlohmann::json read_json(const fs::path& path) {
    return nlohmann::json::parse(read(path));
}

/// A program in a folder of its own, with a copy of the small model, some text, pairs with scores,
/// and texts and pairs with classes.
struct sandbox {
    std::string program;
    fixtures::scratch_folder folder;
    std::string output, errors;

    explicit sandbox(std::string path) : program(std::move(path)) {
        fs::copy(fixtures::path("tiny_bert"), folder / "model", fs::copy_options::recursive);
        std::string documents, pairs, classes, pair_classes;
        const std::vector<std::string> words = {"the",   "quick", "brown", "fox",
                                                "jumps", "over",  "lazy",  "dogs"};
        for (std::size_t i = 0; i < 40; ++i) {
            std::string text;
            for (std::size_t j = 0; j <= i % 9; ++j)
                text += words[(i * 5 + j * j) % words.size()] + " ";
            documents += text + "\n";
            const std::string label = std::to_string(text.find("fox") < text.size()) + "\t";
            classes += label + text + "\n";
            pair_classes += label + text + "\t" + words[i % 3] + "\n";
            pairs += std::to_string(i % 6) + "\t" + text + "\t" + words[i % words.size()] + "\n";
        }
        write(folder / "classes", classes);
        write(folder / "pair_classes", pair_classes);
        write(folder / "text", documents);
        write(folder / "pairs", pairs);
    }

    int run(const std::string& arguments) {
        const std::string command = "cd '" + folder.path().string() + "' && '" + program + "' " +
                                    arguments + " >stdout 2>stderr </dev/null";
        const int status = std::system(command.c_str());
        output = read(folder / "stdout");
        errors = read(folder / "stderr");
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
    }

    void must_run(const std::string& arguments) {
        const int status = run(arguments);
        INFO(errors);
        REQUIRE(status == 0);
    }

    /// What programs and the test have put into the folder.
    std::vector<std::string> files() const {
        static const std::set<std::string> given = {"model",        "text",   "pairs", "classes",
                                                    "pair_classes", "stdout", "stderr"};
        std::vector<std::string> names;
        for (const auto& entry : fs::directory_iterator(folder.path()))
            if (!given.count(entry.path().filename())) names.push_back(entry.path().filename());
        std::sort(names.begin(), names.end());
        return names;
    }
};

/// Whether a script of this folder is content with what is in `folder`, or says "skipped" because
/// its Python lacks something: that of PARE_PYTHON, or what setup.sh --peers installs, or the system's.
inline bool run_python(const std::string& script, const fs::path& folder) {
    const std::string command =
        "peers=\"${XDG_CACHE_HOME:-$HOME/.cache}/pare/peers/bin/python\"; [ -x \"$peers\" ] || "
        "peers=python3; \"${PARE_PYTHON:-$peers}\" '" +
        fixtures::path("../" + script).string() + "' '" + folder.string() + "' >'" +
        (folder / "said").string() + "' 2>&1 </dev/null";
    const int status = std::system(command.c_str());
    std::cout << read(folder / "said");
    constexpr int skipped = 77;
    return WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == skipped);
}

} // namespace programs
