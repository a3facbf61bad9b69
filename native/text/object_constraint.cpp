#include "text/object_constraint.h"

#include <algorithm>

#include "base/error.h"
#include "base/object_tokens.h"

namespace pg {
namespace {

void sortUnique(std::vector<int32_t>& ids) {
  if (!std::is_sorted(ids.begin(), ids.end())) std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
}

bool isBlank(std::string_view text) { return text.find_first_not_of(' ') == std::string_view::npos; }

}  // namespace

ObjectConstraint::ObjectConstraint(const Tokenizer& tokenizer, const ConstraintSpec& spec)
    : eos_(tokenizer.eos()),
      firstLoc_(tokenizer.firstLoc()),
      firstSeg_(tokenizer.firstSeg()),
      maxObjects_(spec.maxObjects),
      segment_(spec.kind == ConstraintSpec::Kind::segment),
      anyLabel_(spec.labels.empty()),
      eosOnly_{tokenizer.eos()} {
  if (spec.kind == ConstraintSpec::Kind::none) fail(Code::internal, "A constraint of kind none constrains nothing");
  if (spec.maxObjects < 0)
    fail(Code::invalidOption, "Expected an integer >= 0 for maxObjects but received ", spec.maxObjects);
  if (firstLoc_ < 0)
    fail(Code::modelUnsupported,
         "The model's vocabulary has no tokens <loc0000>..<loc1023>, so its output cannot be held to boxes");
  if (segment_ && firstSeg_ < 0)
    fail(Code::modelUnsupported,
         "The model's vocabulary has no tokens <seg000>..<seg127>, so its output cannot be held to masks");

  for (int32_t i = 0; i < kLocations; ++i) locs_.push_back(firstLoc_ + i);
  if (segment_)
    for (int32_t i = 0; i < kMaskCodebook; ++i) segs_.push_back(firstSeg_ + i);
  begin_.push_back(eos_);  // first, where its id usually is: a thousand ids need no sorting then
  begin_.insert(begin_.end(), locs_.begin(), locs_.end() - 1);  // something larger must remain for the other corner
  sortUnique(begin_);
  if (anyLabel_) {
    collectText(tokenizer);
  } else {
    nodes_.resize(1);
    for (const std::string& label : spec.labels) addLabel(tokenizer, label);
    finishTrie();
  }
}

void ObjectConstraint::addLabel(const Tokenizer& tokenizer, const std::string& label) {
  const size_t begin = label.find_first_not_of(" \t\r\n"), last = label.find_last_not_of(" \t\r\n");
  const std::string name = begin == std::string::npos ? "" : label.substr(begin, last - begin + 1);
  // what the output's grammar gives a meaning
  const bool good = !name.empty() && name.find_first_of(";<>\n\r") == std::string::npos &&
                    insert(tokenizer.encode(" " + name), true) && insert(tokenizer.encode(" " + name + " ; "), false);
  if (!good)
    fail(Code::invalidOption, "Expected labels to be names without ';', '<', '>' and line breaks but received \"",
         label, "\"");
}

bool ObjectConstraint::insert(const std::vector<int32_t>& ids, bool endsText) {
  int32_t node = 0;
  for (const int32_t id : ids) {
    if (id == eos_ || (id >= firstLoc_ && id < firstLoc_ + kLocations)) return false;
    auto& children = nodes_[size_t(node)].children;
    const auto found =
        std::find_if(children.begin(), children.end(), [&](const auto& child) { return child.first == id; });
    if (found != children.end()) {
      node = found->second;
    } else {
      const int32_t made = int32_t(nodes_.size());
      children.emplace_back(id, made);
      node = made;
      nodes_.emplace_back();
    }
  }
  (endsText ? nodes_[size_t(node)].endsText : nodes_[size_t(node)].endsObject) = true;
  return true;
}

void ObjectConstraint::finishTrie() {
  std::vector<bool> leadsToEnd(nodes_.size());
  for (size_t i = nodes_.size(); i-- > 0;) {  // children stand behind their parent
    Node& node = nodes_[i];
    leadsToEnd[i] = node.endsText;
    for (const auto& [id, child] : node.children) {
      node.allowed.push_back(id);
      if (!leadsToEnd[size_t(child)]) continue;
      leadsToEnd[i] = true;
      node.allowedLast.push_back(id);
    }
    if (node.endsObject) node.allowed.insert(node.allowed.end(), locs_.begin(), locs_.end() - 1);
    if (node.endsText) {
      node.allowed.push_back(eos_);
      node.allowedLast.push_back(eos_);
    }
    sortUnique(node.allowed);
    sortUnique(node.allowedLast);
  }
}

// Without labels a name is any text that the output's grammar does not give a meaning.
void ObjectConstraint::collectText(const Tokenizer& tokenizer) {
  spaces_.resize(size_t(tokenizer.size()));
  for (int32_t id = 0; id < tokenizer.size(); ++id) {
    const std::string_view bytes = tokenizer.pieceBytes(id);
    if (id == eos_) {
      textEnd_.push_back(id);
      textMore_.push_back(id);
    }
    if (bytes.empty() || id == tokenizer.unk() || tokenizer.isEndOfGeneration(id)) continue;
    const size_t semicolon = bytes.find(';');
    if (semicolon != std::string_view::npos) {
      if (!isBlank(bytes.substr(0, semicolon)) || !isBlank(bytes.substr(semicolon + 1))) continue;
      separators_.push_back(id);
    } else {
      if (bytes.find_first_of("<>\n\r") != std::string_view::npos) continue;
      text_.push_back(id);
      textEnd_.push_back(id);
    }
    textMore_.push_back(id);
    spaces_[size_t(id)] = isBlank(bytes) ? kBlank : bytes.back() == ' ' ? kEndsBlank : kVisible;
  }
  separatorRest_ = tokenizer.encode(" ");
  separatorRest_.insert(separatorRest_.end(), locs_.begin(), locs_.end() - 1);
  sortUnique(separatorRest_);
}

std::span<const int32_t> ObjectConstraint::allowed() const { return allowedIn(state_); }

std::span<const int32_t> ObjectConstraint::allowedIn(const State& state) const {
  const std::span<const int32_t> locs(locs_);
  switch (state.phase) {
    case Phase::start: return begin_;
    case Phase::x0: return locs.first(kLocations - 1);
    case Phase::y1: return locs.subspan(size_t(state.y0) + 1);
    case Phase::x1: return locs.subspan(size_t(state.x0) + 1);
    case Phase::seg: return segs_;
    case Phase::label: {
      const Node& node = nodes_[size_t(state.node)];
      return mayContinue(state) ? node.allowed : node.allowedLast;
    }
    // a mask without a name is what referring segmentation was trained to give
    case Phase::name: return !state.named && !segment_ ? text_ : mayContinue(state) ? textMore_ : textEnd_;
    case Phase::separator: return state.spaced ? locs.first(kLocations - 1) : std::span<const int32_t>(separatorRest_);
    case Phase::end: break;
  }
  return eosOnly_;
}

void ObjectConstraint::accept(int32_t id) {
  const auto ids = allowed();
  if (!std::binary_search(ids.begin(), ids.end(), id))
    fail(Code::internal, "Token ", id, " is not allowed by the constraint here");
  step(state_, id);
}

void ObjectConstraint::step(State& state, int32_t id) const {
  if (id == eos_) {
    state.phase = Phase::end;
    return;
  }
  const int32_t loc = id - firstLoc_;
  const bool isLoc = loc >= 0 && loc < kLocations;
  switch (state.phase) {
    case Phase::x0:
      state.x0 = loc;
      state.phase = Phase::y1;
      return;
    case Phase::y1: state.phase = Phase::x1; return;
    case Phase::x1:
      state.segs = state.node = 0;
      state.named = state.spaced = false;
      state.phase = segment_ ? Phase::seg : anyLabel_ ? Phase::name : Phase::label;
      return;
    case Phase::seg:
      if (++state.segs == kMaskCodes) state.phase = anyLabel_ ? Phase::name : Phase::label;
      return;
    case Phase::label:
      if (isLoc) break;
      for (const auto& [token, child] : nodes_[size_t(state.node)].children)
        if (token == id) state.node = child;
      return;
    case Phase::name:
      if (std::binary_search(separators_.begin(), separators_.end(), id)) {
        state.phase = Phase::separator;
        state.spaced = spaces_[size_t(id)] == kEndsBlank;
      } else {
        state.named |= spaces_[size_t(id)] != kBlank;
      }
      return;
    case Phase::separator:
      if (isLoc) break;
      state.spaced = true;
      return;
    case Phase::start: break;
    case Phase::end: return;
  }
  // the first corner of a further object
  ++state.objects;
  state.y0 = loc;
  state.phase = Phase::x0;
}

std::vector<int32_t> ObjectConstraint::forced() const {
  std::vector<int32_t> run;
  State state = state_;
  while (state.phase != Phase::end) {
    const auto ids = allowedIn(state);
    if (ids.size() != 1) break;
    run.push_back(ids[0]);
    step(state, ids[0]);
  }
  return run;
}

}  // namespace pg
