#include "serve/prompt.h"

#include <algorithm>

#include "model/decoder.h"

namespace pg {

Prompt buildPrompt(const Tokenizer& tokenizer, const std::string& prompt, const std::string* suffix,
                   int64_t imageTokens, bool allowControl) {
  Prompt p;
  p.imageTokens = imageTokens;
  p.ids.assign(size_t(imageTokens), Decoder::kImageRow);
  p.ids.push_back(tokenizer.bos());
  const auto append = [&](std::string_view text) {
    std::vector<int32_t> ids = tokenizer.encode(text, allowControl);
    // <image> in the text has no picture of its own: pictures come first, as the processor of the reference does it
    std::erase(ids, tokenizer.image());
    p.ids.insert(p.ids.end(), ids.begin(), ids.end());
  };
  std::string_view text = prompt;
  while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  append(text);
  p.ids.push_back(tokenizer.newline());
  p.prefix = int64_t(p.ids.size());
  if (suffix) {
    append(*suffix);
    p.ids.push_back(tokenizer.eos());
  }
  return p;
}

Prompt buildEmbedPrompt(const Tokenizer& tokenizer, const std::string& prompt, const Embed& layout,
                        int64_t imageTokens) {
  Prompt p;
  p.imageTokens = imageTokens;
  p.ids.assign(size_t(imageTokens), Decoder::kImageRow);
  p.ids.insert(p.ids.end(), size_t(layout.bosTokens), tokenizer.bos());
  const std::vector<int32_t> text = tokenizer.encode(prompt, false);
  p.ids.insert(p.ids.end(), text.begin(), text.end());
  p.ids.insert(p.ids.end(), size_t(layout.padTokens), tokenizer.pad());
  if (layout.newline) p.ids.push_back(tokenizer.newline());
  p.prefix = int64_t(p.ids.size());
  return p;
}

}  // namespace pg
