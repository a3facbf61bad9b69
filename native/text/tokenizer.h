#pragma once
// SentencePiece BPE with byte fallback and user-defined pieces, read from a GGUF's tokenizer.ggml.* keys.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "format/gguf.h"
#include "text/added_tokens.h"

namespace pg {

class Tokenizer {
 public:
  // Pieces are views into the file's map. `added`: names that others give to its reserved and padding entries.
  explicit Tokenizer(std::shared_ptr<const GgufFile> file, const std::vector<AddedToken>& added = {});

  // Nothing is added around the text. With allowControl, the spellings of control pieces (<bos>, <eos>, <pad>, <unk>,
  // <image>) become their ids; without it they are plain text.
  std::vector<int32_t> encode(std::string_view text, bool allowControl = false) const;

  // The bytes of one token: empty for control pieces and unknown ids, " \xe2\x81\x87 " for <unk>.
  std::string_view pieceBytes(int32_t id) const;
  // The piece as it stands in the vocabulary ("▁cat", "<0x0A>", "<loc0001>"); empty for ids out of range.
  std::string_view pieceText(int32_t id) const;
  // All tokens' bytes as UTF-8; each maximal invalid part becomes U+FFFD.
  std::string decode(const int32_t* ids, size_t count) const;

  int32_t size() const;  // entries of the vocabulary
  int32_t bos() const, eos() const, pad() const, unk() const;
  int32_t image() const;  // -1 where the vocabulary has none
  int32_t newline() const;  // the token of "\n"
  int32_t firstLoc() const, firstSeg() const;  // ids of <loc0000>, <seg000>; -1 where there are none
  bool isEndOfGeneration(int32_t id) const;  // eos and the file's further end tokens

  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Streaming UTF-8: holds back an incomplete character until its bytes are there.
class Utf8Stream {
 public:
  std::string push(std::string_view bytes);  // what may be shown now
  std::string flush();  // the rest, incomplete bytes as U+FFFD

 private:
  std::string pending_;
};

}  // namespace pg
