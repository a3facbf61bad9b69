#include "text/char_nfa.h"

#include <algorithm>
#include <map>
#include <string>
#include <unordered_map>

#include "base/error.h"
#include "text/regex_parser.h"

namespace pg {
namespace {

using State = CharNfa::State;
using Kind = State::Kind;

constexpr size_t kMaxComplementStates = 5000, kMaxComplementWork = 5000000;

[[noreturn]] void failTooLarge() {
  fail(Code::invalidOption,
       "The regular expression or schema is too large: lower the numbers of its repetitions, such as maxLength");
}

// Ends in JSON strings as a backslash and this; 0: otherwise.
char shortEscape(int32_t c) {
  switch (c) {
    case '"':
    case '\\': return char(c);
    case '\b': return 'b';
    case '\f': return 'f';
    case '\n': return 'n';
    case '\r': return 'r';
    case '\t': return 't';
    default: return 0;
  }
}

// Pairs of states of two automata, found from a start, and which of them can end.
class Pairs {
 public:
  Pairs(const CharNfa& a, const CharNfa& b) : a_(a), b_(b) {}

  struct Pair {
    int32_t a, b;
    State state;  // its `next` and `other` are pairs
    bool live = false;
  };
  std::vector<Pair> pairs;

  void explore(int32_t aStart, int32_t bStart) {
    id(aStart, bStart);
    for (size_t i = 0; i < pairs.size(); ++i) {
      const State s = expanded(pairs[i].a, pairs[i].b);
      pairs[i].state = s;
    }
    markLive();
  }

 private:
  int32_t id(int32_t a, int32_t b) {
    if (a == CharNfa::kDead || b == CharNfa::kDead) return CharNfa::kDead;
    const auto [it, fresh] = ids_.emplace(uint64_t(uint32_t(a)) << 32 | uint32_t(b), int32_t(pairs.size()));
    if (fresh) {
      if (pairs.size() >= kMaxNfaStates) failTooLarge();
      pairs.push_back({a, b, {}});
    }
    return it->second;
  }

  State expanded(int32_t a, int32_t b) {
    const State &s = a_.states[size_t(a)], &t = b_.states[size_t(b)];
    if (s.kind == Kind::split) return {Kind::split, 0, 0, id(s.next, b), id(s.other, b)};
    if (t.kind == Kind::split) return {Kind::split, 0, 0, id(a, t.next), id(a, t.other)};
    if (s.kind == Kind::accept && t.kind == Kind::accept) return {Kind::accept, 0, 0, CharNfa::kDead, CharNfa::kDead};
    const int32_t first = std::max(s.first, t.first), last = std::min(s.last, t.last);
    if (s.kind != t.kind || first > last) return {Kind::split, 0, 0, CharNfa::kDead, CharNfa::kDead};
    return {Kind::range, first, last, id(s.next, t.next), CharNfa::kDead};
  }

  void markLive() {
    std::vector<std::pair<int32_t, int32_t>> back;  // target, source
    std::vector<int32_t> open;
    for (size_t i = 0; i < pairs.size(); ++i) {
      const State& s = pairs[i].state;
      if (s.kind == Kind::accept) open.push_back(int32_t(i));
      if (s.next >= 0) back.push_back({s.next, int32_t(i)});
      if (s.other >= 0) back.push_back({s.other, int32_t(i)});
    }
    std::sort(back.begin(), back.end());
    while (!open.empty()) {
      const int32_t target = open.back();
      open.pop_back();
      if (pairs[size_t(target)].live) continue;
      pairs[size_t(target)].live = true;
      for (auto it = std::lower_bound(back.begin(), back.end(), std::pair(target, int32_t(0)));
           it != back.end() && it->first == target; ++it)
        open.push_back(it->second);
    }
  }

