#pragma once
// Constraints on plain text: one of several given texts, or a regular expression.
#include <memory>
#include <string>
#include <vector>

#include "text/constraint.h"
#include "text/text_automaton.h"

namespace pg {

// The texts as the tokenizer writes them, in a trie of tokens.
class ChoiceConstraint final : public Constraint {
 public:
  ChoiceConstraint(const Tokenizer& tokenizer, const std::vector<std::string>& choices);

  std::span<const int32_t> allowed() const override { return nodes_[size_t(node_)].allowed; }
  void accept(int32_t id) override;
  std::vector<int32_t> forced() const override;
  bool done() const override { return node_ == kEnd; }

 private:
  static constexpr int32_t kRoot = 0, kEnd = 1;
  struct Node {
    std::vector<int32_t> allowed;     // ascending
    std::vector<int32_t> children;    // of each allowed id
  };
  int32_t child(int32_t node, int32_t id) const;

  std::vector<Node> nodes_;
  int32_t node_ = kRoot;
};

// Any spelling in tokens of a text that matches. Where the text has no choice, the tokenizer's own spelling is the only
// one.
class TextConstraint final : public Constraint {
 public:
  // The tokenizer must outlive it.
  TextConstraint(const Tokenizer& tokenizer, std::shared_ptr<TextAutomaton> automaton);

  std::span<const int32_t> allowed() const override;
  void accept(int32_t id) override;
  std::vector<int32_t> forced() const override;
  bool done() const override { return done_; }

 private:
  void prepare();  // planned_ or allowed_ of state_
  void plan();

  const Tokenizer& tokenizer_;
  std::shared_ptr<TextAutomaton> automaton_;
  int32_t state_ = ByteDfa::kStart;
  bool done_ = false;
  std::vector<int32_t> planned_;  // must come, in order
  size_t nextPlanned_ = 0;
  std::vector<int32_t> allowed_;  // where nothing is planned
};

}  // namespace pg
