#include "text/text_constraint.h"

#include <algorithm>

#include "base/error.h"

namespace pg {
namespace {

// A stretch of text without a choice is looked at so far ahead: longer ones are taken in pieces.
constexpr size_t kPlanBytes = 256;

bool continues(uint8_t byte) { return (byte & 0xC0) == 0x80; }

// False where the tokenizer has no pieces for some of the text.
bool writes(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, std::string_view text) {
  std::string written;
  for (const int32_t id : ids)
    if (id != tokenizer.unk()) written += tokenizer.pieceBytes(id);
  return written == text;
}

[[noreturn]] void failNotAllowed(int32_t id) {
  fail(Code::internal, "Token ", id, " is not allowed by the constraint here");
}

}  // namespace

// ---- choices ----

ChoiceConstraint::ChoiceConstraint(const Tokenizer& tokenizer, const std::vector<std::string>& choices) : nodes_(2) {
  if (choices.empty()) fail(Code::invalidOption, "Expected at least one text for choices but received none");
  nodes_[kEnd] = {{tokenizer.eos()}, {kEnd}};
  const auto add = [&](int32_t node, int32_t id, int32_t target) {
    auto& ids = nodes_[size_t(node)].allowed;
    auto& children = nodes_[size_t(node)].children;
    const auto place = std::lower_bound(ids.begin(), ids.end(), id) - ids.begin();
    if (size_t(place) < ids.size() && ids[size_t(place)] == id) return children[size_t(place)];
    ids.insert(ids.begin() + place, id);
    children.insert(children.begin() + place, target);
    return target;
  };
  for (const std::string& choice : choices) {
    if (choice.empty()) fail(Code::invalidOption, "Expected non-empty texts for choices but received \"\"");
    const std::vector<int32_t> ids = tokenizer.encode(choice);
    if (!writes(tokenizer, ids, choice))
      fail(Code::modelUnsupported, "The model's vocabulary cannot write the choice \"", choice, "\"");
    int32_t node = kRoot;
    for (const int32_t id : ids) {
      const int32_t fresh = int32_t(nodes_.size());
      node = add(node, id, fresh);
      if (node == fresh) nodes_.emplace_back();
    }
    add(node, tokenizer.eos(), kEnd);
  }
}

int32_t ChoiceConstraint::child(int32_t node, int32_t id) const {
  const Node& n = nodes_[size_t(node)];
  const auto found = std::lower_bound(n.allowed.begin(), n.allowed.end(), id);
  if (found == n.allowed.end() || *found != id) failNotAllowed(id);
  return n.children[size_t(found - n.allowed.begin())];
}

void ChoiceConstraint::accept(int32_t id) { node_ = child(node_, id); }

std::vector<int32_t> ChoiceConstraint::forced() const {
  std::vector<int32_t> run;
  for (int32_t node = node_; node != kEnd && nodes_[size_t(node)].allowed.size() == 1;) {
    run.push_back(nodes_[size_t(node)].allowed[0]);
    node = nodes_[size_t(node)].children[0];
  }
  return run;
}

// ---- regular expressions ----

TextConstraint::TextConstraint(const Tokenizer& tokenizer, std::shared_ptr<TextAutomaton> automaton)
    : tokenizer_(tokenizer), automaton_(std::move(automaton)) {
  prepare();
}

std::span<const int32_t> TextConstraint::allowed() const {
  if (nextPlanned_ < planned_.size()) return {planned_.data() + nextPlanned_, 1};
  return allowed_;
}

void TextConstraint::prepare() {
  if (nextPlanned_ < planned_.size()) return;
  plan();
  if (nextPlanned_ < planned_.size()) return;
  const int32_t eos = tokenizer_.eos();
  if (done_) {
    allowed_.assign(1, eos);
    return;
  }
  automaton_->allowed(state_, allowed_);
  if (automaton_->dfa.accepts(state_)) allowed_.insert(std::lower_bound(allowed_.begin(), allowed_.end(), eos), eos);
  if (allowed_.empty())
    fail(Code::modelUnsupported, "The model's vocabulary has no token for what the regular expression asks for next");
}

// Text that can only go on in one way is written as the tokenizer writes it, since that is what the model was trained
// on. Its last token is left open unless the text ends there: it may merge with what follows.
void TextConstraint::plan() {
  planned_.clear();
  nextPlanned_ = 0;
  if (done_) return;
  ByteDfa& dfa = automaton_->dfa;
  std::string text;
  int32_t state = state_;
  while (text.size() < kPlanBytes && !dfa.accepts(state)) {
    const int32_t byte = dfa.onlyByte(state);
    if (byte < 0) break;
    text.push_back(char(byte));
    state = dfa.step(state, uint8_t(byte));
  }
  const bool whole = dfa.accepts(state) && dfa.ends(state);
  if (text.empty() || continues(uint8_t(text[0]))) return;
  if (!whole) {
    // only complete characters
    size_t lead = text.size() - 1;
    while (lead > 0 && continues(uint8_t(text[lead]))) --lead;
    const uint8_t first = uint8_t(text[lead]);
    const size_t length = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (lead + length > text.size()) text.resize(lead);
  }
  planned_ = tokenizer_.encode(text);
  if (!writes(tokenizer_, planned_, text)) planned_.clear();
  if (!whole && !planned_.empty()) planned_.pop_back();
}

void TextConstraint::accept(int32_t id) {
  const auto ids = allowed();
  if (!std::binary_search(ids.begin(), ids.end(), id)) failNotAllowed(id);
  if (id == tokenizer_.eos()) {
    done_ = true;
  } else {
    for (const char byte : tokenizer_.pieceBytes(id)) state_ = automaton_->dfa.step(state_, uint8_t(byte));
    if (nextPlanned_ < planned_.size()) ++nextPlanned_;
  }
  prepare();
}

std::vector<int32_t> TextConstraint::forced() const {
  if (done_) return {};
  if (nextPlanned_ < planned_.size()) return {planned_.begin() + ptrdiff_t(nextPlanned_), planned_.end()};
  return allowed_.size() == 1 ? allowed_ : std::vector<int32_t>();
}

}  // namespace pg
