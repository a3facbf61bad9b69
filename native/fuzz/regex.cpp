// The compiler of regular expressions alone, in both syntaxes: most executions a second.
#include "fuzz.h"
#include "text/regex.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1 || size > 1024) return 0;
  const std::string_view pattern(reinterpret_cast<const char*>(data + 1), size - 1);
  try {
    const pg::ByteNfa nfa = compileRegex(pattern, data[0] & 1 ? pg::RegexSyntax::schema : pg::RegexSyntax::user);
    const auto inside = [&](int32_t state) { return state >= 0 && state < int32_t(nfa.states.size()); };
    pg::fuzz::must(inside(nfa.start), "the automaton has a start");
    for (const auto& state : nfa.states) {
      if (state.kind == pg::ByteNfa::State::Kind::accept) continue;
      pg::fuzz::must(inside(state.range.next), "states lead to states");
      if (state.kind == pg::ByteNfa::State::Kind::split) pg::fuzz::must(inside(state.other), "splits lead to states");
      // halves of surrogate pairs are no characters: a range that holds nothing
    }
  } catch (const pg::Error&) {
    return 0;
  }
  return 0;
}
