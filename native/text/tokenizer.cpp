#include "text/tokenizer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/object_tokens.h"
#include "text/added_tokens.h"
#include "text/pieces.h"

namespace pg {
namespace {

constexpr std::string_view kUnknown = " \xe2\x81\x87 ";    // what SentencePiece decodes <unk> to
constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

// The value of "<0xNN>", else -1.
int byteValue(std::string_view piece) {
  if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') return -1;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
  };
  const int high = digit(piece[3]), low = digit(piece[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

// ids first..first+count-1 spell <loc0000>... (or <seg000>...) without a gap
bool isRange(const std::vector<std::string_view>& pieces, int32_t first, int count, const char* name, int digits) {
  if (first < 0 || size_t(first) + size_t(count) > pieces.size()) return false;
  for (int i = 0; i < count; ++i) {
    std::string number = std::to_string(i);
    const std::string spelling =
        std::string("<") + name + std::string(size_t(digits) - number.size(), '0') + number + ">";
    if (pieces[size_t(first) + size_t(i)] != spelling) return false;
  }
  return true;
}

bool isSpaces(std::string_view piece) {
  for (size_t at = 0; at < piece.size(); at += kSpace.size())
    if (piece.compare(at, kSpace.size(), kSpace) != 0) return false;
  return true;
}

// One run of BPE over a stretch of text without user-defined pieces; its vectors are used again for the next.
struct Symbol {
  int32_t previous, next;  // -1 at the ends
  uint32_t begin, size;    // size 0: merged into its left neighbour
  int32_t id;              // -1: no such piece
};

struct Merge {
  float score;
  int32_t left, right, id;
  uint32_t size;  // of both, to notice that one has changed since
  // best score first, leftmost first among equals
  bool operator<(const Merge& other) const {
    return score < other.score || (score == other.score && left > other.left);
  }
};

}  // namespace

struct Tokenizer::Impl {
  std::shared_ptr<const GgufFile> file;
  Pieces vocabulary;
  std::vector<std::string_view>& pieces = vocabulary.texts;
  std::vector<float>& scores = vocabulary.scores;
  std::vector<PieceKind>& kinds = vocabulary.kinds;
  std::vector<std::string_view> bytes;  // [size] what a token shows, in the map, the names or in `decoded`
  std::vector<char> decoded;             // pieces with spaces instead of U+2581
  std::array<char, 256> byteText{};
  std::array<int32_t, 256> byteIds{};
  PieceMap map;
  PieceMatcher matcher;
  size_t longestPiece = 0;
  bool spaceStartsWord = true;  // no piece has U+2581 after something else: merges never cross a word's start
  int32_t bos = -1, eos = -1, pad = -1, unk = -1, eot = -1, image = -1, newline = -1, firstLoc = -1, firstSeg = -1;

  const GgufArray& arrayOf(const char* key, bool strings) const {
    const GgufArray* array = file->array(key);
    if (!array) fail(Code::modelInvalid, file->path(), ": no ", key, "; convert the model together with its tokenizer");
    if ((array->elementType == GgufType::string) != strings || array->elementType == GgufType::array)
      fail(Code::modelInvalid, file->path(), ": ", key, " must be an array of ", strings ? "strings" : "numbers");
    return *array;
  }

  // A token id from the metadata, else the piece of that spelling, else -1 (or a failure if needed).
  int32_t special(const char* key, int32_t bySpelling, bool needed) const {
    const auto id = file->integer(key);
    if (id) {
      if (*id >= 0 && size_t(*id) < pieces.size()) return int32_t(*id);
      if (needed || *id != -1)
        fail(Code::modelInvalid, file->path(), ": ", key, " is ", *id, " but the vocabulary has ", pieces.size(),
             " entries");
    }
    if (needed && bySpelling < 0) fail(Code::modelInvalid, file->path(), ": no ", key);
    return bySpelling;
  }

  void load(const std::vector<AddedToken>& added);
  void loadStored();
  void loadFlags();
  void loadKinds();
  void indexPieces();
  std::string_view withSpaces(std::string_view piece, PieceKind kind);
  void merge(std::string_view text, std::vector<Symbol>& symbols, std::vector<Merge>& queue,
             std::vector<int32_t>& out) const;
};

// Types and scores as stored.
void Tokenizer::Impl::loadStored() {
  const GgufArray& scoreArray = arrayOf("tokenizer.ggml.scores", false);
  const GgufArray& typeArray = arrayOf("tokenizer.ggml.token_type", false);
  const auto checkCount = [&](const char* key, const GgufArray& array) {
    if (array.count != pieces.size())
      fail(Code::modelInvalid, file->path(), ": ", key, " has ", array.count, " entries but tokenizer.ggml.tokens has ",
           pieces.size());
  };
  checkCount("tokenizer.ggml.scores", scoreArray);
  checkCount("tokenizer.ggml.token_type", typeArray);
  const size_t count = pieces.size();
  scores.resize(count);
  kinds.resize(count);
  for (size_t i = 0; i < count; ++i) {
    scores[i] = float(scoreArray.number(i));
    if (std::isnan(scores[i]))
      fail(Code::modelInvalid, file->path(), ": tokenizer.ggml.scores[", i, "] is not a number");
    const int64_t type = typeArray.integer(i);
    if (type < 1 || type > 6)
      fail(Code::modelInvalid, file->path(), ": tokenizer.ggml.token_type[", i, "] is ", type, ", expected 1..6");
    kinds[i] = PieceKind(type);
  }
}

// How added tokens are found: ids and flags, where some token has any.
void Tokenizer::Impl::loadFlags() {
  if (!file->array("paligemma.added_tokens.ids")) return;
  const GgufArray& ids = arrayOf("paligemma.added_tokens.ids", false);
  const GgufArray& flags = arrayOf("paligemma.added_tokens.flags", false);
  if (ids.count != flags.count)
    fail(Code::modelInvalid, file->path(), ": paligemma.added_tokens.ids and .flags are of different lengths");
  for (size_t i = 0; i < ids.count; ++i) {
    const int64_t id = ids.integer(i), set = flags.integer(i);
    if (id < 0 || size_t(id) >= pieces.size() || set < 0 || set > kTokenFlags)
      fail(Code::modelInvalid, file->path(), ": paligemma.added_tokens: token ", id, " with flags ", set,
           ", expected a token of the vocabulary and 0..", int(kTokenFlags));
    if (set) vocabulary.flags[int32_t(id)] = uint8_t(set);
  }
}

// Corrected where files are known to differ from SentencePiece's own model.
void Tokenizer::Impl::loadKinds() {
  const size_t count = pieces.size();
  size_t zeroScores = 0;
  for (size_t i = 0; i < count; ++i) zeroScores += kinds[i] == PieceKind::normal && scores[i] == 0;

  int32_t loc = -1, seg = -1, bosName = -1, eosName = -1, padName = -1, unkName = -1;
  for (size_t i = 0; i < count; ++i) {
    const std::string_view piece = pieces[i];
    // Some converters write user-defined pieces as normal ones of score 0. Among real normal pieces only the first
    // merge has score 0, and the next merge follows it.
    if (zeroScores > 1 && kinds[i] == PieceKind::normal && scores[i] == 0 &&
        !(i + 1 < count && kinds[i + 1] == PieceKind::normal && scores[i + 1] < 0))
      kinds[i] = PieceKind::userDefined;
    if (piece.size() < 5 || piece[0] != '<') continue;
    // These are never text, whatever the file calls them.
    int32_t* name = piece == "<bos>"     ? &bosName
                    : piece == "<eos>"   ? &eosName
                    : piece == "<pad>"   ? &padName
                    : piece == "<unk>"   ? &unkName
                    : piece == "<image>" ? &image
                                         : nullptr;
    if (name) {
      if (*name < 0) *name = int32_t(i);
      kinds[i] = name == &unkName ? PieceKind::unknown : PieceKind::control;
    }
    if (loc < 0 && piece == "<loc0000>") loc = int32_t(i);
    if (seg < 0 && piece == "<seg000>") seg = int32_t(i);
  }
  if (isRange(pieces, loc, kLocations, "loc", 4)) firstLoc = loc;
  if (isRange(pieces, seg, kMaskCodebook, "seg", 3)) firstSeg = seg;
  if (firstLoc >= 0) std::fill_n(kinds.begin() + firstLoc, kLocations, PieceKind::userDefined);
  if (firstSeg >= 0) std::fill_n(kinds.begin() + firstSeg, kMaskCodebook, PieceKind::userDefined);

  bos = special("tokenizer.ggml.bos_token_id", bosName, true);
  eos = special("tokenizer.ggml.eos_token_id", eosName, true);
  unk = special("tokenizer.ggml.unknown_token_id", unkName, false);
  pad = special("tokenizer.ggml.padding_token_id", padName, false);
  eot = special("tokenizer.ggml.eot_token_id", -1, false);
  for (const int32_t id : {bos, eos, pad})
    if (id >= 0) kinds[size_t(id)] = PieceKind::control;
}

// The piece as text: U+2581 becomes a space, in `decoded` where there is one.
std::string_view Tokenizer::Impl::withSpaces(std::string_view piece, PieceKind kind) {
  size_t space = piece.find(kSpace);
  if (space == std::string_view::npos) return piece;
  const size_t start = decoded.size();
  size_t from = 0;
  for (; space != std::string_view::npos; space = piece.find(kSpace, from)) {
    if (kind == PieceKind::normal && space != from) spaceStartsWord = false;
    decoded.insert(decoded.end(), piece.begin() + ptrdiff_t(from), piece.begin() + ptrdiff_t(space));
    decoded.push_back(' ');
    from = space + kSpace.size();
  }
  decoded.insert(decoded.end(), piece.begin() + ptrdiff_t(from), piece.end());
  return {decoded.data() + start, decoded.size() - start};
}

// What every piece writes, and where text finds it: bytes by value, words by the map, what is not cut by the matcher.
void Tokenizer::Impl::indexPieces() {
  for (int i = 0; i < 256; ++i) byteText[size_t(i)] = char(i);
  byteIds.fill(-1);
  map.reserve(pieces.size());
  bytes.resize(pieces.size());
  size_t total = 0;
  for (const auto& piece : pieces) total += piece.size();
  decoded.reserve(total);  // never grows again: `bytes` points into it
  for (size_t i = 0; i < pieces.size(); ++i) {
    const std::string_view piece = pieces[i];
    const PieceKind kind = kinds[i];
    if (kind == PieceKind::byte) {
      const int value = byteValue(piece);
      if (value < 0)
        fail(Code::modelInvalid, file->path(), ": tokenizer.ggml.tokens[", i, "] is a byte piece but reads \"", piece,
             "\"");
      bytes[i] = {&byteText[size_t(value)], 1};
      if (byteIds[size_t(value)] < 0) byteIds[size_t(value)] = int32_t(i);
      continue;
    }
    if (kind == PieceKind::unknown) bytes[i] = kUnknown;
    const bool control = kind == PieceKind::control || kind == PieceKind::unknown;
    if ((control || kind == PieceKind::userDefined) && !piece.empty()) {
      const auto found = vocabulary.flags.find(int32_t(i));
      uint8_t flags = found == vocabulary.flags.end() ? uint8_t(0) : found->second;
      // what runs of spaces are is asked after added tokens, which may strip them; U+2581 in a text is one, too
      if (isSpaces(piece)) flags = uint8_t((flags & ~kMark) | kNormalized);
      matcher.insert(piece, int32_t(i), control, flags);
    }
    if (kind != PieceKind::normal && kind != PieceKind::userDefined) continue;

    bytes[i] = withSpaces(piece, kind);
    if (kind == PieceKind::normal && !piece.empty()) {
      map.insert(pieces, int32_t(i));
      longestPiece = std::max(longestPiece, piece.size());
    }
  }
}

void Tokenizer::Impl::load(const std::vector<AddedToken>& added) {
  const auto model = file->string("tokenizer.ggml.model");
  if (!model)
    fail(Code::modelInvalid, file->path(), ": no tokenizer.ggml.model; convert the model together with its tokenizer");
  if (*model != "llama")
    fail(Code::modelUnsupported, file->path(), ": tokenizer.ggml.model is \"", *model,
         "\", expected \"llama\" (SentencePiece)");
  const GgufArray& tokens = arrayOf("tokenizer.ggml.tokens", true);
  if (tokens.count == 0 || tokens.count > (1u << 24))
    fail(Code::modelInvalid, file->path(), ": tokenizer.ggml.tokens has ", tokens.count, " entries, expected 1..",
         1u << 24);
  pieces = tokens.strings();
  loadStored();
  loadFlags();
  nameTokens(file->path(), added, vocabulary);
  loadKinds();

  indexPieces();
  for (size_t i = 0; i < 256; ++i)
    if (byteIds[i] < 0 && unk < 0)
      fail(Code::modelInvalid, file->path(), ": tokenizer.ggml.tokens has neither a piece for byte ", i,
           " nor an unknown piece");

  newline = matcher.find("\n");
  if (newline < 0) newline = map.find(pieces, "\n");
  if (newline < 0) newline = byteIds['\n'] >= 0 ? byteIds['\n'] : unk;
}

void Tokenizer::Impl::merge(std::string_view text, std::vector<Symbol>& symbols, std::vector<Merge>& queue,
                            std::vector<int32_t>& out) const {
  symbols.clear();
  queue.clear();
  const char* end = text.data() + text.size();
  for (const char* p = text.data(); p < end;) {
    const size_t length = characterLength(p, end);
    const int32_t index = int32_t(symbols.size());
    symbols.push_back(
        {index - 1, index + 1, uint32_t(p - text.data()), uint32_t(length), map.find(pieces, {p, length})});
    p += length;
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;

  const auto propose = [&](int32_t left, int32_t right) {
    if (left < 0 || right < 0) return false;
    const Symbol& a = symbols[size_t(left)];
    const uint32_t size = a.size + symbols[size_t(right)].size;
    if (size > longestPiece) return false;
    const int32_t id = map.find(pieces, text.substr(a.begin, size));
    if (id < 0) return false;
    queue.push_back({scores[size_t(id)], left, right, id, size});
    return true;
  };
  for (size_t i = 1; i < symbols.size(); ++i) propose(int32_t(i) - 1, int32_t(i));
  std::make_heap(queue.begin(), queue.end());
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end());
    const Merge best = queue.back();
    queue.pop_back();
    Symbol& left = symbols[size_t(best.left)];
    Symbol& right = symbols[size_t(best.right)];
    if (!left.size || !right.size || left.size + right.size != best.size) continue;
    left.size = best.size;
    left.id = best.id;
    left.next = right.next;
    right.size = 0;
    if (left.next >= 0) symbols[size_t(left.next)].previous = best.left;
    if (propose(left.previous, best.left)) std::push_heap(queue.begin(), queue.end());
    if (propose(best.left, left.next)) std::push_heap(queue.begin(), queue.end());
  }

  for (int32_t i = 0; i >= 0; i = symbols[size_t(i)].next) {
    const Symbol& symbol = symbols[size_t(i)];
    if (symbol.id >= 0) {
      out.push_back(symbol.id);
      continue;
    }
    const std::string_view raw = text.substr(symbol.begin, symbol.size);
    if (std::all_of(raw.begin(), raw.end(), [&](char c) { return byteIds[uint8_t(c)] >= 0; }))
      for (const char c : raw) out.push_back(byteIds[uint8_t(c)]);
    else out.push_back(unk >= 0 ? unk : byteIds[uint8_t(raw[0])]);
  }
}

Tokenizer::Tokenizer(std::shared_ptr<const GgufFile> file, const std::vector<AddedToken>& added)
    : impl_(std::make_unique<Impl>()) {
  impl_->file = std::move(file);
  impl_->load(added);
}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

std::vector<int32_t> Tokenizer::encode(std::string_view source, bool allowControl) const {
  if (source.size() > (size_t(1) << 29))
    fail(Code::promptTooLong, "A text of ", source.size(), " bytes is too long to tokenize");
  std::vector<int32_t> ids;
  std::vector<Symbol> symbols;
  std::vector<Merge> queue;
  const auto mergeWords = [&](std::string_view stretch) {
    size_t start = 0;  // of the words not yet merged
    bool afterSpace = false;
    for (size_t at = 0; at < stretch.size();) {
      const bool space = stretch.compare(at, kSpace.size(), kSpace) == 0;
      if (space && !afterSpace && impl_->spaceStartsWord && at > start) {
        impl_->merge(stretch.substr(start, at - start), symbols, queue, ids);
        start = at;
      }
      afterSpace = space;
      at += characterLength(stretch.data() + at, stretch.data() + stretch.size());
    }
    impl_->merge(stretch.substr(start), symbols, queue, ids);
  };
  impl_->matcher.split(source, allowControl, mergeWords, [&](int32_t id) { ids.push_back(id); });
  return ids;
}

std::string_view Tokenizer::pieceBytes(int32_t id) const {
  return id >= 0 && id < size() ? impl_->bytes[size_t(id)] : std::string_view();
}

std::string_view Tokenizer::pieceText(int32_t id) const {
  return id >= 0 && id < size() ? impl_->pieces[size_t(id)] : std::string_view();
}

std::string Tokenizer::decode(const int32_t* ids, size_t count) const {
  std::string joined;
  for (size_t i = 0; i < count; ++i) joined += pieceBytes(ids[i]);
  Utf8Stream stream;
  std::string text = stream.push(joined);
  text += stream.flush();
  return text;
}

int32_t Tokenizer::size() const { return int32_t(impl_->pieces.size()); }
int32_t Tokenizer::bos() const { return impl_->bos; }
int32_t Tokenizer::eos() const { return impl_->eos; }
int32_t Tokenizer::pad() const { return impl_->pad; }
int32_t Tokenizer::unk() const { return impl_->unk; }
int32_t Tokenizer::image() const { return impl_->image; }
int32_t Tokenizer::newline() const { return impl_->newline; }
int32_t Tokenizer::firstLoc() const { return impl_->firstLoc; }
int32_t Tokenizer::firstSeg() const { return impl_->firstSeg; }
bool Tokenizer::isEndOfGeneration(int32_t id) const { return id >= 0 && (id == impl_->eos || id == impl_->eot); }

// A surrogate never becomes a character, but decoders that could let it pass wait for its third byte, and the
// reference streams are of that kind.
static bool isSurrogateStart(std::string_view bytes) {
  return bytes.size() == 2 && uint8_t(bytes[0]) == 0xed && uint8_t(bytes[1]) >= 0xa0 && uint8_t(bytes[1]) <= 0xbf;
}

// The rules of the WHATWG decoder: each longest prefix of a valid sequence becomes one U+FFFD.
std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  std::string shown;
  size_t at = 0;
  while (at < pending_.size()) {
    const uint8_t lead = uint8_t(pending_[at]);
    size_t length = 1;
    uint8_t low = 0x80, high = 0xbf;  // what the second byte may be
    if (lead >= 0xc2 && lead <= 0xdf) length = 2;
    else if (lead >= 0xe0 && lead <= 0xef) {
      length = 3;
      if (lead == 0xe0) low = 0xa0;  // overlong
      if (lead == 0xed) high = 0x9f;  // surrogates
    } else if (lead >= 0xf0 && lead <= 0xf4) {
      length = 4;
      if (lead == 0xf0) low = 0x90;
      if (lead == 0xf4) high = 0x8f;  // above U+10FFFF
    } else if (lead >= 0x80) {
      shown += kReplacement;
      ++at;
      continue;
    }
    size_t valid = 1;
    while (valid < length && at + valid < pending_.size()) {
      const uint8_t next = uint8_t(pending_[at + valid]);
      if (next < low || next > high) break;
      low = 0x80;
      high = 0xbf;
      ++valid;
    }
    if (valid == length) shown.append(pending_, at, length);
    else if (at + valid == pending_.size()) break;  // may still become a character
    else if (isSurrogateStart(std::string_view(pending_).substr(at))) break;
    else shown += kReplacement;
    at += valid;
  }
  pending_.erase(0, at);
  return shown;
}

std::string Utf8Stream::flush() {
  std::string rest;
  if (!pending_.empty()) rest += kReplacement;
  if (isSurrogateStart(pending_)) rest += kReplacement;
  pending_.clear();
  return rest;
}

}  // namespace pg
