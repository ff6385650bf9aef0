// How a tokenizer cuts a text into pieces, each of which becomes tokens on its own.
#pragma once

#include "origins.hpp"

#include "encoder/files/settings.hpp"

#include <functional>
#include <string>
#include <vector>

namespace encoder::detail {

struct piece {
    std::string text;
    bool begins;  ///< the whole text does
    origins from; ///< of the text, where they are asked for
};

piece part_of(const piece& whole, std::size_t begin, std::size_t end);

/// Appends what a piece falls into. Safe for concurrent calls. Throws std::invalid_argument where a
/// regular expression takes too long, and as check_growth() does.
using splitter = std::function<void(piece&&, std::vector<piece>&)>;

/// As a pre_tokenizer of tokenizer.json says: BertPreTokenizer, Whitespace, WhitespaceSplit,
/// Metaspace, ByteLevel, Split, Punctuation, Digits, CharDelimiterSplit, or a Sequence of these.
/// Throws file_error for another one, or for what one of them says.
splitter make_splitter(const settings& given);

} // namespace encoder::detail
