#include "image/mask_encoder.h"

#include <vector>

#include "image/image.h"
#include "image/mask_decoder.h"

namespace pg {

struct MaskEncoder::Impl {
  int codeSize = 0;             // values a code stands for
  std::vector<float> codebook;  // [kMaskCodebook, codeSize]
  MaskLayer down[4];            // 4x4, stride 2
  MaskResidual residual[2];
  MaskLayer last;  // 1x1 to codeSize channels
};

MaskEncoder::MaskEncoder(const MaskTensors& lookup) : impl_(std::make_unique<Impl>()) {
  const MaskReader reader(lookup, "mask encoder");
  Impl& m = *impl_;
  HostTensor codebook = reader.read("_vq_vae._embedding", {kMaskCodebook, 0});
  m.codeSize = int(codebook.shape[1]);
  m.codebook = std::move(codebook.data);
  int channels = 1;
  for (int i = 0; i < 4; ++i) {
    m.down[i] = reader.layer("encoder." + std::to_string(2 * i), channels, 0, 4);
    channels = m.down[i].out;
  }
  for (int block = 0; block < 2; ++block)
    m.residual[block] = reader.residual("encoder." + std::to_string(8 + block), channels);
  m.last = reader.layer("encoder.10", channels, m.codeSize, 1);
}

MaskEncoder::~MaskEncoder() = default;
MaskEncoder::MaskEncoder(MaskEncoder&&) noexcept = default;

MaskEncoder MaskEncoder::fromGguf(const GgufFile& file) {
  return file.whole([&] { return MaskEncoder(maskTensorsOf(file)); });
}

void MaskEncoder::encode(const uint8_t* mask, int32_t width, int32_t height, int32_t* codes) const {
  const Impl& m = *impl_;
  const std::vector<float> values(mask, mask + int64_t(width) * height);
  const std::vector<float> resized =
      resizeGrayF32(values.data(), width, height, kMaskSize, kMaskSize, ResizeFilter::bilinear);
  MaskPicture x(kMaskSize, 1);
  for (int i = 0; i < kMaskSize * kMaskSize; ++i)
    *x.at(i / kMaskSize, i % kMaskSize) = resized[size_t(i)] / 255 * 2 - 1;
  for (const MaskLayer& layer : m.down) x = relu(convolve(x, layer, 2));
  for (const MaskResidual& block : m.residual) x = addResidual(std::move(x), block);
  x = convolve(x, m.last);
  for (int i = 0; i < kMaskCodes; ++i) {
    const float* latent = x.at(i / x.size, i % x.size);
    double least = 0;
    codes[i] = 0;
    for (int32_t code = 0; code < kMaskCodebook; ++code) {
      double distance = 0;
      for (int c = 0; c < m.codeSize; ++c) {
        const double difference = double(latent[c]) - double(m.codebook[size_t(code) * size_t(m.codeSize) + size_t(c)]);
        distance += difference * difference;
      }
      if (code == 0 || distance < least) least = distance, codes[i] = code;
    }
  }
}

}  // namespace pg