  const CharNfa &a_, &b_;
  std::unordered_map<uint64_t, int32_t> ids_;
};

}  // namespace

int32_t CharNfa::emit(State state) {
  if (states.size() >= kMaxNfaStates) failTooLarge();
  states.push_back(state);
  return int32_t(states.size() - 1);
}

int32_t CharNfa::range(int32_t first, int32_t last, int32_t next) {
  return next == kDead ? kDead : emit({Kind::range, first, last, next, kDead});
}

int32_t CharNfa::split(int32_t a, int32_t b) {
  return a == kDead ? b : b == kDead ? a : emit({Kind::split, 0, 0, a, b});
}

bool CharNfa::accepts(int32_t state) const {
  if (state == kDead) return false;
  std::vector<int32_t> open{state};
  std::vector<bool> seen(states.size());
  while (!open.empty()) {
    const int32_t at = open.back();
    open.pop_back();
    if (at == kAccept) return true;
    if (seen[size_t(at)] || states[size_t(at)].kind != Kind::split) continue;
    seen[size_t(at)] = true;
    open.push_back(states[size_t(at)].next);
    open.push_back(states[size_t(at)].other);
  }
  return false;
}

int32_t CharNfa::product(const CharNfa& a, int32_t aStart, const CharNfa& b, int32_t bStart, int32_t next) {
  if (aStart == kDead || bStart == kDead || next == kDead) return kDead;
  Pairs found(a, b);
  found.explore(aStart, bStart);
  explored += found.pairs.size();
  if (!found.pairs[0].live) return kDead;
  std::vector<int32_t> place(found.pairs.size(), kDead);
  for (size_t i = 0; i < place.size(); ++i) {
    const Pairs::Pair& pair = found.pairs[i];
    if (pair.live) place[i] = pair.state.kind == Kind::accept ? next : emit(pair.state);
  }
  const auto placed = [&](int32_t pair) { return pair < 0 ? kDead : place[size_t(pair)]; };
  for (size_t i = 0; i < place.size(); ++i) {
    const State& from = found.pairs[i].state;
    if (!found.pairs[i].live || from.kind == Kind::accept) continue;
    State& to = states[size_t(place[i])];
    to.next = placed(from.next);
    if (from.kind == Kind::range) continue;
    to.other = placed(from.other);
    if (to.next == kDead) to.next = to.other;
    if (to.other == kDead) to.other = to.next;
  }
  return place[0];
}

int32_t CharNfa::escaped(const CharNfa& text, int32_t start, int32_t next) {
  if (start == kDead || next == kDead) return kDead;
  // each state's place first, as they may lead back
  std::vector<int32_t> place(text.states.size());
  for (size_t i = 0; i < place.size(); ++i)
    place[i] = text.states[i].kind == Kind::accept ? next : emit({Kind::split, 0, 0, next, next});
  for (size_t i = 0; i < place.size(); ++i) {
    const State s = text.states[i];
    if (s.kind == Kind::accept) continue;
    int32_t a = kDead;
    if (s.kind == Kind::split) {
      a = split(place[size_t(s.next)], place[size_t(s.other)]);
    } else {
      const int32_t then = place[size_t(s.next)];
      int32_t from = s.first;
      for (int32_t c = s.first; c <= std::min<int32_t>(s.last, '\\'); ++c) {
        const char brief = shortEscape(c);
        if (c >= 0x20 && !brief) continue;
        if (from < c) a = split(range(from, c - 1, then), a);
        from = c + 1;
        int32_t spelt = then;
        if (brief) {
          spelt = range(brief, brief, spelt);
        } else {
          const char low = "0123456789abcdef"[c & 15];
          spelt = range(low, low, spelt);
          spelt = range('0' + (c >> 4), '0' + (c >> 4), spelt);
          for (const char digit : {'0', '0', 'u'}) spelt = range(digit, digit, spelt);
        }
        a = split(range('\\', '\\', spelt), a);
      }
      if (from <= s.last) a = split(range(from, s.last, then), a);
    }
    states[size_t(place[i])].next = states[size_t(place[i])].other = a;
  }
  return place[size_t(start)];
}

int32_t CharNfa::multiple(int32_t divisor, int32_t next) {
  if (next == kDead) return kDead;
  // the remainder of the digits so far; 0 may end
  std::vector<int32_t> after, begin;
  for (int32_t r = 0; r < divisor; ++r) after.push_back(emit({Kind::split, 0, 0, next, next}));
  for (int32_t r = 0; r < divisor; ++r) {
    int32_t digits = kDead;
    for (int32_t d = 0; d < 10; ++d)
      digits = split(range('0' + d, '0' + d, after[size_t((10 * r + d) % divisor)]), digits);
    begin.push_back(digits);
    states[size_t(after[size_t(r)])].next = digits;
    states[size_t(after[size_t(r)])].other = r == 0 ? next : digits;
  }
  return begin[0];
}

namespace {

// The deterministic automaton of an NFA: its states are sets of the NFA's.
class Subsets {
 public:
  Subsets(const CharNfa& nfa, int32_t start) : nfa_(nfa), cuts_(cutsOf(nfa)), seen_(nfa.states.size()) {
    idOf({start});
    for (size_t i = 0; i < sets_.size(); ++i) addMoves(i);
  }
  // What it does not take.
  Complement complement() const;

