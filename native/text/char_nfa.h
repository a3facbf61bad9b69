#pragma once
// A nondeterministic automaton over characters, and what can be made of several: what both match, what one does not
// match, the same text within a JSON string. Limits on states keep time and memory small; beyond them: invalidOption.
#include <cstdint>
#include <vector>

#include "text/regex.h"

namespace pg {

constexpr size_t kMaxNfaStates = 400000;  // about 10 MB

struct CharNfa {
  static constexpr int32_t kDead = -1;   // where nothing can match
  static constexpr int32_t kAccept = 0;  // the first state, and the only accepting one

  struct State {
    enum class Kind : uint8_t { range, split, accept } kind;
    int32_t first, last;  // kind range: the characters that lead to `next`
    int32_t next, other;  // kind split: to next or to other, without a character
  };
  std::vector<State> states = {{State::Kind::accept, 0, 0, kDead, kDead}};
  size_t explored = 0;  // pairs of states that products have looked at

  int32_t range(int32_t first, int32_t last, int32_t next);  // kDead after kDead
  int32_t split(int32_t a, int32_t b);                       // a where b is kDead, b where a is
  // Whether the text may end here.
  bool accepts(int32_t state) const;

  // What both match, from their states on; then `next` of this automaton, which may be one of them.
  int32_t product(const CharNfa& a, int32_t aStart, const CharNfa& b, int32_t bStart, int32_t next);
  // What another automaton matches, as it stands in a JSON string; then `next`.
  int32_t escaped(const CharNfa& text, int32_t start, int32_t next);
  // Digits of a multiple of `divisor`; then `next`.
  int32_t multiple(int32_t divisor, int32_t next);

 private:
  int32_t emit(State state);
};

// All texts that `nfa` does not match from `start` on. `start` of the result is CharNfa::kDead where it matches all.
struct Complement {
  CharNfa nfa;
  int32_t start;
};
Complement complement(const CharNfa& nfa, int32_t start);

ByteNfa toBytes(const CharNfa& nfa, int32_t start);

}  // namespace pg
