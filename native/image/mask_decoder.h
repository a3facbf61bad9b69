#pragma once
// 16 <seg> codes -> 64x64 mask (the decoder half of big_vision's VQ-VAE, vae-oid), and pasting it into the picture.
#include <cstdint>
#include <memory>
#include <vector>

#include "base/object_tokens.h"
#include "format/gguf.h"
#include "image/mask_layers.h"

namespace pg {

inline constexpr int kMaskSize = 64;

// Detection boxes in pixels of the full picture, x0 <= x < x1.
struct PixelBox {
  int32_t x0, y0, x1, y1;
};

enum class MaskConvention { training, demo };

class MaskDecoder {
 public:
  using Lookup = MaskTensors;
  // Fails with modelInvalid, naming the tensor that is missing or has another shape.
  explicit MaskDecoder(const Lookup& lookup);
  // The same from a GGUF that holds "mask.<name>" tensors; see docs/gguf.md. has(): whether it does.
  static bool has(const GgufFile& file);
  static MaskDecoder fromGguf(const GgufFile& file);

  // codes: 16 values in 0..127 (else invalidOption). out: [64, 64], about -1..1.
  void decode(const int32_t* codes, float* out) const;

  ~MaskDecoder();
  MaskDecoder(MaskDecoder&&) noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// mask [64, 64] into a full picture of width x height, 0..255 ("training": 0 or 255). Parts of the box outside the
// picture are cut. An empty or inverted box gives an empty mask.
std::vector<uint8_t> pasteMask(const float* mask, PixelBox box, int32_t width, int32_t height,
                               MaskConvention convention);

}  // namespace pg
