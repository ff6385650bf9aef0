// The options of programs, by kind: what is no number, no name or no such word is refused.
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

class options : public CLI::App {
  public:
    explicit options(const std::string& about) : CLI::App(about) {
        option_defaults()->always_capture_default();
    }

    /// A file or folder.
    CLI::Option* path(const char* name, std::filesystem::path& to, const std::string& about) {
        const auto check = [](const std::string& text) {
            return text.empty() ? "'' is no name" : "";
        };
        return add_option(name, to, about)->check(CLI::Validator(check, ""));
    }
    /// A number, which CLI11 would wrap around or cut off; or several.
    template <class T>
    CLI::Option* number(const char* name, T& to, const std::string& about) {
        if constexpr (std::is_unsigned_v<T>)
            return add_option(name, to, about)
                ->transform(is<std::uint64_t>("a whole number from 0 to 2^64 - 1"));
        else if constexpr (std::is_integral_v<T>)
            return add_option(name, to, about)->transform(is<T>("a whole number"));
        else
            return add_option(name, to, about)->transform(is<double>("a number"));
    }
    /// One of these words.
    template <class T>
    void word(const char* name, T& to, const std::string& about,
              const std::map<std::string, T>& words) {
        for (const auto& [word, value] : words)
            if (value == to) {
                add_option(name, to, about)
                    ->transform(one_of(words))
                    ->type_name("WORD")
                    ->default_str(word);
                return;
            }
    }
    /// Several of these words, by commas.
    template <class T>
    CLI::Option* words(const char* name, std::vector<T>& to, const std::string& about,
                       const std::map<std::string, T>& words) {
        return add_option(name, to, about)
            ->delimiter(',')
            ->transform(one_of(words))
            ->type_name("WORD");
    }
    CLI::Option* words(const char* name, std::vector<std::string>& to, const std::string& about,
                       const std::vector<std::string>& names) {
        std::map<std::string, std::string> words;
        for (const std::string& word : names) words.emplace(word, word);
        return this->words(name, to, about, words);
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

    /// Returns whether there is anything to do (not for --help).
    bool read(int argc, char** argv) try {
        parse(argc, argv);
        return true;
    } catch (const CLI::ParseError& e) {
        if (e.get_exit_code() != 0) throw;
        exit(e); // --help
        return false;
    }

  private:
    template <class Number>
    static CLI::Validator is(const std::string& expected) {
        const auto check = [expected](std::string& text) {
            Number number;
            if (!read_number(text, number)) return "'" + text + "' is not " + expected;
            // CLI11 takes zeros at the front for a number to the base of 8.
            if constexpr (std::is_integral_v<Number>) text = std::to_string(number);
            return std::string();
        };
        return CLI::Validator(check, "");
    }
    /// CLI11 reads what comes out of it as a T; its own takes any number for one of the words.
    template <class T>
    static CLI::Validator one_of(const std::map<std::string, T>& words) {
        const auto check = [words](std::string& text) {
            const auto at = words.find(text);
            if (at == words.end()) {
                std::string sentence = "'" + text + "' is not one of";
                for (const auto& [word, value] : words)
                    sentence += (word == words.begin()->first ? " " : ", ") + word;
                return sentence;
            }
            if constexpr (!std::is_same_v<T, std::string>)
                text = std::to_string(static_cast<int>(at->second));
            return std::string();
        };
        return CLI::Validator(check, "");
    }
};

} // namespace encoder
