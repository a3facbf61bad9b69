#pragma once
// What works without a model: tokenizers, both halves of the mask VQ-VAE and the inside of GGUF files.
#include "addon/js.h"

namespace pg {

napi_value openTokenizer(const js::Call& call);
napi_value openMaskDecoder(const js::Call& call);
napi_value openMaskEncoder(const js::Call& call);
napi_value inspect(const js::Call& call);
napi_value dequantizeTensor(const js::Call& call);
napi_value checkWeights(const js::Call& call);

}  // namespace pg
