#pragma once
// The syntax tree of a regular expression; its syntax is in regex.h.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/regex.h"

namespace pg {

struct CharRange {
  int32_t first, last;
};
using CharSet = std::vector<CharRange>;

constexpr int32_t kMaxCode = 0x10FFFF;
constexpr int32_t kUnlimited = -1;

struct RegexNode {
  enum class Kind {
    set,         // one character
    sequence,
    choice,
    repeat,      // of one part, min to max times; max may be kUnlimited
    begin,
    end,  // nothing, where the text begins, ends
    ahead,       // nothing, where one part matches what follows (negated: does not)
    list,        // parts with commas between them; a part that repeats may be missing, or come again
    both,        // what all parts match
    escaped,     // what one part matches, as it stands in a JSON string
    multiple,    // decimal digits of a multiple of min
    named,       // its part; errors about its size begin with its name
  } kind;
  CharSet set = {};
  std::vector<RegexNode> parts = {};
  int32_t min = 1, max = 1;
  bool negated = false;
  std::string name = {};
};

RegexNode parseRegex(std::string_view pattern, RegexSyntax syntax);

}  // namespace pg
