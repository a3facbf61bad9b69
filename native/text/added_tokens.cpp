#include "text/added_tokens.h"

#include <algorithm>
#include <cctype>
#include <cstdio>

#include "base/error.h"
#include "text/word_chars.h"

namespace pg {
namespace {

constexpr float kAddedScore = -1000;  // what llama.cpp's converter gives tokens outside the SentencePiece model

bool isNumbered(std::string_view text, std::string_view before, std::string_view after) {
  if (text.size() <= before.size() + after.size() || text.substr(0, before.size()) != before ||
      text.substr(text.size() - after.size()) != after)
    return false;
  const std::string_view number = text.substr(before.size(), text.size() - before.size() - after.size());
  return std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool isPadding(const Pieces& pieces, size_t id) {
  return pieces.kinds[id] == PieceKind::unused || isNumbered(pieces.texts[id], "[PAD", "]");
}

// Whether a vocabulary has this entry to give away.
bool isFree(const Pieces& pieces, size_t id) {
  return isPadding(pieces, id) || isNumbered(pieces.texts[id], "<unused", ">");
}

// tokenizer.json spells a byte's character where SentencePiece has the byte: a tab and <0x09>.
bool isSamePiece(std::string_view piece, std::string_view text) {
  if (piece == text) return true;
  char name[8];
  std::snprintf(name, sizeof name, "<0x%02X>", text.size() == 1 ? unsigned(uint8_t(text[0])) : 0u);
  return text.size() == 1 && piece == name;
}

std::string withoutMarks(std::string_view piece) {
  std::string text;
  for (size_t at = 0; at < piece.size();) {
    const bool mark = piece.compare(at, kSpace.size(), kSpace) == 0;
    text += mark ? ' ' : piece[at];
    at += mark ? kSpace.size() : 1;
  }
  return text;
}

// The first of the padding at the end, for a token that no file numbers; -1 where the vocabulary is full.
int32_t firstPadding(const Pieces& pieces) {
  size_t end = pieces.texts.size();
  while (end > 0 && isPadding(pieces, end - 1)) --end;
  return end < pieces.texts.size() ? int32_t(end) : -1;
}

}  // namespace

std::string withMarks(std::string_view text) {
  std::string marked;
  marked.reserve(text.size() + text.size() / 2);
  for (const char c : text) {
    if (c == ' ') marked += kSpace;
    else marked += c;
  }
  return marked;
}

void nameTokens(const std::string& path, const std::vector<AddedToken>& added, Pieces& pieces) {
  const int64_t size = int64_t(pieces.texts.size());
  for (const AddedToken& token : added) {
    const std::string piece = withMarks(token.text);
    int32_t id = token.id;
    const auto known = [&] {
      return int32_t(std::find(pieces.texts.begin(), pieces.texts.end(), piece) - pieces.texts.begin());
    };
    if (id < 0) {
      if (known() < size) continue;
      id = firstPadding(pieces);
    }
    if (id < 0 || id >= size) {
      if (token.text == "<image>") continue;  // it needs no row: nobody embeds it
      fail(Code::modelInvalid, token.from, " names the token \"", token.text, "\"",
           token.id < 0 ? std::string() : " as " + std::to_string(token.id), ", but ", path, " has only ", size,
           " tokens and no row for it; load the base that the adapter was trained on");
    }
    const size_t at = size_t(id);
    if (!isSamePiece(pieces.texts[at], piece)) {
      if (!isFree(pieces, at))
        fail(Code::modelInvalid, token.from, " names token ", id, " \"", token.text, "\", but in ", path, " it is \"",
             pieces.texts[at], "\"; load the base that the adapter was trained on");
      if (const int32_t other = known(); other < size && pieces.kinds[size_t(other)] != PieceKind::normal)
        fail(Code::modelInvalid, token.from, " names token ", id, " \"", token.text, "\", but in ", path, " that is ",
             other, "; load the base that the adapter was trained on");
      pieces.texts[at] = pieces.names.emplace_back(piece);
      pieces.scores[at] = kAddedScore;
      pieces.kinds[at] = token.control ? PieceKind::control : PieceKind::userDefined;
    } else if (pieces.kinds[at] == PieceKind::normal) {
      // An ordinary piece of the name is found wherever it stands from now on.
      pieces.kinds[at] = token.control ? PieceKind::control : PieceKind::userDefined;
    }
    if (token.flags) pieces.flags[id] = token.flags;
  }
}

void PieceMatcher::insert(std::string_view piece, int32_t id, bool control, uint8_t flags) {
  const bool late = flags & kNormalized;
  if (late) late_.insert(withMarks(piece), id, control);
  else early_.insert(flags & kMark ? std::string(piece) : withoutMarks(piece), id, control);
  hasLate_ = hasLate_ || late;
  if (flags) flags_[id] = flags;
}

int32_t PieceMatcher::find(std::string_view text) const {
  for (const PieceTrie* trie : {&early_, &late_}) {
    const auto [id, length] = trie->longest(text, false);
    if (id >= 0 && length == text.size()) return id;
  }
  return -1;
}

namespace {

uint32_t decoded(std::string_view character) {
  const uint8_t lead = uint8_t(character[0]);
  if (character.size() == 1) return lead;
  uint32_t code = lead & (0x7fu >> character.size());
  for (size_t i = 1; i < character.size(); ++i) code = (code << 6) | (uint8_t(character[i]) & 0x3f);
  return code;
}

std::string_view characterAt(std::string_view text, size_t at) {
  return text.substr(at, characterLength(text.data() + at, text.data() + text.size()));
}

std::string_view characterBefore(std::string_view text, size_t at) {
  size_t begin = at - 1;
  while (begin > 0 && at - begin < 4 && (uint8_t(text[begin]) & 0xc0) == 0x80) --begin;
  const std::string_view whole = characterAt(text, begin);
  return begin + whole.size() == at ? whole : text.substr(at - 1, 1);
}

bool isSpace(std::string_view character) {
  const uint32_t c = decoded(character);
  return c == ' ' || (c >= 9 && c <= 13) || (c == 0x85 && character.size() > 1) || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

}  // namespace

bool PieceMatcher::standsAlone(std::string_view text, Span match) const {
  return (match.begin == 0 || !isWordCharacter(decoded(characterBefore(text, match.begin)))) &&
         (match.end == text.size() || !isWordCharacter(decoded(characterAt(text, match.end))));
}

PieceMatcher::Span PieceMatcher::stripped(std::string_view text, Span match, size_t start, uint8_t flags) const {
  if (flags & kStripLeft) {
    while (match.begin > start) {
      const std::string_view before = characterBefore(text, match.begin);
      if (!isSpace(before)) break;
      match.begin -= before.size();
    }
  }
  if (flags & kStripRight) {
    while (match.end < text.size()) {
      const std::string_view next = characterAt(text, match.end);
      if (!isSpace(next)) break;
      match.end += next.size();
    }
  }
  return match;
}

}  // namespace pg
