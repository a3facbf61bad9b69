#include "text/regex.h"

#include <algorithm>
#include <memory>
#include <string>

#include "base/error.h"

namespace pg {
namespace {

constexpr int32_t kMaxCode = 0x10FFFF;
constexpr size_t kMaxStates = 400000;   // about 10 MB
constexpr int kMaxNesting = 200;        // parser and compiler recurse
constexpr int32_t kMaxRepeat = 10000, kUnlimited = -1;

struct Range {
  int32_t first, last;
};
using Set = std::vector<Range>;   // of characters

void normalize(Set& set) {
  std::sort(set.begin(), set.end(), [](Range a, Range b) { return a.first < b.first; });
  Set merged;
  for (const Range r : set) {
    if (!merged.empty() && r.first <= merged.back().last + 1) merged.back().last = std::max(merged.back().last, r.last);
    else merged.push_back(r);
  }
  set = std::move(merged);
}

Set inverted(Set set) {
  normalize(set);
  Set rest;
  int32_t next = 0;
  for (const Range r : set) {
    if (r.first > next) rest.push_back({next, r.first - 1});
    next = r.last + 1;
  }
  if (next <= kMaxCode) rest.push_back({next, kMaxCode});
  return rest;
}

const Set kDigits{{'0', '9'}}, kWord{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}, kSpace{{'\t', '\r'}, {' ', ' '}};

struct Node {
  enum class Kind { set, sequence, choice, repeat } kind;
  Set set;
  std::vector<Node> parts;                 // sequence, choice: any number; repeat: one
  int32_t min = 1, max = 1;                // repeat; max may be kUnlimited
};

class Parser {
 public:
  explicit Parser(std::string_view pattern) : pattern_(pattern) { decode(); }

  Node parse() {
    if (at('^')) ++next_;
    Node node = choice(0);
    if (next_ < text_.size()) failHere("An unmatched )");
    return node;
  }

 private:
  [[noreturn]] void failAt(size_t position, const std::string& what) const {
    fail(Code::invalidOption, what, " at position ", position, " of the regular expression ", quoted());
  }
  [[noreturn]] void failHere(const std::string& what) const { failAt(next_, what); }

  std::string quoted() const {
    return "/" + std::string(pattern_.size() > 200 ? pattern_.substr(0, 200) : pattern_) +
           (pattern_.size() > 200 ? ".../" : "/");
  }

  void decode() {
    for (size_t i = 0; i < pattern_.size();) {
      const uint8_t lead = uint8_t(pattern_[i]);
      const int more = lead < 0x80                   ? 0
                       : lead >= 0xC2 && lead < 0xE0 ? 1
                       : lead >= 0xE0 && lead < 0xF0 ? 2
                       : lead >= 0xF0 && lead < 0xF5 ? 3
                                                     : -1;
      int32_t code = more <= 0 ? lead : lead & (0x3F >> more);
      bool good = more >= 0 && i + size_t(more) < pattern_.size();
      for (int k = 1; good && k <= more; ++k) {
        const uint8_t byte = uint8_t(pattern_[i + size_t(k)]);
        good = (byte & 0xC0) == 0x80;
        code = code << 6 | (byte & 0x3F);
      }
      if (!good) fail(Code::invalidOption, "The regular expression is not UTF-8 at byte ", i);
      text_.push_back(code);
      i += size_t(more) + 1;
    }
  }

  bool at(char c) const { return next_ < text_.size() && text_[next_] == c; }
  bool take(char c) {
    if (!at(c)) return false;
    ++next_;
    return true;
  }

  Node choice(int depth) {
    if (depth > kMaxNesting) failHere("More than 200 nested groups");
    Node all{Node::Kind::choice, {}, {}};
    do all.parts.push_back(sequence(depth));
    while (take('|'));
    if (all.parts.size() > 1) return all;
    Node only = std::move(all.parts[0]);
    return only;
  }

  Node sequence(int depth) {
    Node all{Node::Kind::sequence, {}, {}};
    while (next_ < text_.size() && !at('|') && !at(')')) {
      if (at('$')) {
        if (next_ + 1 < text_.size())
          failHere("A $ that is not at the end (the expression always matches the whole text)");
        ++next_;
        break;
      }
      all.parts.push_back(repeated(depth));
    }
    return all;
  }

  Node repeated(int depth) {
    Node node = atom(depth);
    const size_t from = next_;
    int32_t min, max;
    if (take('?')) min = 0, max = 1;
    else if (take('*')) min = 0, max = kUnlimited;
    else if (take('+')) min = 1, max = kUnlimited;
    else if (at('{')) braces(min, max);
    else return node;
    if (at('?')) failHere("A lazy quantifier (it makes no difference to what matches: leave the ? out)");
    if (at('+') || at('*') || at('{')) failHere("A quantifier without anything to repeat");
    if (max != kUnlimited && max < min) failAt(from, "A repetition whose numbers are in the wrong order");
    Node result{Node::Kind::repeat, {}, {}, min, max};
    result.parts.push_back(std::move(node));
    return result;
  }

