// Stop strings over any stream: what is shown does not depend on how the stream is cut, and holds none of them.
#include "fuzz.h"
#include "text/stop_matcher.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  pg::fuzz::Input input(data, size);
  const uint8_t cut = input.byte();
  std::vector<std::string> stops;
  for (int i = input.byte() % 4; i > 0; --i) stops.emplace_back(input.line());
  const std::string_view text = input.rest();
  pg::StopMatcher whole(stops), pieces(stops);
  std::string all = whole.push(text);
  all += whole.flush();
  std::string shown;
  for (size_t at = 0; at < text.size();) {
    const size_t n = 1 + (cut + at) % 7;
    shown += pieces.push(text.substr(at, n));
    at += n;
  }
  shown += pieces.flush();
  pg::fuzz::must(shown == all && whole.matched() == pieces.matched(), "pieces show what the whole shows");
  for (const std::string& stop : stops)
    pg::fuzz::must(stop.empty() || all.find(stop) == std::string::npos, "no stop string is shown");
  pg::fuzz::must(text.substr(0, all.size()) == all, "what is shown is the beginning of the text");
  return 0;
}
