#include "text/constraint.h"

#include "base/error.h"
#include "text/object_constraint.h"
#include "text/text_constraint.h"

namespace pg {
namespace {

constexpr size_t kRecent = 8;              // patterns whose automata are kept
constexpr size_t kMaxKeptBytes = size_t(8) << 20;  // an automaton that grew larger is made anew for the next request

}  // namespace

struct ConstraintFactory::Recent {
  std::string pattern;
  RegexSyntax syntax;
  std::shared_ptr<TextAutomaton> automaton;
};

ConstraintFactory::ConstraintFactory(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
ConstraintFactory::~ConstraintFactory() = default;

std::unique_ptr<Constraint> ConstraintFactory::make(const ConstraintSpec& spec) {
  switch (spec.kind) {
    case ConstraintSpec::Kind::none: break;
    case ConstraintSpec::Kind::detect:
    case ConstraintSpec::Kind::segment: return std::make_unique<ObjectConstraint>(tokenizer_, spec);
    case ConstraintSpec::Kind::choices: return std::make_unique<ChoiceConstraint>(tokenizer_, spec.choices);
    case ConstraintSpec::Kind::regex:
      return std::make_unique<TextConstraint>(tokenizer_, automaton(spec.pattern, RegexSyntax::user));
    case ConstraintSpec::Kind::schema:
      return std::make_unique<TextConstraint>(tokenizer_, automaton(spec.pattern, RegexSyntax::schema));
  }
  fail(Code::internal, "A constraint of kind none constrains nothing");
}

std::shared_ptr<TextAutomaton> ConstraintFactory::automaton(const std::string& pattern, RegexSyntax syntax) {
  std::erase_if(recent_, [](const Recent& r) { return r.automaton->dfa.bytes() > kMaxKeptBytes; });
  for (auto it = recent_.begin(); it != recent_.end(); ++it)
    if (it->pattern == pattern && it->syntax == syntax) {
      recent_.splice(recent_.begin(), recent_, it);
      return it->automaton;
    }
  if (!trie_) trie_ = std::make_shared<VocabularyTrie>(tokenizer_);
  recent_.push_front({pattern, syntax, std::make_shared<TextAutomaton>(trie_, pattern, syntax)});
  if (recent_.size() > kRecent) recent_.pop_back();
  return recent_.front().automaton;
}

}  // namespace pg