  void braces(int32_t& min, int32_t& max) {
    const size_t from = next_++;
    const auto number = [&](int32_t missing) {
      if (next_ >= text_.size() || text_[next_] < '0' || text_[next_] > '9') return missing;
      int32_t value = 0;
      while (next_ < text_.size() && text_[next_] >= '0' && text_[next_] <= '9') {
        value = value * 10 + (text_[next_++] - '0');
        if (value > kMaxRepeat) failAt(from, "A repetition of more than 10000");
      }
      return value;
    };
    min = number(-1);
    max = min;
    if (min >= 0 && take(',')) max = number(kUnlimited);
    if (min < 0 || !take('}')) failAt(from, "A { that is not {m}, {m,} or {m,n} (for the character write \\{)");
  }

  Node atom(int depth) {
    Node node{Node::Kind::set, {}, {}};
    const size_t from = next_;
    const int32_t c = text_[next_++];
    switch (c) {
      case '(': {
        if (take('?')) {
          if (!take(':'))
            failAt(from,
                   "A group other than ( ) and (?: ), such as a lookaround or a named group, which is not supported,");
        }
        node = choice(depth + 1);
        if (!take(')')) failAt(from, "A ( without )");
        return node;
      }
      case '[': node.set = bracket(from); return node;
      case '.': node.set = inverted({{'\n', '\n'}}); return node;
      case '\\': node.set = escape(from, false); return node;
      case '*':
      case '+':
      case '?':
      case '{': failAt(from, "A quantifier without anything to repeat");
      case '^': failAt(from, "A ^ that is not at the start (the expression always matches the whole text)");
      case ']':
      case '}': break;   // as in JavaScript without flags
      default: break;
    }
    node.set = {{c, c}};
    return node;
  }

  Set bracket(size_t from) {
    const bool negated = take('^');
    Set set;
    while (!at(']')) {
      const size_t start = next_;
      const Set left = member(from);
      if (at('-') && next_ + 1 < text_.size() && text_[next_ + 1] != ']') {
        ++next_;
        const Set right = member(from);
        const bool single =
            left.size() == 1 && right.size() == 1 && left[0].first == left[0].last && right[0].first == right[0].last;
        if (!single || left[0].first > right[0].first)
          failAt(start, "A range that is not from a smaller to a larger character");
        set.push_back({left[0].first, right[0].first});
      } else {
        set.insert(set.end(), left.begin(), left.end());
      }
    }
    ++next_;
    normalize(set);
    if (negated) set = inverted(std::move(set));
    // surrogates are no characters
    if (std::all_of(set.begin(), set.end(), [](Range r) { return r.first >= 0xD800 && r.last <= 0xDFFF; }))
      failAt(from, "A class that matches nothing");
    return set;
  }

  Set member(size_t from) {
    if (next_ >= text_.size()) failAt(from, "A [ without ]");
    const size_t start = next_;
    const int32_t c = text_[next_++];
    return c == '\\' ? escape(start, true) : Set{{c, c}};
  }

  int32_t hex(size_t from, size_t least, size_t most) {
    int32_t value = 0;
    size_t digits = 0;
    for (; digits < most && next_ < text_.size(); ++digits, ++next_) {
      const int32_t c = text_[next_], lower = c | 0x20;
      if (c >= '0' && c <= '9') value = value * 16 + (c - '0');
      else if (lower >= 'a' && lower <= 'f') value = value * 16 + (lower - 'a' + 10);
      else break;
    }
    if (digits < least) failAt(from, "An escape without its hexadecimal digits");
    return value;
  }

  Set escape(size_t from, bool inClass) {
    if (next_ >= text_.size()) failAt(from, "A \\ without anything after it");
    int32_t c = text_[next_++];
    switch (c) {
      case 'd': return kDigits;
      case 'w': return kWord;
      case 's': return kSpace;
      case 'D': return inverted(kDigits);
      case 'W': return inverted(kWord);
      case 'S': return inverted(kSpace);
      case 't': c = '\t'; break;
      case 'n': c = '\n'; break;
      case 'r': c = '\r'; break;
      case 'f': c = '\f'; break;
      case 'v': c = '\v'; break;
      case 'x': c = hex(from, 2, 2); break;
      case 'u':
        if (take('{')) {
          c = hex(from, 1, 6);
          if (!take('}')) failAt(from, "An escape without its }");
        } else {
          c = hex(from, 4, 4);
          if (c >= 0xD800 && c < 0xDC00 && at('\\') && next_ + 1 < text_.size() && text_[next_ + 1] == 'u') {  // a pair
            next_ += 2;
            const int32_t low = hex(from, 4, 4);
            if (low < 0xDC00 || low > 0xDFFF) failAt(from, "Half of a surrogate pair");
            c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
          }
        }
        if (c > kMaxCode || (c >= 0xD800 && c <= 0xDFFF)) failAt(from, "An escape that is no character");
        break;
      case 'b':
        if (!inClass) failAt(from, "A word boundary, which is not supported,");
        c = '\b';
        break;
      case '0':
        if (next_ < text_.size() && text_[next_] >= '0' && text_[next_] <= '9')
          failAt(from, "An octal escape, which is not supported,");
        c = 0;
        break;
      default:
        if (c >= '1' && c <= '9') failAt(from, "A back reference, which is not supported,");
        if (c < 0x80 && ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'))
          failAt(from, std::string("The escape \\") + char(c) + ", which is not supported,");
        break;
    }
    return {{c, c}};
  }

  std::string_view pattern_;
  std::vector<int32_t> text_;  // characters
  size_t next_ = 0;
};

// Builds from the end to the start: what follows a node is known when it is compiled.
class Compiler {
 public:
  ByteNfa nfa;

