#pragma once
// What a generated text may be, as an automaton over tokens: the same four questions whatever the grammar.
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "text/regex.h"
#include "text/tokenizer.h"

namespace pg {

struct ConstraintSpec {
  enum class Kind { none, detect, segment, choices, regex, schema } kind = Kind::none;
  std::vector<std::string> labels;   // what a name may be; empty = any text without control or location tokens
  int32_t maxObjects = 0;            // 0 = no limit
  std::vector<std::string> choices;  // the whole texts to choose from
  std::string pattern;               // what the whole text matches; syntax: regex.h
};

class Constraint {
 public:
  virtual ~Constraint() = default;

  // Ids that may come next, ascending; never empty (after the end: eos alone). Valid until accept.
  virtual std::span<const int32_t> allowed() const = 0;
  virtual void accept(int32_t id) = 0;             // one of allowed()
  // The tokens that must follow because there is no other choice, eos included; empty where there is one.
  virtual std::vector<int32_t> forced() const = 0;
  virtual bool done() const = 0;                   // eos has come
  // Whether the next token's probability says something about the result (see Generate::scoredOnly).
  virtual bool scored() const { return true; }
};

class TextAutomaton;
class VocabularyTrie;

// Makes constraints for one model and keeps what they can share. For one thread, as they are.
class ConstraintFactory {
 public:
  explicit ConstraintFactory(const Tokenizer& tokenizer);   // must outlive it and what it makes
  ~ConstraintFactory();

  // Fails with invalidOption or modelUnsupported.
  std::unique_ptr<Constraint> make(const ConstraintSpec& spec);

 private:
  struct Recent;
  std::shared_ptr<TextAutomaton> automaton(const std::string& pattern, RegexSyntax syntax);

  const Tokenizer& tokenizer_;
  std::shared_ptr<const VocabularyTrie> trie_;   // made when the first regular expression comes
  std::list<Recent> recent_;                     // latest first
};

}  // namespace pg
