#pragma once
// Stop strings over a stream of text: nothing of a stop string is ever shown.
#include <string>
#include <string_view>
#include <vector>

namespace pg {

class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops);  // empty ones are ignored

  // What may be shown now. Text that may be the start of a stop string is held back; from a match on, nothing is
  // shown. The stop string that is complete first wins, so the result does not depend on how the text is cut.
  std::string push(std::string_view text);
  std::string flush();                       // what was held back, when no more text comes
  bool matched() const { return matched_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool matched_ = false;
};

}  // namespace pg
