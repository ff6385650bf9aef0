// Entities that labels of words name, as CoNLL's shared tasks count them.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace encoder {

/// A run of words of one type.
struct entity {
    std::string type;
    std::size_t begin, end; ///< words, the last one not in it
};
bool operator==(const entity& a, const entity& b);

/// Of one sentence's labels: B-TYPE begins an entity, I-TYPE goes on with it, E-TYPE ends it, S-TYPE
/// is one of a single word; all else (O) is outside. What no B- or S- began begins with the first
/// word of its type, so that labels where B- only stands between two of a type are read as well.
/// O(words).
std::vector<entity> entities_of(const std::vector<std::string>& labels);

/// Entities of all sentences, by whether they were found exactly: type, first word and last word.
struct entity_counts {
    std::size_t there = 0, found = 0, right = 0;

    /// Counts those of one more sentence. Throws std::invalid_argument if the lists differ in length.
    void add(const std::vector<std::string>& expected, const std::vector<std::string>& given);
    /// 0 where there is nothing to divide by.
    double precision() const;
    double recall() const;
    double f1() const;
};

} // namespace encoder
