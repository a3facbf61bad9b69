#include "text/regex.h"

#include <string>

#include "base/error.h"
#include "text/char_nfa.h"
#include "text/regex_parser.h"

namespace pg {
namespace {

constexpr size_t kMaxSteps = kMaxNfaStates * 4;

// Builds from the end to the start: what follows a node is known when it is compiled.
class Compiler {
 public:
  Compiler() = default;
  Compiler(size_t& steps, int loops) : steps_(steps), loops_(loops) {}

  CharNfa nfa;

  int32_t compile(const RegexNode& node, int32_t next) {
    if (++steps_ > kMaxSteps)  // repetitions of nothing make no states
      fail(Code::invalidOption,
           "The regular expression or schema is too large: lower the numbers of its repetitions, such as maxLength");
    using Kind = RegexNode::Kind;
    switch (node.kind) {
      case Kind::set: return set(node.set, next);
      case Kind::sequence:
        for (size_t i = node.parts.size(); i-- > 0;) next = compile(node.parts[i], next);
        return next;
      case Kind::choice: {
        int32_t start = compile(node.parts.back(), next);
        for (size_t i = node.parts.size() - 1; i-- > 0;) start = nfa.split(compile(node.parts[i], next), start);
        return start;
      }
      case Kind::repeat: return repeat(node, next);
      case Kind::begin: return next;
      case Kind::end: return accepts(next) ? CharNfa::kAccept : CharNfa::kDead;
      case Kind::ahead: return ahead(node, next);
      case Kind::list: return list(node, next);
      case Kind::both: return both(node, next);
      case Kind::escaped: {
        Compiler text(steps_, 0);
        const int32_t start = text.compile(node.parts[0], CharNfa::kAccept);
        return nfa.escaped(text.nfa, start, next);
      }
      case Kind::multiple: return nfa.multiple(node.min, next);
      case Kind::named: return named(node, next);
    }
    fail(Code::internal, "A node of no kind in a regular expression");
  }

 private:
  int32_t named(const RegexNode& node, int32_t next) {
    try {
      return compile(node.parts[0], next);
    } catch (const Error& error) {
      fail(error.code(), node.name, ": ", error.message());
    }
  }

  int32_t set(const CharSet& set, int32_t next) {
    int32_t start = CharNfa::kDead;
    for (size_t i = set.size(); i-- > 0;) start = nfa.split(nfa.range(set[i].first, set[i].last, next), start);
    return start;
  }

  int32_t repeat(const RegexNode& node, int32_t next) {
    const RegexNode& body = node.parts[0];
    int32_t start = next;
    if (node.max == kUnlimited) {
      start = loop(body, next);
    } else {
      for (int32_t i = node.min; i < node.max; ++i) start = nfa.split(compile(body, start), next);
    }
    for (int32_t i = 0; i < node.min; ++i) start = compile(body, start);
    return start;
  }

  // Any number of times, with a comma before each where `comma` says so.
  int32_t loop(const RegexNode& body, int32_t next, bool comma = false) {
    if (next == CharNfa::kDead) return next;
    const int32_t start = nfa.split(next, next);
    ++loops_;
    int32_t again = compile(body, start);
    if (comma) again = nfa.range(',', ',', again);
    --loops_;
    if (again != CharNfa::kDead) nfa.states[size_t(start)].next = again;
    return start;
  }

  // What follows is all that comes after in this automaton: it must be complete, which it is not within a loop.
  int32_t ahead(const RegexNode& node, int32_t next) {
    if (loops_ > 0)
      fail(Code::invalidOption,
           "A lookahead within a repetition without an end is not supported in regular expressions");
    if (next == CharNfa::kDead) return next;
    Compiler look(steps_, 0);
    const RegexNode any{RegexNode::Kind::set, {{0, kMaxCode}}};
    const int32_t start = look.compile(node.parts[0], look.loop(any, CharNfa::kAccept));
    if (!node.negated) return product(look.nfa, start, nfa, next, CharNfa::kAccept);
    if (start == CharNfa::kDead) return next;
    const Complement rest = complement(look.nfa, start);
    return product(rest.nfa, rest.start, nfa, next, CharNfa::kAccept);
  }

  // Each part after which others are there begins with a comma, the first that is there does not: two chains, of which
  // the first leads into the second. So the size is in proportion to the number of parts.
  int32_t list(const RegexNode& node, int32_t next) {
    int32_t first = next, rest = next;  // from the current part on: nothing was there before, something was
    for (size_t i = node.parts.size(); i-- > 0;) {
      const RegexNode& part = node.parts[i];
      const bool repeats = part.kind == RegexNode::Kind::repeat;
      const RegexNode& item = repeats ? part.parts[0] : part;
      const int32_t after = repeats && part.max == kUnlimited ? loop(item, rest, true) : rest;
      const int32_t here = compile(item, after);
      const int32_t later = nfa.range(',', ',', here);
      const bool needed = !repeats || part.min > 0;
      first = needed ? here : nfa.split(here, first);
      rest = after != rest ? after : needed ? later : nfa.split(later, rest);
    }
    return first;
  }

  int32_t both(const RegexNode& node, int32_t next) {
    if (node.parts.size() == 1) return compile(node.parts[0], next);
    Compiler all(steps_, 0);
    int32_t start = all.compile(node.parts[0], CharNfa::kAccept);
    for (size_t i = 1; i < node.parts.size(); ++i) {
      const bool last = i + 1 == node.parts.size();
      Compiler other(steps_, 0), common(steps_, 0);
      const int32_t otherStart = other.compile(node.parts[i], CharNfa::kAccept);
      if (last) return product(all.nfa, start, other.nfa, otherStart, next);
      start = common.product(all.nfa, start, other.nfa, otherStart, CharNfa::kAccept);
      std::swap(all.nfa, common.nfa);
    }
    return start;
  }

  int32_t product(const CharNfa& a, int32_t aStart, const CharNfa& b, int32_t bStart, int32_t next) {
    const int32_t start = nfa.product(a, aStart, b, bStart, next);
    steps_ += nfa.explored;
    nfa.explored = 0;
    return start;
  }

  // Whether the text may end here. Many branches ask it of one state.
  bool accepts(int32_t state) {
    if (state != asked_) {
      asked_ = state;
      accepted_ = nfa.accepts(state);
    }
    return accepted_;
  }

  size_t own_ = 0;
  size_t& steps_ = own_;
  int loops_ = 0;
  int32_t asked_ = CharNfa::kDead;
  bool accepted_ = false;
};

}  // namespace

ByteNfa compileRegex(std::string_view pattern, RegexSyntax syntax) {
  const RegexNode root = parseRegex(pattern, syntax);
  Compiler compiler;
  const int32_t start = compiler.compile(root, CharNfa::kAccept);
  if (start == CharNfa::kDead)
    fail(Code::invalidOption, "No text matches the regular expression /", pattern.substr(0, 200), "/");
  return toBytes(compiler.nfa, start);
}

}  // namespace pg
