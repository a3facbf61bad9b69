#pragma once
// What detect and segment may say, as an automaton over tokens:
//   nothing, or objects separated by " ; ", each
//   <locY0><locX0><locY1><locX1> [16 x <seg>] " " label        with y1 > y0 and x1 > x0, then eos.
#include <cstdint>
#include <span>
#include <vector>

#include "text/constraint.h"

namespace pg {

class ObjectConstraint final : public Constraint {
 public:
  // The tokenizer must outlive it. Fails with modelUnsupported where the vocabulary lacks the tokens and with
  // invalidOption for labels that cannot be a name.
  ObjectConstraint(const Tokenizer& tokenizer, const ConstraintSpec& spec);

  std::span<const int32_t> allowed() const override;
  void accept(int32_t id) override;
  std::vector<int32_t> forced() const override;
  bool done() const override { return state_.phase == Phase::end; }
  // The 16 mask codes say little about whether the object is there, and neighbouring ones mean nearly the same mask.
  bool scored() const override { return state_.phase != Phase::seg; }

 private:
  enum class Phase : uint8_t { start, x0, y1, x1, seg, label, name, separator, end };
  struct State {
    Phase phase = Phase::start;
    bool named = false;              // free text: something visible has come
    bool spaced = false;             // free text: the separator's last space has come
    int32_t y0 = 0, x0 = 0;          // 0..1023
    int32_t segs = 0;                // seg codes so far
    int32_t objects = 0;             // begun so far
    int32_t node = 0;                // in the trie
  };
  // Labels as token sequences: " label" before eos, " label ; " before the next object. The model was trained on whole
  // outputs, so each continuation is tokenized as a whole: merges may cross the end of the label.
  struct Node {
    std::vector<std::pair<int32_t, int32_t>> children;  // token, node
    bool endsText = false, endsObject = false;  // eos, the next object may follow
    std::vector<int32_t> allowed;  // with a next object
    std::vector<int32_t> allowedLast;  // without
  };

  bool mayContinue(const State& state) const { return maxObjects_ == 0 || state.objects < maxObjects_; }
  std::span<const int32_t> allowedIn(const State& state) const;
  void step(State& state, int32_t id) const;
  void addLabel(const Tokenizer& tokenizer, const std::string& label);
  bool insert(const std::vector<int32_t>& ids, bool endsText);  // false where an id is no text
  void finishTrie();
  void collectText(const Tokenizer& tokenizer);

  int32_t eos_, firstLoc_, firstSeg_, maxObjects_;
  bool segment_, anyLabel_;
  State state_;
  std::vector<Node> nodes_;
  std::vector<int32_t> eosOnly_, locs_, segs_;
  std::vector<int32_t> begin_;  // eos and first locs
  // free text: pieces of a name; the same with eos; the same with eos and separators; a separator's rest
  std::vector<int32_t> text_, textEnd_, textMore_, separators_, separatorRest_;
  enum : uint8_t { kVisible, kEndsBlank, kBlank };
  std::vector<uint8_t> spaces_;  // [vocab] free text: where a piece has spaces
};

}  // namespace pg
