// Any bytes as a prompt: encoding, decoding, and the same text in pieces.
#include "fuzz.h"
#include "text/stop_matcher.h"
#include "vocabulary.h"

namespace {

pg::test::Vocabulary vocabulary() {
  pg::test::Vocabulary made;
  made.add({"_", "e", "n", "a", "ti", "on", "_c", "ap", "cap", "tion", "_en", "caption", "_caption", "é", "日"});
  made.addLocations();
  return made;
}

const pg::Tokenizer& plain() {
  static const pg::Tokenizer made = vocabulary().open();
  return made;
}

// With tokens that were added under all flags: 16 names, each found by the rule of its number.
const pg::Tokenizer& withAdded() {
  static const pg::Tokenizer made = [] {
    pg::test::Vocabulary all = vocabulary();
    std::vector<pg::AddedToken> added;
    for (int flags = 0; flags <= pg::kTokenFlags; ++flags) {
      all.pieces.push_back({"<unused" + std::to_string(flags) + ">", 0, 3});
      added.push_back(
          {int32_t(all.pieces.size()) - 1, std::string(1, char('A' + flags)) + "x", false, uint8_t(flags), ""});
    }
    const std::string path = all.write();
    return pg::Tokenizer(pg::GgufFile::open(path), added);
  }();
  return made;
}

// As UTF-8 with each wrong part replaced.
std::string repaired(std::string_view bytes) {
  pg::Utf8Stream stream;
  std::string text = stream.push(bytes);
  return text + stream.flush();
}

std::string spaced(std::string text) {
  for (size_t at; (at = text.find("\xe2\x96\x81")) != std::string::npos;) text.replace(at, 3, " ");
  return text;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  pg::fuzz::Input input(data, size);
  const uint8_t how = input.byte();
  const std::string_view text = input.rest();
  const bool added = how & 2;  // their rules may take white space away
  const pg::Tokenizer& tokenizer = added ? withAdded() : plain();
  const std::vector<int32_t> ids = tokenizer.encode(text, how & 1);
  for (const int32_t id : ids) pg::fuzz::must(id >= 0 && id < tokenizer.size(), "ids are of the vocabulary");
  const std::string decoded = tokenizer.decode(ids.data(), ids.size());
  if (!(how & 1) && !added) pg::fuzz::must(spaced(decoded) == spaced(repaired(text)), "a text comes back as it was");
  // cut anywhere, the stream shows the same
  pg::Utf8Stream stream;
  std::string shown;
  for (size_t at = 0; at < text.size();) {
    const size_t piece = 1 + (how + at) % 5;
    shown += stream.push(text.substr(at, piece));
    at += piece;
  }
  pg::fuzz::must(shown + stream.flush() == repaired(text), "pieces show what the whole shows");
  return 0;
}
