// The options of both programs, by kind: what is no number, no name or no such word is refused.
#pragma once

#include "encoder/gpu/device.hpp"
#include "encoder/text/text.hpp"

#include <CLI/CLI.hpp>

#include <map>
#include <string>
#include <type_traits>
#include <vector>

namespace encoder {

/// Where an encoder runs.
struct place {
    int threads = 0; ///< 0: as many as there are processors
    device_kind device = device_kind::cpu;
    encoder::precision precision = encoder::precision::fp32;
};

class options {
  public:
    explicit options(const std::string& about) : app_(about) {
        app_.option_defaults()->always_capture_default();
    }

    /// What the caller checks.
    template <class T>
    CLI::Option* any(const char* name, T& to, const std::string& about) {
        return app_.add_option(name, to, about);
    }
    void flag(const char* name, bool& to, const std::string& about) {
        app_.add_flag(name, to, about);
    }
    /// A file or folder.
    CLI::Option* path(const char* name, std::filesystem::path& to, const std::string& about) {
        const auto check = [](const std::string& text) {
            return text.empty() ? "'' is no name" : "";
        };
        return any(name, to, about)->check(CLI::Validator(check, ""));
    }
    /// A number, which CLI11 would wrap around or cut off; or several.
    template <class T>
    CLI::Option* number(const char* name, T& to, const std::string& about) {
        if constexpr (std::is_unsigned_v<T>)
            return any(name, to, about)
                ->check(is<std::uint64_t>("a whole number from 0 to 2^64 - 1"));
        else if constexpr (std::is_integral_v<T>)
            return any(name, to, about)->check(is<T>("a whole number"));
        else
            return any(name, to, about)->check(is<double>("a number"));
    }
    /// One of these words.
    template <class T>
    void word(const char* name, T& to, const std::string& about,
              const std::map<std::string, T>& words) {
        for (const auto& [word, value] : words)
            if (value == to) {
                any(name, to, about)->transform(CLI::Transformer(words))->default_str(word);
                return;
            }
    }
    /// Some of these words, by commas.
    template <class T>
    CLI::Option* list(const char* name, std::vector<T>& to, const std::string& about,
                      const std::map<std::string, T>& words) {
        return any(name, to, about)->delimiter(',')->transform(CLI::Transformer(words));
    }
    /// `does`: what the encoder does there; `sums`: what is in fp32.
    void where(place& to, const std::string& does, const std::string& sums) {
        number("--threads", to.threads, "threads to run on; 0: as many as there are processors");
        word("--device", to.device,
             "where the encoder " + does + ": cpu, or cuda in a build with PARE_CUDA=ON",
             {{"cpu", device_kind::cpu}, {"cuda", device_kind::cuda}});
        word("--precision", to.precision,
             "precision of weights and activations: fp32, or with --device cuda fp16 or bf16; " +
                 sums + " are in fp32",
             {{"fp32", precision::fp32}, {"fp16", precision::fp16}, {"bf16", precision::bf16}});
    }

    /// Returns whether there is anything to do (not for --help). Throws what exit_status() prints.
    bool parse(int argc, char** argv) {
        try {
            app_.parse(argc, argv);
        } catch (const CLI::ParseError& e) {
            if (e.get_exit_code() != 0) throw;
            app_.exit(e); // --help
            return false;
        }
        return true;
    }

  private:
    template <class Number>
    static CLI::Validator is(const std::string& expected) {
        const auto check = [expected](const std::string& text) {
            Number ignored;
            return read_number(text, ignored) ? "" : "'" + text + "' is not " + expected;
        };
        return CLI::Validator(check, "");
    }

    CLI::App app_;
};

} // namespace encoder