 private:
  static std::vector<int32_t> cutsOf(const CharNfa& nfa);
  int32_t idOf(std::vector<int32_t> open);
  void addMoves(size_t set);

  const CharNfa& nfa_;
  const std::vector<int32_t> cuts_;  // where a range begins or has ended: between two, all characters are alike
  std::map<std::vector<int32_t>, int32_t> ids_;
  std::vector<const std::vector<int32_t>*> sets_;
  std::vector<std::vector<State>> moves_;  // of each set; `next`: a set
  std::vector<uint32_t> seen_;
  uint32_t round_ = 0;
  size_t work_ = 0;
};

std::vector<int32_t> Subsets::cutsOf(const CharNfa& nfa) {
  std::vector<int32_t> cuts{0, kMaxCode + 1};
  for (const State& s : nfa.states)
    if (s.kind == Kind::range) {
      cuts.push_back(s.first);
      cuts.push_back(s.last + 1);
    }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  return cuts;
}

// The set that is reached without a character from the states of `open`.
int32_t Subsets::idOf(std::vector<int32_t> open) {
  ++round_;
  std::vector<int32_t> set;
  while (!open.empty()) {
    const int32_t at = open.back();
    open.pop_back();
    if (at < 0 || seen_[size_t(at)] == round_) continue;
    seen_[size_t(at)] = round_;
    ++work_;
    const State& s = nfa_.states[size_t(at)];
    if (s.kind != Kind::split) set.push_back(at);
    else open.insert(open.end(), {s.next, s.other});
  }
  std::sort(set.begin(), set.end());
  const auto [it, fresh] = ids_.emplace(std::move(set), int32_t(sets_.size()));
  if (fresh) sets_.push_back(&it->first);
  if (sets_.size() > kMaxComplementStates || ++work_ > kMaxComplementWork)
    fail(Code::invalidOption, "A negative lookahead of the regular expression is too complex");
  return it->second;
}

void Subsets::addMoves(size_t i) {
  moves_.emplace_back();
  for (size_t c = 0; c + 1 < cuts_.size(); ++c) {
    std::vector<int32_t> open;
    work_ += sets_[i]->size();
    for (const int32_t at : *sets_[i]) {
      const State& s = nfa_.states[size_t(at)];
      if (s.kind == Kind::range && s.first <= cuts_[c] && cuts_[c] <= s.last) open.push_back(s.next);
    }
    const int32_t next = idOf(std::move(open));
    std::vector<State>& moves = moves_[i];
    if (!moves.empty() && moves.back().next == next) moves.back().last = cuts_[c + 1] - 1;
    else moves.push_back({Kind::range, cuts_[c], cuts_[c + 1] - 1, next, CharNfa::kDead});
  }
}

Complement Subsets::complement() const {
  Complement result{{}, CharNfa::kDead};
  CharNfa& out = result.nfa;
  std::vector<int32_t> place;
  for (size_t i = 0; i < sets_.size(); ++i) {
    out.states.push_back({Kind::split, 0, 0, CharNfa::kAccept, CharNfa::kAccept});
    place.push_back(int32_t(out.states.size() - 1));
  }
  for (size_t i = 0; i < sets_.size(); ++i) {
    const bool ends = std::binary_search(sets_[i]->begin(), sets_[i]->end(), CharNfa::kAccept);
    int32_t all = ends ? CharNfa::kDead : CharNfa::kAccept;
    for (const State& move : moves_[i])
      all = out.split(out.range(move.first, move.last, place[size_t(move.next)]), all);
    out.states[size_t(place[i])].next = out.states[size_t(place[i])].other = all;
  }
  result.start = place[0];
  return result;
}

}  // namespace

Complement complement(const CharNfa& nfa, int32_t start) { return Subsets(nfa, start).complement(); }

namespace {

class BytesWriter {
 public:
  ByteNfa nfa;

