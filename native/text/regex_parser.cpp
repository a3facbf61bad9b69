#include "text/regex_parser.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace pg {
namespace {

constexpr int kMaxNesting = 200;        // parser and compiler recurse
constexpr int32_t kMaxRepeat = 10000;
constexpr int32_t kMaxDivisor = 400;
constexpr size_t kMaxPattern = 4000000;  // bytes
constexpr size_t kMaxDistributed = 1000;  // characters

using Node = RegexNode;
using Set = CharSet;
using Range = CharRange;

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

// \s and \S as JavaScript has them: what is neither satisfies no one's idea of them.
const Set kDigits{{'0', '9'}}, kWord{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const Set kSpace{{'\t', '\r'},     {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
                 {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
const Set kBreaks{{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
const Set kAnything{{0, kMaxCode}};

Node node(Node::Kind kind, std::vector<Node> parts = {}) { return {kind, {}, std::move(parts)}; }

Node anyTimes() {
  Node any = node(Node::Kind::set);
  any.set = kAnything;
  Node all = node(Node::Kind::repeat, {std::move(any)});
  all.min = 0;
  all.max = kUnlimited;
  return all;
}

// What of the text can have come before: something, nothing, or nothing because a ^ says so.
enum class Place { inside, start, anchored };

bool begins(const Node& n) {
  return n.kind == Node::Kind::begin || std::any_of(n.parts.begin(), n.parts.end(), begins);
}

class Parser {
 public:
  Parser(std::string_view pattern, RegexSyntax syntax) : syntax_(syntax) { decode(pattern); }
  // a pattern within a schema
  Parser(std::vector<int32_t> text, std::string name)
      : syntax_(RegexSyntax::user), text_(std::move(text)), name_(std::move(name)) {}

  Node parse() {
    Node node = choice(0, Place::start);
    if (next_ < text_.size()) failHere("An unmatched )");
    return node;
  }

  // What matches somewhere in a text: anything may stand around it, but where ^ and $ say otherwise.
  Node parseSearch() {
    Node found = unanchored(parse());
    std::vector<Node> parts;
    parts.push_back(std::move(found));
    parts.push_back(anyTimes());
    return node(Node::Kind::sequence, std::move(parts));
  }

 private:
  [[noreturn]] void failAt(size_t position, const std::string& what) const {
    fail(Code::invalidOption, name_, what, " at position ", position, " of the regular expression ", quoted());
  }
  [[noreturn]] void failHere(const std::string& what) const { failAt(next_, what); }

  std::string quoted() const {
    std::string text;
    for (size_t i = 0; i < std::min<size_t>(text_.size(), 200); ++i) append(text, text_[i]);
    return "/" + text + (text_.size() > 200 ? ".../" : "/");
  }

  static void append(std::string& text, int32_t code) {
    if (code < 0x80) {
      text += char(code);
      return;
    }
    const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    text += char((more == 1 ? 0xC0 : more == 2 ? 0xE0 : 0xF0) | code >> (6 * more));
    for (int i = more; i-- > 0;) text += char(0x80 | (code >> (6 * i) & 0x3F));
  }

  void decode(std::string_view pattern) {
    if (pattern.size() > kMaxPattern)
      fail(Code::invalidOption, "The regular expression has more than ", kMaxPattern, " bytes");
    for (size_t i = 0; i < pattern.size();) {
      const uint8_t lead = uint8_t(pattern[i]);
      const int more = lead < 0x80                   ? 0
                       : lead >= 0xC2 && lead < 0xE0 ? 1
                       : lead >= 0xE0 && lead < 0xF0 ? 2
                       : lead >= 0xF0 && lead < 0xF5 ? 3
                                                     : -1;
      int32_t code = more <= 0 ? lead : lead & (0x3F >> more);
      bool good = more >= 0 && i + size_t(more) < pattern.size();
      for (int k = 1; good && k <= more; ++k) {
        const uint8_t byte = uint8_t(pattern[i + size_t(k)]);
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

  Node choice(int depth, Place place) {
    if (depth > kMaxNesting) failHere("More than 200 nested groups");
    Node all = node(Node::Kind::choice);
    do all.parts.push_back(sequence(depth, place));
    while (take('|'));
    if (all.parts.size() > 1) return all;
    Node only = std::move(all.parts[0]);
    return only;
  }

  Node sequence(int depth, Place place) {
    Node all = node(Node::Kind::sequence);
    while (next_ < text_.size() && !at('|') && !at(')')) {
      if (take('$')) {
        if (next_ < text_.size() && !at('|') && !at(')'))
          failAt(next_ - 1, "A $ that is not at the end (the expression always matches the whole text)");
        all.parts.push_back(node(Node::Kind::end));
        break;
      }
      all.parts.push_back(repeated(depth, place));
      const Node::Kind kind = all.parts.back().kind;
      if (kind == Node::Kind::begin) place = Place::anchored;
      else if (kind != Node::Kind::ahead) place = Place::inside;
    }
    return all;
  }

  Node repeated(int depth, Place place) {
    Node body = atom(depth, place);
    const size_t from = next_;
    int32_t min, max;
    if (take('?')) min = 0, max = 1;
    else if (take('*')) min = 0, max = kUnlimited;
    else if (take('+')) min = 1, max = kUnlimited;
    else if (at('{')) braces(min, max);
    else return body;
    take('?');  // lazy: of what matches as a whole, it is the same
    if (at('?') || at('+') || at('*') || at('{')) failHere("A quantifier without anything to repeat");
    if (max != kUnlimited && max < min) failAt(from, "A repetition whose numbers are in the wrong order");
    if (body.kind == Node::Kind::begin || body.kind == Node::Kind::ahead) failAt(from, "A repetition of nothing");
    Node result = node(Node::Kind::repeat);
    result.min = min;
    result.max = max;
    result.parts.push_back(std::move(body));
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

  Node atom(int depth, Place place) {
    const size_t from = next_;
    Node single = node(Node::Kind::set);
    const int32_t c = text_[next_++];
    switch (c) {
      case '(': return group(from, depth, place);
      case '[': single.set = bracket(from); return single;
      case '.': single.set = inverted(kBreaks); return single;
      case '\\': single.set = escape(from, false); return single;
      case '*':
      case '+':
      case '?':
      case '{': failAt(from, "A quantifier without anything to repeat");
      case '^':
        if (place == Place::inside)
          failAt(from, "A ^ that is not at the start (the expression always matches the whole text)");
        return node(place == Place::start ? Node::Kind::begin : Node::Kind::sequence);  // once said is enough
      default: break;  // ] and } too, as in JavaScript without flags
    }
    single.set = {{c, c}};
    return single;
  }

  Node group(size_t from, int depth, Place place) {
    Node result;
    if (!take('?') || take(':')) {
      result = choice(depth + 1, place);
    } else if (at('=') || at('!')) {
      result = node(Node::Kind::ahead);
      result.negated = take('!') || !take('=');
      // after a ^ it looks at the whole text too, and may say so: Pydantic's ^(?!^[-+.]*$)
      result.parts.push_back(choice(depth + 1, place == Place::anchored ? Place::anchored : Place::inside));
    } else if (take('<')) {
      const size_t name = next_;
      while (next_ < text_.size() && !at('>') && !at('=') && !at('!') && !at(')')) ++next_;
      if (next_ == name || !take('>')) failAt(from, "A lookbehind, which is not supported,");
      result = choice(depth + 1, place);
    } else if (syntax_ == RegexSyntax::schema) {
      result = special(from, depth);
    } else {
      failAt(from, "A group other than ( ), (?: ), (?<name> ) and lookaheads, which is not supported,");
    }
    if (!take(')')) failAt(from, "A ( without )");
    return result;
  }

  // The forms of RegexSyntax::schema.
  Node special(size_t from, int depth) {
    if (take(',')) return listed(Node::Kind::list, from, depth);
    if (take('&')) return listed(Node::Kind::both, from, depth);
    if (take('"')) return listed(Node::Kind::escaped, from, depth);
    if (take('%')) {
      Node result = node(Node::Kind::multiple);
      result.min = count(from, kMaxDivisor);
      if (result.min == 0) failAt(from, "A multiple of 0");
      return result;
    }
    if (take('#')) {
      const int32_t nameLength = count(from, kMaxPattern);
      if (!take(':')) failAt(from, "An unknown group");
      std::string name = characters(from, nameLength);
      Node result = listed(Node::Kind::named, from, depth);
      result.name = std::move(name);
      return result;
    }
    if (!take('@')) failAt(from, "An unknown group");
    const int32_t nameLength = count(from, kMaxPattern);
    if (!take(':')) failAt(from, "An unknown group");
    const int32_t length = count(from, kMaxPattern);
    if (!take(':')) failAt(from, "An unknown group");
    std::string name = characters(from, nameLength);
    if (size_t(length) > text_.size() - next_) failAt(from, "An unknown group");
    const auto begin = text_.begin() + ptrdiff_t(next_);
    next_ += size_t(length);
    return Parser(std::vector<int32_t>(begin, begin + length), std::move(name)).parseSearch();
  }

  Node listed(Node::Kind kind, size_t from, int depth) {
    Node result = sequence(depth + 1, Place::inside);
    result.kind = kind;
    const size_t parts = result.parts.size();
    if ((kind == Node::Kind::both && parts == 0) ||
        (kind != Node::Kind::list && kind != Node::Kind::both && parts != 1))
      failAt(from, "A group without its parts");
    return result;
  }

  std::string characters(size_t from, int32_t length) {
    if (size_t(length) > text_.size() - next_) failAt(from, "An unknown group");
    std::string text;
    for (int32_t i = 0; i < length; ++i) append(text, text_[next_++]);
    return text;
  }

  int32_t count(size_t from, size_t most) {
    int64_t value = 0;
    const size_t start = next_;
    for (; next_ < text_.size() && text_[next_] >= '0' && text_[next_] <= '9'; ++next_) {
      value = value * 10 + (text_[next_] - '0');
      if (value > int64_t(most)) failAt(from, "A number that is too large");
    }
    if (next_ == start) failAt(from, "An unknown group");
    return int32_t(value);
  }

  // The same where anything may stand before it; branches that say ^ begin the text.
  Node unanchored(Node n) {
    if (n.kind == Node::Kind::choice) {
      for (Node& part : n.parts) part = unanchored(std::move(part));
      return n;
    }
    if (n.kind == Node::Kind::begin) return node(Node::Kind::sequence);
    if (n.kind != Node::Kind::sequence) n = node(Node::Kind::sequence, {std::move(n)});
    if (!n.parts.empty() && n.parts[0].kind == Node::Kind::begin) {
      n.parts.erase(n.parts.begin());
      return n;
    }
    // lookaheads before ^ look at the whole text, as they do after it
    if (n.parts.size() > 1 && n.parts[0].kind == Node::Kind::ahead && begins(n.parts[1])) {
      std::swap(n.parts[0], n.parts[1]);
      return unanchored(std::move(n));
    }
    if (!n.parts.empty() && begins(n.parts[0])) return distributed(std::move(n));
    n.parts.insert(n.parts.begin(), anyTimes());
    return n;
  }

  // A sequence whose first part is a group that holds a ^: each of its branches with the rest of the sequence.
  Node distributed(Node n) {
    if (text_.size() > kMaxDistributed) failAt(0, "A ^ within a group of so long an expression");
    Node head = std::move(n.parts[0]);
    n.parts.erase(n.parts.begin());
    if (head.kind == Node::Kind::sequence) {
      head.parts.insert(head.parts.end(), n.parts.begin(), n.parts.end());
      return unanchored(std::move(head));
    }
    if (head.kind != Node::Kind::choice) failAt(0, "A ^ that may not be at the start");
    for (Node& branch : head.parts) {
      Node whole = node(Node::Kind::sequence, {std::move(branch)});
      whole.parts.insert(whole.parts.end(), n.parts.begin(), n.parts.end());
      branch = unanchored(std::move(whole));
    }
    return head;
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

  RegexSyntax syntax_;
  std::vector<int32_t> text_;  // characters
  std::string name_;  // begins the errors
  size_t next_ = 0;
};

}  // namespace

RegexNode parseRegex(std::string_view pattern, RegexSyntax syntax) { return Parser(pattern, syntax).parse(); }

}  // namespace pg
