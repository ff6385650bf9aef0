// expect: pare: rows are moved as bytes, so their elements must be trivially copyable
#include <pare/pare.hpp>
#include <string>

void misuse(std::vector<std::string>& tokens, const std::vector<int>& index) {
    pare::gather_rows(pare::seq, index, tokens);
}