  // Characters whose encodings differ only in the range of each byte become one chain; others are cut until they do.
  void utf8(CharRange r, int32_t next) {
    if (r.first > r.last) return;
    for (const int32_t limit : {0x7F, 0x7FF, 0xFFFF})
      if (r.first <= limit && r.last > limit) {
        utf8({r.first, limit}, next);
        return utf8({limit + 1, r.last}, next);
      }
    if (r.last <= 0x7F) {
      starts.push_back(bytes(r.first, r.last, next));
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
    starts.push_back(bytes(lead | r.first >> (6 * (length - 1)), lead | r.last >> (6 * (length - 1)), next));
  }

  int32_t emit(ByteNfa::State state) {
    if (nfa.states.size() >= kMaxNfaStates) failTooLarge();
    nfa.states.push_back(state);
    return int32_t(nfa.states.size() - 1);
  }

  std::vector<int32_t> starts;

 private:
  int32_t bytes(int32_t first, int32_t last, int32_t next) {
    return emit({ByteNfa::State::Kind::range, {uint8_t(first), uint8_t(last), next}, -1});
  }
};

}  // namespace

ByteNfa toBytes(const CharNfa& nfa, int32_t start) {
  BytesWriter out;
  using ByteKind = ByteNfa::State::Kind;
  // the states keep their numbers
  for (const State& s : nfa.states) {
    if (s.kind == Kind::accept) out.emit({ByteKind::accept, {0, 0, -1}, -1});
    else if (s.kind == Kind::split) out.emit({ByteKind::split, {0, 0, s.next}, s.other});
    else out.emit({ByteKind::range, {uint8_t(s.first), uint8_t(s.last), s.next}, -1});
  }
  for (size_t i = 0; i < nfa.states.size(); ++i) {
    const State& s = nfa.states[i];
    if (s.kind != Kind::range || s.last <= 0x7F) continue;
    out.starts.clear();
    out.utf8({s.first, std::min(s.last, 0xD7FF)}, s.next);
    out.utf8({std::max(s.first, 0xE000), s.last}, s.next);
    if (out.starts.empty()) {  // nothing but halves of surrogate pairs, which are no characters
      out.nfa.states[i] = {ByteKind::range, {1, 0, s.next}, -1};
      continue;
    }
    int32_t all = out.starts.back();
    for (size_t k = out.starts.size() - 1; k-- > 1;) all = out.emit({ByteKind::split, {0, 0, out.starts[k]}, all});
    out.nfa.states[i] = {ByteKind::split, {0, 0, out.starts[0]}, all};
  }
  out.nfa.start = start;
  return std::move(out.nfa);
}

}  // namespace pg
