#pragma once
// A regular expression over UTF-8 text as an automaton over bytes. It matches whole texts (it is anchored).
//
// Syntax: characters, . (not \n), [classes] with ranges and ^, \d \w \s \D \W \S (ASCII), \t \n \r \f \v \0, \xHH,
// \uHHHH, \u{H...}, escaped punctuation, (groups), (?:groups), |, ? * + {m} {m,} {m,n}. ^ at the start and $ at the end
// may be written. Anything else fails with invalidOption and the position, counted in characters.
#include <cstdint>
#include <string_view>
#include <vector>

namespace pg {

// Bytes first..last lead to `next`.
struct ByteRange {
  uint8_t first, last;
  int32_t next;
};

// Nondeterministic; from `start` every state can still reach `accept`.
struct ByteNfa {
  struct State {
    enum class Kind : uint8_t { range, split, accept } kind;
    ByteRange range;  // kind range
    int32_t other;  // kind split: to range.next or here, without a byte
  };
  std::vector<State> states;
  int32_t start = 0;
};

ByteNfa compileRegex(std::string_view pattern);

}  // namespace pg
