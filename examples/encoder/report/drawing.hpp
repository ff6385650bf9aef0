// What the parts of a page are written with.
#pragma once

#include "page.hpp"

#include <fmt/format.h>

#include <iterator>
#include <string>
#include <utility>

namespace encoder {

std::string escape(const std::string& text);

/// What is written, piece by piece.
class writer {
  public:
    template <class... Values>
    void add(fmt::format_string<Values...> format, Values&&... values) {
        fmt::format_to(std::back_inserter(text_), format, std::forward<Values>(values)...);
    }
    void add_text(const std::string& text) { text_ += text; }
    std::string take() { return std::move(text_); }

  private:
    std::string text_;
};

void draw(const page::bars& b, writer& to);
/// And a table of its numbers; nothing if there are none.
void draw(const page::plot& p, writer& to);
/// Side by side as far as there is room.
void draw(const page::heat_maps& h, writer& to);

} // namespace encoder
