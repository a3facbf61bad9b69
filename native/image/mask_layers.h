#pragma once
// The layers of big_vision's mask VQ-VAE (vae-oid), which the decoder and the encoder share.
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/host_tensor.h"
#include "format/gguf.h"

namespace pg {

// The tensor of a name in vae-oid's spelling ("_vq_vae._embedding", "decoder.0.weight", ...) as float32 in PyTorch
// layout, with its shape; empty data where there is none.
using MaskTensors = std::function<HostTensor(std::string_view name)>;

// The "mask.<name>" tensors of a GGUF, which outlives the result; see docs/gguf.md.
MaskTensors maskTensorsOf(const GgufFile& file);

// A picture [size, size, channels] with the channels innermost and padded with zeros.
struct MaskPicture {
  int size = 0, channels = 0;
  std::vector<float> data;
  MaskPicture(int size, int channels);
  const float* at(int y, int x) const { return &data[(size_t(y) * size_t(size) + size_t(x)) * size_t(channels)]; }
  float* at(int y, int x) { return &data[(size_t(y) * size_t(size) + size_t(x)) * size_t(channels)]; }
};

struct MaskLayer {
  int in = 0, out = 0, kernel = 0;  // channels, pixels
  std::vector<float> weight;        // [kernel * kernel, padded out / lanes, padded in, lanes]
  std::vector<float> bias;          // [padded out]
  const float* tap(int ky, int kx) const;
};

// Convolution with a stride; a kernel of 4 with stride 2 halves the picture, odd ones with stride 1 keep its size.
MaskPicture convolve(const MaskPicture& in, const MaskLayer& layer, int stride = 1);
// Transposed convolution 4x4, stride 2, padding 1: twice the size.
MaskPicture upsample(const MaskPicture& in, const MaskLayer& layer);
MaskPicture relu(MaskPicture picture);

// x + layers[2](relu(layers[1](relu(layers[0](x)))))
struct MaskResidual {
  MaskLayer layers[3];  // 3x3, 3x3, 1x1
};
MaskPicture addResidual(MaskPicture x, const MaskResidual& block);

// Reads layers, naming the tensor in every complaint (modelInvalid); shape entries of 0 are free and returned.
class MaskReader {
 public:
  // `what`: "mask decoder"
  MaskReader(const MaskTensors& lookup, std::string what) : lookup_(lookup), what_(std::move(what)) {}

  HostTensor read(const std::string& name, std::vector<int64_t> expected) const;
  // `out` 0: as the file says. Transposed convolutions store [in, out, k, k], others [out, in, k, k].
  MaskLayer layer(const std::string& name, int in, int out, int kernel, bool transposed = false) const;
  // `name`: up to the number of the layer.
  MaskResidual residual(const std::string& name, int channels) const;

 private:
  const MaskTensors& lookup_;
  const std::string what_;
};

}  // namespace pg
