#pragma once
// A mask -> 16 <seg> codes: the encoder half of big_vision's VQ-VAE (vae-oid), for training data.
#include <cstdint>
#include <memory>

#include "base/object_tokens.h"
#include "format/gguf.h"
#include "image/mask_layers.h"

namespace pg {

class MaskEncoder {
 public:
  // Fails with modelInvalid, naming the tensor that is missing ("encoder.0.weight", ...) or has another shape.
  explicit MaskEncoder(const MaskTensors& lookup);
  static MaskEncoder fromGguf(const GgufFile& file);

  // mask [height, width], 0..255: what is inside an object's box. codes: kMaskCodes values.
  void encode(const uint8_t* mask, int32_t width, int32_t height, int32_t* codes) const;

  ~MaskEncoder();
  MaskEncoder(MaskEncoder&&) noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pg
