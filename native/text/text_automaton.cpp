#include "text/text_automaton.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "base/error.h"

namespace pg {
namespace {

constexpr size_t kMaxDfaStates = 200000;
constexpr size_t kMaxDfaBytes = size_t(64) << 20;
constexpr uint64_t kMaxDfaWork = 200000000;   // NFA states looked at: about a second
constexpr size_t kMaskCacheBytes = size_t(32) << 20;   // a thousand masks of 32 KB

}  // namespace

// ---- vocabulary ----

VocabularyTrie::VocabularyTrie(const Tokenizer& tokenizer) {
  std::vector<std::pair<std::string_view, int32_t>> pieces;
  for (int32_t id = 0; id < tokenizer.size(); ++id) {
    const std::string_view bytes = tokenizer.pieceBytes(id);
    if (bytes.empty() || bytes.size() > 0xFFFF || id == tokenizer.unk() || tokenizer.isEndOfGeneration(id)) continue;
    pieces.emplace_back(bytes, id);
    ids_ = id + 1;
  }
  std::sort(pieces.begin(), pieces.end());

  std::string_view before;
  std::vector<int32_t> open;   // nodes of `before`
  const auto close = [&](size_t depth) {
    for (; open.size() > depth; open.pop_back()) nodes_[size_t(open.back())].end = int32_t(nodes_.size());
  };
  for (size_t i = 0, end; i < pieces.size(); i = end) {
    const std::string_view bytes = pieces[i].first;
    for (end = i + 1; end < pieces.size() && pieces[end].first == bytes;) ++end;
    const size_t common =
        size_t(std::mismatch(before.begin(), before.end(), bytes.begin(), bytes.end()).second - bytes.begin());
    close(common);
    for (size_t depth = common; depth < bytes.size(); ++depth) {
      open.push_back(int32_t(nodes_.size()));
      nodes_.push_back({0, int32_t(tokens_.size()), uint16_t(depth), uint8_t(bytes[depth])});
    }
    maxDepth_ = std::max(maxDepth_, int32_t(bytes.size()));
    before = bytes;
    if (end - i > 1) {
      const std::vector<int32_t> usual = tokenizer.encode(bytes);
      const auto same = [&](const auto& piece) { return usual.size() == 1 && piece.second == usual[0]; };
      if (std::any_of(pieces.begin() + ptrdiff_t(i), pieces.begin() + ptrdiff_t(end), same)) {
        tokens_.push_back(usual[0]);
        continue;
      }
    }
    for (size_t k = i; k < end; ++k) tokens_.push_back(pieces[k].second);
  }
  close(0);
  nodes_.push_back({int32_t(nodes_.size()) + 1, int32_t(tokens_.size()), 0, 0});
}

// ---- bytes ----

size_t ByteDfa::Hash::operator()(const std::vector<int32_t>& set) const {
  uint64_t hash = 0xcbf29ce484222325;
  for (const int32_t v : set) hash = (hash ^ uint32_t(v)) * 0x100000001b3;
  return size_t(hash ^ hash >> 32);
}

ByteDfa::ByteDfa(std::string_view pattern, RegexSyntax syntax) : nfa_(compileRegex(pattern, syntax)) {
  // bytes that no range tells apart behave alike
  bool begins[257] = {true};
  for (const ByteNfa::State& s : nfa_.states)
    if (s.kind == ByteNfa::State::Kind::range) begins[s.range.first] = begins[s.range.last + 1] = true;
  for (int byte = 0; byte < 256; ++byte) {
    if (begins[byte]) {
      example_.push_back(uint8_t(byte));
      classSize_.push_back(0);
    }
    classOf_[byte] = uint8_t(example_.size() - 1);
    ++classSize_.back();
  }
  classes_ = int32_t(example_.size());
  seen_.resize(nfa_.states.size());
  stateOf({nfa_.start});
}

int32_t ByteDfa::stateOf(std::vector<int32_t> open) {
  ++round_;
  std::vector<int32_t> set;
  bool accepting = false;
  while (!open.empty()) {
    const int32_t index = open.back();
    open.pop_back();
    if (seen_[size_t(index)] == round_) continue;
    seen_[size_t(index)] = round_;
    ++work_;
    const ByteNfa::State& s = nfa_.states[size_t(index)];
    switch (s.kind) {
      case ByteNfa::State::Kind::accept: accepting = true; break;
      case ByteNfa::State::Kind::range: set.push_back(index); break;
      case ByteNfa::State::Kind::split:
        open.push_back(s.other);
        open.push_back(s.range.next);
        break;
    }
  }
  if (set.empty() && !accepting) return kDead;
  std::sort(set.begin(), set.end());
  if (accepting) set.push_back(-1);
  if (const auto found = ids_.find(set); found != ids_.end()) return found->second;
  // others may use this automaton too: an error leaves it as it was
  const size_t state = ids_.size();
  const size_t bytes = bytes_ + set.size() * sizeof(int32_t) + size_t(classes_) * sizeof(int32_t);
  if (state >= kMaxDfaStates || bytes > kMaxDfaBytes || work_ > kMaxDfaWork)
    fail(Code::invalidOption, "The regular expression or schema is too complex for this text: it leads to more than ",
         state, " states. Make alternatives differ earlier and lower the numbers of repetitions");
  bytes_ = bytes;
  next_.resize((state + 1) * size_t(classes_), kUnknown);
  accepts_.resize(state + 1);
  sets_.resize(state + 1);
  accepts_[state] = accepting;
  sets_[state] = &ids_.emplace(std::move(set), int32_t(state)).first->first;
  return int32_t(state);
}

int32_t ByteDfa::build(int32_t state, uint8_t byte) {
  std::vector<int32_t> open;
  for (const int32_t index : *sets_[size_t(state)]) {
    if (index < 0) continue;
    const ByteRange& range = nfa_.states[size_t(index)].range;
    if (range.first <= byte && byte <= range.last) open.push_back(range.next);
  }
  const int32_t next = open.empty() ? kDead : stateOf(std::move(open));
  return next_[size_t(state) * size_t(classes_) + classOf_[byte]] = next;
}

int32_t ByteDfa::onlyByte(int32_t state) {
  int32_t only = -1;
  for (int32_t c = 0; c < classes_; ++c) {
    if (step(state, example_[size_t(c)]) == kDead) continue;
    if (only >= 0 || classSize_[size_t(c)] > 1) return -1;
    only = example_[size_t(c)];
  }
  return only;
}

bool ByteDfa::ends(int32_t state) {
  return std::none_of(example_.begin(), example_.end(), [&](uint8_t byte) { return step(state, byte) != kDead; });
}

// ---- both ----

void TextAutomaton::allowed(int32_t state, std::vector<int32_t>& ids) {
  ids.clear();
  auto found = masks_.find(state);
  if (found == masks_.end()) {
    const auto& nodes = trie_->nodes();
    const auto& tokens = trie_->tokens();
    path_.resize(size_t(trie_->maxDepth()) + 1);
    path_[0] = state;
    size_t count = 0;
    bits_.assign((size_t(trie_->ids()) + 63) / 64, 0);
    for (size_t i = 0; i + 1 < nodes.size();) {
      const VocabularyTrie::Node& node = nodes[i];
      const int32_t next = dfa.step(path_[node.depth], node.byte);
      if (next == ByteDfa::kDead) {
        i = size_t(node.end);
        continue;
      }
      path_[size_t(node.depth) + 1] = next;
      const int32_t end = nodes[i + 1].firstToken;
      for (int32_t t = node.firstToken; t < end; ++t, ++count)
        bits_[size_t(tokens[size_t(t)]) / 64] |= uint64_t(1) << (tokens[size_t(t)] % 64);
      ++i;
    }
    Mask mask;
    if (count * 32 < bits_.size() * 64) {
      mask.ids.reserve(count);
      for (size_t w = 0; w < bits_.size(); ++w)
        for (uint64_t bits = bits_[w]; bits; bits &= bits - 1)
          mask.ids.push_back(int32_t(w * 64) + std::countr_zero(bits));
    } else {
      mask.bits = bits_;
    }
    const size_t bytes = mask.ids.size() * 4 + mask.bits.size() * 8;
    if (maskBytes_ + bytes > kMaskCacheBytes) {
      masks_.clear();
      maskBytes_ = 0;
    }
    maskBytes_ += bytes;
    found = masks_.emplace(state, std::move(mask)).first;
  }
  const Mask& mask = found->second;
  ids.assign(mask.ids.begin(), mask.ids.end());
  for (size_t w = 0; w < mask.bits.size(); ++w)
    for (uint64_t bits = mask.bits[w]; bits; bits &= bits - 1) ids.push_back(int32_t(w * 64) + std::countr_zero(bits));
}

}  // namespace pg
