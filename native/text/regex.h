#pragma once
// A regular expression over UTF-8 text as an automaton over bytes. It matches whole texts (it is anchored).
//
// Syntax, as JavaScript's with the flag u: characters, . (not a line break), [classes] with ranges and ^, \d \w \s \D
// \W
// \S, \t \n \r \f \v \0, \xHH, \uHHHH, \u{H...}, escaped punctuation, (groups), (?:groups), (?<names>), |, ? * + {m}
// {m,} {m,n}, also lazy, which makes no difference. ^ and $ may be written where a text can begin and end. Lookaheads
// (?= (?! anywhere but in an unlimited repetition. Anything else fails with invalidOption and the position, in
// characters.
//
// The compiler of JSON Schemas writes five forms more (RegexSyntax::schema; N, M: decimal numbers):
//   (?,ab?c*)        atoms with commas between those that are there
//   (?&ab)           what all atoms match
//   (?"a)            what the atom matches, as it stands in a JSON string
//   (?%N)            decimal digits of a multiple of N
//   (?#N:NAMEa)      the atom; errors about its size begin with its NAME, of N characters
//   (?@N:M:NAMEPATTERN)  a pattern of M characters from outside, found anywhere in the text; errors begin with its
//   NAME, of
//                    N characters
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

enum class RegexSyntax { user, schema };

ByteNfa compileRegex(std::string_view pattern, RegexSyntax syntax = RegexSyntax::user);

}  // namespace pg
