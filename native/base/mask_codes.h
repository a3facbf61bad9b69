#pragma once

namespace pg {

// A mask in text: so many <seg000> to <seg127> tokens, codes of vae-oid's codebook.
inline constexpr int kMaskCodes = 16, kMaskCodebook = 128;

}  // namespace pg
