#pragma once
// Tokens that were added to a vocabulary: their names, and how they are found in a text.
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/pieces.h"

namespace pg {

// How an added token is found, as Hugging Face's AddedToken has it; none is how SentencePiece finds its pieces.
enum TokenFlag : uint8_t {
  kStripLeft = 1,    // takes the white space before it as well
  kStripRight = 2,   // and behind it
  kSingleWord = 4,   // not beside a letter, digit or underscore
  kNormalized = 8,   // only in what tokens without this flag leave, where a space is U+2581 already
  kMark = 16,        // U+2581 in its name is that character, no space; not with kNormalized
  kTokenFlags = 31,  // all
};

struct AddedToken {
  int32_t id = -1;       // -1: the first one that is free at the vocabulary's end
  std::string text;
  bool control = false;
  uint8_t flags = 0;
  std::string from;      // the file that names it
};

// A vocabulary while it is read. Pieces are views into the file, or into `names`.
struct Pieces {
  std::vector<std::string_view> texts;  // [size]
  std::vector<float> scores;            // [size]
  std::vector<PieceKind> kinds;         // [size]
  std::deque<std::string> names;
  std::unordered_map<int32_t, uint8_t> flags;  // TokenFlag by id, of the tokens that have some
};

// Reserved and padding entries take the names; a name for any other entry is an error. `path`: the model, for messages.
void nameTokens(const std::string& path, const std::vector<AddedToken>& added, Pieces& pieces);

// `text` with U+2581 for each space, as pieces are spelled.
std::string withMarks(std::string_view text);

// Finds pieces in a text before any merging: Hugging Face's rules where flags are set, else leftmost and longest.
class PieceMatcher {
 public:
  void insert(std::string_view piece, int32_t id, bool control, uint8_t flags);
  // The whole text as one piece, else -1.
  int32_t find(std::string_view text) const;

  // Calls gap(text, with marks) and piece(id) for what lies between pieces and for them, in order.
  template <class Gap, class Piece>
  void split(std::string_view text, bool allowControl, const Gap& gap, const Piece& piece) const {
    const auto later = [&](std::string_view rest) {
      const std::string normal = withMarks(rest);
      if (hasLate_) scan(late_, normal, allowControl, gap, piece);
      else gap(normal);
    };
    scan(early_, text, allowControl, later, piece);
  }

 private:
  struct Span {
    size_t begin, end;
  };
  bool standsAlone(std::string_view text, Span match) const;
  Span stripped(std::string_view text, Span match, size_t start, uint8_t flags) const;

  template <class Gap, class Piece>
  void scan(const PieceTrie& trie, std::string_view text, bool allowControl, const Gap& gap, const Piece& piece) const {
    size_t start = 0;  // of what no piece has taken
    for (size_t at = 0; at < text.size();) {
      const auto [id, length] =
          trie.startsWith(text[at]) ? trie.longest(text.substr(at), allowControl) : std::pair<int32_t, size_t>{-1, 0};
      if (id < 0) {
        at += characterLength(text.data() + at, text.data() + text.size());
        continue;
      }
      Span match{at, at + length};
      at += length;
      if (!flags_.empty()) {
        const auto found = flags_.find(id);
        const uint8_t flags = found == flags_.end() ? uint8_t(0) : found->second;
        if ((flags & kSingleWord) && !standsAlone(text, match)) continue;
        match = stripped(text, match, start, flags);
      }
      if (match.begin > start) gap(text.substr(start, match.begin - start));
      piece(id);
      start = match.end;
    }
    if (start < text.size()) gap(text.substr(start));
  }

  PieceTrie early_, late_;  // in the text as it is, and with marks for spaces: without and with kNormalized
  bool hasLate_ = false;
  std::unordered_map<int32_t, uint8_t> flags_;
};

}  // namespace pg
