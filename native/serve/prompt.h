#pragma once
// The token sequence PaliGemma was trained on: <image> * N, <bos>, prompt, "\n" [, suffix, <eos>].
#include <cstdint>
#include <string>
#include <vector>

#include "serve/request.h"
#include "text/tokenizer.h"

namespace pg {

struct Prompt {
  std::vector<int32_t> ids;    // image positions are Decoder::kImageRow
  int64_t imageTokens = 0;
  int64_t prefix = 0;          // tokens up to the separator; the suffix follows
};

// Prefix, separator and suffix are tokenized apart, as in training, so no merge crosses them. Trailing newlines of the
// prompt are dropped: one separator follows. suffix: nullptr = none, else it is appended with <eos>.
Prompt buildPrompt(const Tokenizer& tokenizer, const std::string& prompt, const std::string* suffix,
                   int64_t imageTokens, bool allowControl);

// The tokens of an embedding; all of them attend to each other, padding too.
Prompt buildEmbedPrompt(const Tokenizer& tokenizer, const std::string& prompt, const Embed& layout,
                        int64_t imageTokens);

}  // namespace pg
