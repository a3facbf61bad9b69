// Any bytes as a prompt: encoding, decoding, and the same text in pieces. Or as a vocabulary.
#include <cmath>

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

// What the input says of a vocabulary: pieces, what is wrong with it, and tokens to be added.
void readVocabulary(pg::fuzz::Input& input) {
  pg::test::Vocabulary made;
  const uint8_t odd = input.byte();  // bits: what is not as it should be
  if (odd & 1) made.pieces.clear();
  for (int i = input.byte() % 16; i > 0; --i) {
    const int32_t type = input.byte() % 8;
    const float score = input.byte() == 255 ? NAN : float(type);
    made.pieces.push_back({std::string(input.line()), score, type});
  }
  constexpr const char* keys[] = {"model", "tokens", "scores", "token_type"};
  if (odd & 2) made.leaveOut = keys[input.byte() % 4];
  if (odd & 4) made.model = input.line();
  if (odd & 8) made.scoresMissing = std::min<size_t>(input.byte(), made.pieces.size());
  if (odd & 16) made.ids[input.byte() % made.ids.size()].second = input.number();
  std::vector<pg::AddedToken> added;
  for (int i = odd & 32 ? input.byte() % 4 : 0; i > 0; --i) {
    const int32_t id = int32_t(input.byte()) - 1;
    const uint8_t flags = input.byte();
    added.push_back({id, std::string(input.line()), flags > 15, uint8_t(flags & pg::kTokenFlags), "the input"});
  }
  const std::string path = made.write();
  try {
    const pg::Tokenizer tokenizer(pg::GgufFile::open(path), added);
    for (const int32_t id : {tokenizer.bos(), tokenizer.eos(), tokenizer.pad(), tokenizer.unk(), tokenizer.image(),
                             tokenizer.newline(), tokenizer.firstLoc(), tokenizer.firstSeg()}) {
      pg::fuzz::must(id >= -1 && id < tokenizer.size(), "special tokens are of the vocabulary");
      tokenizer.isEndOfGeneration(id);
      tokenizer.pieceText(id);
    }
    const std::vector<int32_t> ids = tokenizer.encode(input.rest(), odd & 64);
    for (const int32_t id : ids) pg::fuzz::must(id >= 0 && id < tokenizer.size(), "ids are of the vocabulary");
    tokenizer.decode(ids.data(), ids.size());
  } catch (const pg::Error&) {}
  std::error_code ignored;
  std::filesystem::remove(path, ignored);
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
  if (how & 128) {
    readVocabulary(input);
    return 0;
  }
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
