// What a tokenizer makes of a text before it is cut.
#pragma once

#include "origins.hpp"

#include "encoder/files/settings.hpp"

#include <functional>
#include <string>

namespace encoder::detail {

/// Throws std::invalid_argument where a text has grown to more than 16 MiB: some steps make a text
/// many times as long, and there may be any number of them.
void check_growth(std::size_t bytes);

/// Takes UTF-8 and leaves UTF-8, and keeps its origins in step. Safe for concurrent calls. Throws as
/// check_growth() and change_traced() do.
using normalizer = std::function<void(std::string&, origins&)>;

/// Of what makes of a word alone what it makes of it in a text.
normalizer traced(std::function<void(std::string&)> change);

/// As a normalizer of tokenizer.json says: BertNormalizer, Lowercase, NFC, NFD, NFKC, NFKD,
/// StripAccents, Strip, Replace, Prepend, Nmt, Precompiled, ByteLevel, or a Sequence of these.
/// Throws file_error for another one, or for what one of them says.
normalizer make_normalizer(const settings& given);

/// SentencePiece's table of replacements, in base64. Throws file_error if it is none.
normalizer make_charsmap(const std::filesystem::path& file, const std::string& base64);

/// Each byte as a character that can be seen: how byte-level vocabularies are written.
std::string visible_bytes(const std::string& text);

/// {"String": ...} as a regular expression, or {"Regex": ...}.
std::string read_expression(const settings& given);

} // namespace encoder::detail
