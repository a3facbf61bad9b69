#pragma once

namespace pg {

// A place in text: four of <loc0000> to <loc1023>, 1024ths of the picture.
inline constexpr int kLocations = 1024;
// A mask in text: so many <seg000> to <seg127> tokens, codes of vae-oid's codebook.
inline constexpr int kMaskCodes = 16, kMaskCodebook = 128;

}  // namespace pg