  int32_t compile(const Node& node, int32_t next) {
    if (++steps_ > kMaxStates * 4) failTooLarge();  // repetitions of nothing make no states
    switch (node.kind) {
      case Node::Kind::set: return set(node.set, next);
      case Node::Kind::sequence:
        for (size_t i = node.parts.size(); i-- > 0;) next = compile(node.parts[i], next);
        return next;
      case Node::Kind::choice: {
        int32_t start = compile(node.parts.back(), next);
        for (size_t i = node.parts.size() - 1; i-- > 0;) start = split(compile(node.parts[i], next), start);
        return start;
      }
      case Node::Kind::repeat: break;
    }
    const Node& body = node.parts[0];
    int32_t start = next;
    if (node.max == kUnlimited) {
      start = split(next, next);
      const int32_t again = compile(body, start);
      nfa.states[size_t(start)].range.next = again;
    } else {
      for (int32_t i = node.min; i < node.max; ++i) start = split(compile(body, start), next);
    }
    for (int32_t i = 0; i < node.min; ++i) start = compile(body, start);
    return start;
  }

  int32_t emit(ByteNfa::State state) {
    if (nfa.states.size() >= kMaxStates) failTooLarge();
    nfa.states.push_back(state);
    return int32_t(nfa.states.size() - 1);
  }

 private:
  [[noreturn]] static void failTooLarge() {
    fail(Code::invalidOption, "The regular expression is too large: lower the numbers of its repetitions");
  }
  int32_t split(int32_t a, int32_t b) { return emit({ByteNfa::State::Kind::split, {0, 0, a}, b}); }
  int32_t bytes(int32_t first, int32_t last, int32_t next) {
    return emit({ByteNfa::State::Kind::range, {uint8_t(first), uint8_t(last), next}, -1});
  }

  int32_t set(const Set& set, int32_t next) {
    starts_.clear();
    for (const Range r : set) {
      utf8({r.first, std::min(r.last, 0xD7FF)}, next);
      utf8({std::max(r.first, 0xE000), r.last}, next);
    }
    int32_t start = starts_.back();
    for (size_t i = starts_.size() - 1; i-- > 0;) start = split(starts_[i], start);
    return start;
  }

  // Characters whose encodings differ only in the range of each byte become one chain; others are cut until they do.
  void utf8(Range r, int32_t next) {
    if (r.first > r.last) return;
    for (const int32_t limit : {0x7F, 0x7FF, 0xFFFF})
      if (r.first <= limit && r.last > limit) {
        utf8({r.first, limit}, next);
        return utf8({limit + 1, r.last}, next);
      }
    if (r.last <= 0x7F) {
      starts_.push_back(bytes(r.first, r.last, next));
      return;
    }
    const int length = r.last <= 0x7FF ? 2 : r.last <= 0xFFFF ? 3 : 4;
    for (int i = 1; i < length; ++i) {
      const int32_t rest = (1 << (6 * i)) - 1;
      if ((r.first & ~rest) == (r.last & ~rest)) continue;
      if (r.first & rest) {
        utf8({r.first, r.first | rest}, next);
        return utf8({(r.first | rest) + 1, r.last}, next);
      }
      if ((r.last & rest) != rest) {
        utf8({r.first, (r.last & ~rest) - 1}, next);
        return utf8({r.last & ~rest, r.last}, next);
      }
    }
    for (int i = 0; i < length - 1; ++i)
      next = bytes(0x80 | (r.first >> (6 * i) & 0x3F), 0x80 | (r.last >> (6 * i) & 0x3F), next);
    const int32_t lead = length == 2 ? 0xC0 : length == 3 ? 0xE0 : 0xF0;
    starts_.push_back(bytes(lead | r.first >> (6 * (length - 1)), lead | r.last >> (6 * (length - 1)), next));
  }

  std::vector<int32_t> starts_;
  size_t steps_ = 0;
};

}  // namespace

ByteNfa compileRegex(std::string_view pattern) {
  const Node root = Parser(pattern).parse();
  Compiler compiler;
  const int32_t accept = compiler.emit({ByteNfa::State::Kind::accept, {0, 0, -1}, -1});
  compiler.nfa.start = compiler.compile(root, accept);
  return std::move(compiler.nfa);
}

}  // namespace pg
