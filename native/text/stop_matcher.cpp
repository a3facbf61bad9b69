#include "text/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace pg {

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

std::string StopMatcher::push(std::string_view text) {
  if (matched_) return {};
  if (stops_.empty()) return std::string(text);
  held_ += text;

  size_t bestBegin = 0, bestEnd = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t begin = held_.find(stop);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stop.size();
    if (end < bestEnd || (end == bestEnd && begin < bestBegin)) {
      bestBegin = begin;
      bestEnd = end;
    }
  }
  if (bestEnd != std::string::npos) {
    matched_ = true;
    std::string shown = held_.substr(0, bestBegin);
    held_.clear();
    return shown;
  }

  size_t keep = 0;  // longest end of the text that starts a stop string
  for (const std::string& stop : stops_)
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n)
      if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) keep = n;
  std::string shown = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return shown;
}

std::string StopMatcher::flush() { return std::exchange(held_, {}); }

}  // namespace pg
