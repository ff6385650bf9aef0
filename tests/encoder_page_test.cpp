// The page of what pruning does: well formed, whole, and safe whatever the texts say.
#include "catch.hpp"

#include <encoder/report/drawing.hpp>
#include <encoder/report/page.hpp>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace encoder_page_test {

using encoder::page;

namespace {

page some_page() {
    page p;
    p.title = "Tokens that <all-MiniLM-L6-v2> drops";
    p.summary = "Thresholds learned by distillation & measured on pairs of sentences.";
    p.facts = {{"multiply-adds", "50.2%"},
               {"Spearman, of 0.824", "0.817"},
               {"speed-up", "1.83x"},
               {"tokens", "16,384"}};
    p.layers = 6;
    p.charts = {{"Tokens kept, layer by layer",
                 "What the FFN of a layer still sees.",
                 "tokens are kept",
                 {0.94, 0.81, 0.66, 0.49, 0.335, 0.21}}};
    p.texts = {
        {{"[CLS]", "the", "quick", "brown", "fox", "jump", "##ed", "over", "the", "lazy", "dog",
          ".", "[SEP]"},
         {6, 0, 4, 5, 6, 6, 2, 1, 0, 4, 6, 1, 3}},
        {{"[CLS]", "<script>", "alert", "(", "\"x\"", "&", "'y'", ")", "[SEP]"},
         {6, 3, 5, 0, 2, 1, 2, 0, 4}},
        {{"[CLS]",   "shares",       "of",      "the",      "company",   "fell", "sharply", "on",
          "tuesday", "after",        "it",      "reported", "weak",      "earn", "##ings",  "for",
          "the",     "third",        "quarter", ",",        "and",       "anti", "##dis",   "##est",
          "##ab",    "##lish",       "##ment",  "##arian",  "investors", "said", "that",    "they",
          "were",    "disappointed", ".",       "[SEP]"},
         {6, 6, 1, 0, 5, 6, 4, 1, 5, 2, 0, 4, 6, 6, 3, 1, 0, 3,
          4, 0, 0, 5, 2, 3, 2, 2, 1, 3, 6, 2, 0, 1, 1, 6, 0, 2}}};
    page::plot quality;
    quality.title = "Quality & cost";
    quality.about = "What is left of the quality.";
    quality.cost = "multiply-adds";
    quality.metric = "Spearman correlation";
    quality.whole = 0.8241;
    quality.whole_name = "all tokens";
    quality.curves = {
        {"learned thresholds",
         {{0.31, 0.7712}, {0.41, 0.8047}, {0.502, 0.8169}, {0.71, 0.8229}, {0.86, 0.8252}}},
        {"top-k by layer", {{0.35, 0.7398}, {0.5, 0.7911}, {0.72, 0.8134}}},
        {"fixed schedule", {{0.35, 0.7302}, {0.5, 0.7803}, {0.7, 0.8072}}},
        {"quantiles, not learned", {{0.34, 0.7421}, {0.5, 0.7988}, {0.71, 0.8171}}}};
    p.plots = {quality};
    p.heat = {{"What is left", "Of a text.", {{"by <rule>", {{1}, {0.5, 0.5, 0.2}, {}}}}}};
    return p;
}

/// The sentence that says which tag is in the wrong place; empty if all are closed in order.
std::string fault_of(const std::string& html) {
    std::vector<std::string> open;
    for (std::size_t at = html.find('<'); at != html.npos; at = html.find('<', at + 1)) {
        const std::size_t end = html.find('>', at);
        if (end == html.npos) return "a tag does not end";
        const std::string tag = html.substr(at + 1, end - at - 1);
        if (tag.find('<') != tag.npos) return "< within <" + tag + ">";
        if (tag.front() == '!' || tag.back() == '/') continue;
        if (tag.front() != '/') {
            open.push_back(tag.substr(0, tag.find(' ')));
        } else {
            if (open.empty() || open.back() != tag.substr(1)) return "misplaced <" + tag + ">";
            open.pop_back();
        }
    }
    return open.empty() ? "" : "<" + open.back() + "> is not closed";
}

std::size_t count(const std::string& text, const std::string& part) {
    std::size_t n = 0;
    for (std::size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++n;
    return n;
}

} // namespace

TEST_CASE("a page is well formed and shows its texts and numbers") {
    const page p = some_page();
    const std::string html = to_html(p);
    if (const char* file = std::getenv("PARE_PAGE")) std::ofstream(file) << html; // to look at
    CHECK(fault_of(html) == "");
    for (const char* part :
         {"<title>Tokens that &lt;all-MiniLM-L6-v2&gt; drops</title>", "50.2%",
          "Spearman, of 0.824", "1.83x", "title=\"quick: leaves in layer 4\">quick<",
          "title=\"fox: stays to the end\">fox<", ">jump</span><span class=\"s2\" title=\"##ed: ",
          "\">ed<", "4 of 13 tokens stay to the end", "layer 4: 33.5% of the tokens are kept",
          "learned thresholds: 0.8169 at 50.2% of the multiply-adds", ">quantiles, not learned<",
          "all tokens: 0.8241", "by &lt;rule&gt;</figcaption>", "fill-opacity=\"0.5\"",
          "prefers-color-scheme: dark"}) {
        CAPTURE(part);
        CHECK(count(html, part) > 0);
    }
    CHECK(count(html, "class=\"mark\"") == 14);
    CHECK(count(html, "class=\"bar\"") == 6);
    CHECK(count(html, ".s6{") == 2); // light and dark
}

TEST_CASE("a page shows text as text, and needs nothing from elsewhere") {
    page p = some_page();
    const std::string evil = "<script>alert(\"1\")</script>&'";
    p.title = p.summary = evil;
    p.facts[0] = {evil, evil};
    p.charts[0].title = p.charts[0].about = p.charts[0].what = evil;
    page::plot& plot = p.plots[0];
    plot.title = plot.about = plot.cost = plot.metric = plot.whole_name = evil;
    plot.curves[1].name = evil;
    const std::string html = to_html(p);
    CHECK(fault_of(html) == "");
    CHECK(count(html, "<script") == 0);
    CHECK(count(html, "&lt;script&gt;") >= 9);
    CHECK(count(html, "\"x\"") == 0);
    CHECK(count(html, "title=\"&quot;x&quot;: leaves in layer 2\"") == 1);
    for (const char* outside : {"http", "url(", "@import", "src="})
        CHECK(count(html, outside) == 0);
}

TEST_CASE("a page has no characters that HTML forbids") {
    const std::string replaced = "\xef\xbf\xbd";
    CHECK(escape("a\tb\nc<\xc3\xa4") == "a\tb\nc&lt;\xc3\xa4");
    for (const std::string bad : {"\x01", "\x0b", "\x7f", "\xc2\x85", "\xff", "\xef\xbf\xbf"})
        CHECK(escape("a" + bad + "b") == "a" + replaced + "b");
    CHECK(escape(std::string(1, '\0')) == replaced);
}

TEST_CASE("a page leaves out what there is nothing of") {
    page p = some_page();
    page::plot& plot = p.plots[0];
    plot.curves[0].points[1].value = std::nan("");
    CHECK(count(to_html(p), "class=\"mark\"") == 13);
    CHECK(count(to_html(p), "nan") == 0);
    for (auto& s : plot.curves) s.points.clear();
    CHECK(count(to_html(p), "Quality &amp; cost") == 0);
    plot.whole = std::nan("");
    plot.curves = some_page().plots[0].curves;
    CHECK(count(to_html(p), "class=\"mark\"") == 14);
    CHECK(count(to_html(p), "nan") == 0);
    plot.curves = {{"one", {{1, 0.5}}}};
    plot.whole = 0.5; // no range at all
    CHECK(fault_of(to_html(p)) == "");
    CHECK(count(to_html(p), "class=\"mark\"") == 1);
    CHECK(count(to_html(p), "nan") == 0);
    CHECK(count(to_html(p), "inf") == 0);
    CHECK(fault_of(to_html(page())) == "");

    p.texts[0].layers.pop_back();
    CHECK_THROWS_WITH(to_html(p), "a text of 13 tokens has layers for 12");
}

} // namespace encoder_page_test
