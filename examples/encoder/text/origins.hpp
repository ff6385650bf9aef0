// Where a text that is changed step by step comes from.
#pragma once

#include "text_range.hpp"

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace encoder::detail {

/// What the parts of a text were in another one, the first; both in the same order. Nobody asked
/// where those without parts come from, and nothing is added to others for them.
class origins {
  public:
    origins() = default;
    /// Of a text that nothing has changed: its characters, one by one.
    explicit origins(std::string_view text);

    bool empty() const { return parts_.empty(); }
    /// What the bytes begin .. end, at least one, come from. Takes time with the logarithm of the
    /// number of parts.
    text_range of(std::size_t begin, std::size_t end) const;
    origins slice(std::size_t begin, std::size_t end) const;

    /// Behind the text: `bytes` that stand for all of begin .. end of a text of these origins.
    void add(std::size_t bytes, const origins& from, std::size_t begin, std::size_t end) {
        if (!from.empty()) add(bytes, from.of(begin, end));
    }
    /// Behind the text: begin .. end of a text of these origins.
    void append(const origins& from, std::size_t begin, std::size_t end);
    /// Before the text: `bytes` that stand for nothing.
    void insert_front(std::size_t bytes);

  private:
    struct part {
        std::size_t end; ///< of the text
        text_range from;
    };

    void add(std::size_t bytes, text_range from);
    std::vector<part>::const_iterator part_at(std::size_t byte) const;

    std::vector<part> parts_;
};

/// Changes a text and keeps its origins in step, where they are asked for, by what `change` makes of
/// words, of clusters of characters in these and of characters: each word must become what it becomes
/// in the text; where the parts of one do not, they stand for all of it. Takes a few times as long as
/// `change`. Throws std::invalid_argument for other words.
void change_traced(const std::function<void(std::string&)>& change, std::string& text,
                   origins& from);

} // namespace encoder::detail
