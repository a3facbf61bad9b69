#pragma once
// Tensors that files carry beside those of a PaliGemma: harmless copies are left out, all else is refused by name.
#include <string_view>

#include "format/gguf.h"

namespace pg {

// output.weight: a copy of the embedding, in any type and with any padding rows, says nothing new; PaliGemma has no
// other LM head, so one that differs is modelUnsupported.
void checkOwnHead(const GgufFile& file);

// rope_freqs.weight: factors of the rotary frequencies. Gemma has none, so all must be 1.
void checkRopeFactors(const GgufFile& file);

// Read elsewhere or by nobody, without any influence on results.
bool mayBeLeftOut(std::string_view name);

}  // namespace pg
