#include "image/mask_decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "base/error.h"
#include "image/image.h"
#include "image/mask_layers.h"

namespace pg {
namespace {

constexpr int kStart = 4;  // codes form a 4x4 picture

}  // namespace

struct MaskDecoder::Impl {
  int codeSize = 0;               // values a code stands for
  std::vector<float> codebook;    // [kMaskCodebook, codeSize]
  MaskLayer first;                // 1x1
  MaskResidual residual[2];
  MaskLayer up[4];                // transposed 4x4
  MaskLayer last;                 // 1x1 to one channel
};

MaskDecoder::MaskDecoder(const Lookup& lookup) : impl_(std::make_unique<Impl>()) {
  const MaskReader reader(lookup, "mask decoder");
  HostTensor codebook = reader.read("_vq_vae._embedding", {kMaskCodebook, 0});
  Impl& m = *impl_;
  m.codeSize = int(codebook.shape[1]);
  m.codebook = std::move(codebook.data);
  m.first = reader.layer("decoder.0", m.codeSize, 0, 1);
  int channels = m.first.out;
  for (int block = 0; block < 2; ++block)
    m.residual[block] = reader.residual("decoder." + std::to_string(2 + block), channels);
  for (int i = 0; i < 4; ++i) {
    m.up[i] = reader.layer("decoder." + std::to_string(4 + 2 * i), channels, 0, 4, true);
    channels = m.up[i].out;
  }
  m.last = reader.layer("decoder.12", channels, 1, 1);
}

MaskDecoder::~MaskDecoder() = default;
MaskDecoder::MaskDecoder(MaskDecoder&&) noexcept = default;

bool MaskDecoder::has(const GgufFile& file) { return file.findTensor("mask._vq_vae._embedding") != nullptr; }

MaskDecoder MaskDecoder::fromGguf(const GgufFile& file) {
  return file.whole([&] { return MaskDecoder(maskTensorsOf(file)); });
}

void MaskDecoder::decode(const int32_t* codes, float* out) const {
  const Impl& m = *impl_;
  MaskPicture x(kStart, m.codeSize);
  for (int i = 0; i < kMaskCodes; ++i) {
    if (codes[i] < 0 || codes[i] >= kMaskCodebook)
      fail(Code::invalidOption, "Mask code ", i, " is ", codes[i], ", expected 0..", kMaskCodebook - 1);
    std::copy_n(&m.codebook[size_t(codes[i]) * size_t(m.codeSize)], m.codeSize, x.at(i / kStart, i % kStart));
  }
  x = relu(convolve(x, m.first));
  for (const MaskResidual& block : m.residual) x = addResidual(std::move(x), block);
  for (const MaskLayer& layer : m.up) x = relu(upsample(x, layer));
  x = convolve(x, m.last);
  for (int i = 0; i < kMaskSize * kMaskSize; ++i) out[i] = *x.at(i / kMaskSize, i % kMaskSize);
}

std::vector<uint8_t> pasteMask(const float* mask, PixelBox box, int32_t width, int32_t height,
                               MaskConvention convention) {
  constexpr int32_t kMaxSide = 1 << 16;
  constexpr int64_t kMaxBoxPixels = int64_t(1) << 28;
  if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide)
    fail(Code::invalidOption, "Cannot paste a mask into ", width, " x ", height, " pixels: sides must be 1..",
         kMaxSide);
  std::vector<uint8_t> picture(size_t(width) * size_t(height), 0);
  const int64_t boxWidth = int64_t(box.x1) - box.x0, boxHeight = int64_t(box.y1) - box.y0;
  if (boxWidth <= 0 || boxHeight <= 0 || box.x1 <= 0 || box.y1 <= 0 || box.x0 >= width || box.y0 >= height)
    return picture;
  if (boxWidth > kMaxSide || boxHeight > kMaxSide || boxWidth * boxHeight > kMaxBoxPixels)
    fail(Code::invalidOption, "A mask box of ", boxWidth, " x ", boxHeight,
         " pixels is too large, clip it to the picture");

  std::vector<uint8_t> resized;  // [boxHeight, boxWidth]
  if (convention == MaskConvention::training) {
    const auto values =
        resizeGrayF32(mask, kMaskSize, kMaskSize, int32_t(boxWidth), int32_t(boxHeight), ResizeFilter::bilinear);
    resized.resize(values.size());
    for (size_t i = 0; i < values.size(); ++i) resized[i] = values[i] > 0 ? 255 : 0;
  } else {
    uint8_t bytes[kMaskSize * kMaskSize];
    for (int i = 0; i < kMaskSize * kMaskSize; ++i) {
      const float value = mask[i] * 0.5f + 0.5f;
      bytes[i] = uint8_t((value > 0 ? std::min(value, 1.0f) : 0.0f) * 255);  // NaN counts as outside
    }
    resized = resizeGray8(bytes, kMaskSize, kMaskSize, int32_t(boxWidth), int32_t(boxHeight), ResizeFilter::bicubic);
  }
  const int32_t left = std::max(box.x0, 0), right = std::min(box.x1, width);
  for (int32_t y = std::max(box.y0, 0); y < std::min(box.y1, height); ++y)
    memcpy(&picture[size_t(y) * size_t(width) + size_t(left)],
           &resized[size_t(int64_t(y) - box.y0) * size_t(boxWidth) + size_t(int64_t(left) - box.x0)],
           size_t(right - left));
  return picture;
}

}  // namespace pg
