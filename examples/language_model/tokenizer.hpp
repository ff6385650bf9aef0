// Text to token ids and back, as a GGUF file of a language model with byte pairs says.
#pragma once

#include "gguf.hpp"

#include "encoder/files/safetensors.hpp" // file_error

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace language {

using encoder::file_error;

/// What a GGUF file says about tokens, in the keys tokenizer.ggml.* of these names. Which tokens
/// begin and end texts (bos_token_id, add_bos_token, ...) is the business of who puts texts
/// together: no token is added to a text here.
struct vocabulary {
    std::filesystem::path file;       ///< for errors
    std::vector<std::string> tokens;  ///< by id
    std::vector<std::uint64_t> types; ///< token_type, of each token

    /// Of byte-level BPE ("gpt2"), whose tokens are in GPT-2's letters for bytes.
    std::vector<std::string> merges = {}; ///< "a b", the most urgent first
    std::string pre = {};                 ///< how texts are cut: see tokenizer

    /// Of SentencePiece's BPE ("llama"), in whose tokens spaces are U+2581.
    bool is_scored = false;          ///< whether it is this one
    std::vector<double> scores = {}; ///< of each token
    bool space_before = false;       ///< of texts (add_space_prefix)
};

/// Throws file_error where a key is missing, and for another kind of tokenizer than "gpt2" and "llama".
vocabulary read_vocabulary(const gguf_file& file);

/// Whether texts begin with the token of tokenizer.ggml.bos_token_id: as the file says, or else as
/// llama.cpp has it. Throws file_error.
bool has_beginning(const gguf_file& file);

/// Texts of byte-level BPE are cut as GPT-2 ("gpt-2"), SmolLM ("smollm"), Llama 3 ("llama-bpe") or Qwen 2 and 3
/// ("qwen2") have it. Ids are llama.cpp's, but that texts of "qwen2" are brought to NFC first, as
/// their models know them, and those of Hugging Face's tokenizers but for bytes without a token
/// (SmolLM2 has none for some control characters and for the first bytes of planes that are hardly
/// used): such a byte becomes nothing, and what is beside it is not merged over the gap. Of control
/// and user-defined tokens that overlap in a text the first one counts and, of those that begin
/// there, the longest, as Hugging Face has it; llama.cpp looks for the longest first. Unicode data
/// are utf8proc's and PCRE2's, so that characters which are letters or numbers only since later
/// versions of Unicode may be cut in another way.
///
/// Texts of SentencePiece's BPE are not cut, and taken as they are: ids are llama.cpp's, and
/// SentencePiece's of models that change nothing in texts (identity, no extra whitespace removed), as
/// those of Llama 2 are. As in llama.cpp, the space in front of a text is there behind each control and
/// user-defined token too, and unused tokens are made of texts; as in SentencePiece, control, unknown
/// and byte tokens are not.
/// Safe for concurrent calls.
class tokenizer {
  public:
    /// Throws file_error where tokens, types, merges or scores do not fit together, for a token that
    /// no text could become or that is there twice, for another way to cut texts, and for a byte
    /// without a token among SentencePiece's.
    explicit tokenizer(const vocabulary& from);

    /// The tokens of a text, none around it. User-defined tokens stand for themselves where they
    /// are written in the text; control tokens such as <|im_start|> do so only with `control`, and
    /// are plain text otherwise. No space is put in front of text that `goes_on` behind other tokens.
    /// Throws std::invalid_argument if `text` is not valid UTF-8, saying at which byte, or if it is
    /// too long (16 MiB as tokens write it).
    std::vector<std::int32_t> encode(const std::string& text, bool control = false,
                                     bool goes_on = false) const;

    /// The bytes that tokens stand for, with any space in front of a text; they may begin or end
    /// within a character. Control tokens
    /// become their texts with `control`, and nothing otherwise. Throws std::invalid_argument for
    /// an id that is none.
    std::string decode(const std::vector<std::int32_t>& ids, bool control = false) const;

    /// Of a token as the vocabulary has it. Throws std::invalid_argument where there is none.
    std::int32_t id_of(const std::string& token) const;
    std::size_t size() const;

  private:
    struct parts;
    std::shared_ptr<const parts> parts_;
};

} // namespace language
