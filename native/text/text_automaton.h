#pragma once
// Which tokens may continue a text that has to match a regular expression: a deterministic automaton over bytes, built
// as far as it is visited, and the vocabulary as a trie of bytes, walked once per state.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "text/regex.h"
#include "text/tokenizer.h"

namespace pg {

// All tokens that stand for bytes, in depth-first order. Control tokens are left out; so is a byte token where the
// tokenizer writes the same byte with another piece.
class VocabularyTrie {
 public:
  explicit VocabularyTrie(const Tokenizer& tokenizer);   // about 0.2 s for PaliGemma's 257 thousand pieces

  struct Node {
    int32_t end;          // the node after this one's descendants
    int32_t firstToken;   // in tokens; the next node's is the end
    uint16_t depth;       // bytes before this one
    uint8_t byte;
  };
  const std::vector<Node>& nodes() const { return nodes_; }         // one more at the end
  const std::vector<int32_t>& tokens() const { return tokens_; }    // those that end at each node
  int32_t maxDepth() const { return maxDepth_; }
  int32_t ids() const { return ids_; }                              // one more than the largest id

 private:
  std::vector<Node> nodes_;
  std::vector<int32_t> tokens_;
  int32_t maxDepth_ = 0, ids_ = 0;
};

class ByteDfa {
 public:
  static constexpr int32_t kDead = -1, kStart = 0;

  explicit ByteDfa(std::string_view pattern, RegexSyntax syntax = RegexSyntax::user);

  int32_t step(int32_t state, uint8_t byte) {
    const int32_t next = next_[size_t(state) * size_t(classes_) + classOf_[byte]];
    return next == kUnknown ? build(state, byte) : next;
  }
  bool accepts(int32_t state) const { return accepts_[size_t(state)]; }
  // The byte that must come, -1 where there is a choice or none.
  int32_t onlyByte(int32_t state);
  bool ends(int32_t state);                // nothing may come
  size_t states() const { return ids_.size(); }
  size_t bytes() const { return bytes_; }  // of what was built

 private:
  static constexpr int32_t kUnknown = -2;
  struct Hash {
    size_t operator()(const std::vector<int32_t>& set) const;
  };
  int32_t build(int32_t state, uint8_t byte);
  int32_t stateOf(std::vector<int32_t> starts);   // their closure

  ByteNfa nfa_;
  int32_t classes_ = 0;
  uint8_t classOf_[256];
  std::vector<uint8_t> example_;                  // [classes] a byte of each
  std::vector<int32_t> classSize_;
  std::vector<int32_t> next_;                     // [states, classes]
  std::vector<bool> accepts_;
  std::vector<const std::vector<int32_t>*> sets_; // range states of the NFA
  std::unordered_map<std::vector<int32_t>, int32_t, Hash> ids_;   // the accepting state marked with -1
  std::vector<uint32_t> seen_;
  uint32_t round_ = 0;
  size_t bytes_ = 0;
  uint64_t work_ = 0;
};

// One pattern over one vocabulary; shared by all requests with this pattern.
class TextAutomaton {
 public:
  TextAutomaton(std::shared_ptr<const VocabularyTrie> trie, std::string_view pattern, RegexSyntax syntax)
      : dfa(pattern, syntax), trie_(std::move(trie)) {}

  ByteDfa dfa;
  // Ids whose bytes may come in this state, ascending, into `ids`.
  void allowed(int32_t state, std::vector<int32_t>& ids);

 private:
  struct Mask {
    std::vector<int32_t> ids;       // few
    std::vector<uint64_t> bits;     // many
  };
  std::shared_ptr<const VocabularyTrie> trie_;
  std::unordered_map<int32_t, Mask> masks_;
  size_t maskBytes_ = 0;
  std::vector<int32_t> path_;       // [depth + 1] states along a walk
  std::vector<uint64_t> bits_;
};

}  // namespace pg
