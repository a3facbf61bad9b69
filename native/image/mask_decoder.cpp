#include "image/mask_decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "base/error.h"
#include "base/math.h"
#include "format/quantize.h"
#include "image/image.h"

namespace pg {
namespace {

constexpr int kLanes = 8;   // outputs that one inner step makes; channel counts are padded to a multiple
constexpr int kPixels = 4;  // pixels that share the weights of an inner step
constexpr int kStart = 4;   // codes form a 4x4 picture

int padded(int channels) { return roundUp(channels, kLanes); }

// A picture [size, size, channels] with the channels innermost and padded with zeros.
struct Picture {
  int size = 0, channels = 0;
  std::vector<float> data;
  Picture(int s, int c) : size(s), channels(padded(c)), data(size_t(s) * size_t(s) * size_t(channels)) {}
  const float* at(int y, int x) const { return &data[(size_t(y) * size_t(size) + size_t(x)) * size_t(channels)]; }
  float* at(int y, int x) { return &data[(size_t(y) * size_t(size) + size_t(x)) * size_t(channels)]; }
};

struct Layer {
  int in = 0, out = 0, kernel = 0;  // channels, pixels
  std::vector<float> weight;        // [kernel * kernel, out / kLanes, padded in, kLanes]
  std::vector<float> bias;          // [padded out]
  const float* tap(int ky, int kx) const {
    return &weight[size_t(ky * kernel + kx) * size_t(padded(in)) * size_t(padded(out))];
  }
};

// Where an output pixel takes its inputs from: input offset and weights.
struct Tap {
  int dy, dx;
  const float* weight;
};

// Output pixels (y * step + shiftY, x * step + shiftX) = bias + sum over taps of weight * in(y + dy, x + dx).
void filter(const Picture& in, const std::vector<Tap>& taps, const Layer& layer, int step, int shiftY, int shiftX,
            Picture& out) {
  const std::vector<float> outside(size_t(in.channels), 0.0f);
  const int pixels = in.size * in.size;
  for (int first = 0; first < pixels; first += kPixels) {
    for (int lane = 0; lane < out.channels; lane += kLanes) {
      float sum[kPixels][kLanes];
      for (int p = 0; p < kPixels; ++p) memcpy(sum[p], &layer.bias[size_t(lane)], sizeof sum[p]);
      for (const Tap& tap : taps) {
        const float* source[kPixels];
        bool any = false;
        for (int p = 0; p < kPixels; ++p) {
          const int pixel = std::min(first + p, pixels - 1), y = pixel / in.size + tap.dy, x = pixel % in.size + tap.dx;
          const bool inside = y >= 0 && y < in.size && x >= 0 && x < in.size;
          source[p] = inside ? in.at(y, x) : outside.data();
          any |= inside;
        }
        if (!any) continue;
        const float* weight = tap.weight + size_t(lane) * size_t(in.channels);
        for (int c = 0; c < in.channels; ++c, weight += kLanes)
          for (int p = 0; p < kPixels; ++p)
            for (int l = 0; l < kLanes; ++l) sum[p][l] += source[p][c] * weight[l];
      }
      for (int p = 0; p < kPixels && first + p < pixels; ++p) {
        const int y = (first + p) / in.size * step + shiftY, x = (first + p) % in.size * step + shiftX;
        memcpy(out.at(y, x) + lane, sum[p], sizeof sum[p]);
      }
    }
  }
}

// Convolution, stride 1, same size.
Picture convolve(const Picture& in, const Layer& layer) {
  std::vector<Tap> taps;
  const int reach = layer.kernel / 2;
  for (int ky = 0; ky < layer.kernel; ++ky)
    for (int kx = 0; kx < layer.kernel; ++kx) taps.push_back({ky - reach, kx - reach, layer.tap(ky, kx)});
  Picture out(in.size, layer.out);
  filter(in, taps, layer, 1, 0, 0, out);
  return out;
}

// Transposed convolution 4x4, stride 2, padding 1: out[2y + ky - 1] += in[y] * weight[ky]. Seen from the output, even
// rows take (y, ky 1) and (y - 1, ky 3), odd rows (y, ky 2) and (y + 1, ky 0).
Picture upsample(const Picture& in, const Layer& layer) {
  static constexpr struct {
    int offset, k;
  } kFrom[2][2] = {{{0, 1}, {-1, 3}}, {{0, 2}, {1, 0}}};
  Picture out(in.size * 2, layer.out);
  for (int shiftY = 0; shiftY < 2; ++shiftY)
    for (int shiftX = 0; shiftX < 2; ++shiftX) {
      std::vector<Tap> taps;
      for (const auto& row : kFrom[shiftY])
        for (const auto& column : kFrom[shiftX])
          taps.push_back({row.offset, column.offset, layer.tap(row.k, column.k)});
      filter(in, taps, layer, 2, shiftY, shiftX, out);
    }
  return out;
}

Picture relu(Picture picture) {
  for (float& v : picture.data) v = v > 0 ? v : 0;
  return picture;
}

std::string shapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

// Names the tensor in every complaint; shape entries of 0 are free and returned.
class Reader {
 public:
  explicit Reader(const MaskDecoder::Lookup& lookup) : lookup_(lookup) {}

  HostTensor read(const std::string& name, std::vector<int64_t> expected) const {
    HostTensor tensor = lookup_(name);
    if (tensor.data.empty())
      fail(Code::modelInvalid, "The mask decoder has no tensor ", name, " (vae-oid.npz holds them all)");
    // GGUF drops outermost ones
    while (tensor.shape.size() < expected.size()) tensor.shape.insert(tensor.shape.begin(), 1);
    bool good = tensor.shape.size() == expected.size();
    size_t count = 1;
    for (size_t i = 0; good && i < expected.size(); ++i) {
      good =
          tensor.shape[i] >= 1 && tensor.shape[i] <= kMaxChannels && (!expected[i] || tensor.shape[i] == expected[i]);
      count *= size_t(tensor.shape[i]);
    }
    if (!good || count != tensor.data.size())
      fail(Code::modelInvalid, "Mask decoder tensor ", name, " has shape ", shapeText(tensor.shape), " and ",
           tensor.data.size(), " values, expected ", shapeText(expected), " (0 = any)");
    return tensor;
  }

  // `out` 0: as the file says. Transposed convolutions store [in, out, k, k], others [out, in, k, k].
  Layer layer(const std::string& name, int in, int out, int kernel, bool transposed = false) const {
    const Tensor tensor = read(name + ".weight", transposed ? std::vector<int64_t>{in, out, kernel, kernel}
                                                            : std::vector<int64_t>{out, in, kernel, kernel});
    Layer made;
    made.in = in;
    made.out = int(tensor.shape[transposed ? 1 : 0]);
    made.kernel = kernel;
    const size_t taps = size_t(kernel) * size_t(kernel), paddedIn = size_t(padded(in));
    made.weight.assign(taps * paddedIn * size_t(padded(made.out)), 0);
    for (size_t o = 0; o < size_t(made.out); ++o)
      for (size_t i = 0; i < size_t(in); ++i)
        for (size_t t = 0; t < taps; ++t) {
          const size_t from = transposed ? (i * size_t(made.out) + o) * taps + t : (o * size_t(in) + i) * taps + t;
          const size_t to = t * paddedIn * size_t(padded(made.out)) + (o / kLanes * paddedIn + i) * kLanes + o % kLanes;
          made.weight[to] = tensor.data[from];
        }
    made.bias = read(name + ".bias", {made.out}).data;
    made.bias.resize(size_t(padded(made.out)), 0);
    return made;
  }

 private:
  using Tensor = HostTensor;
  static constexpr int64_t kMaxChannels = 4096;
  const MaskDecoder::Lookup& lookup_;
};

}  // namespace

struct MaskDecoder::Impl {
  int codeSize = 0;               // values a code stands for
  std::vector<float> codebook;    // [kMaskCodebook, codeSize]
  Layer first;                    // 1x1
  Layer residual[2][3];           // 3x3, 3x3, 1x1
  Layer up[4];                    // transposed 4x4
  Layer last;                     // 1x1 to one channel
};

MaskDecoder::MaskDecoder(const Lookup& lookup) : impl_(std::make_unique<Impl>()) {
  const Reader reader(lookup);
  HostTensor codebook = reader.read("_vq_vae._embedding", {kMaskCodebook, 0});
  Impl& m = *impl_;
  m.codeSize = int(codebook.shape[1]);
  m.codebook = std::move(codebook.data);
  m.first = reader.layer("decoder.0", m.codeSize, 0, 1);
  int channels = m.first.out;
  for (int block = 0; block < 2; ++block) {
    const std::string name = "decoder." + std::to_string(2 + block) + ".net.";
    m.residual[block][0] = reader.layer(name + "0", channels, 0, 3);
    m.residual[block][1] = reader.layer(name + "2", m.residual[block][0].out, 0, 3);
    m.residual[block][2] = reader.layer(name + "4", m.residual[block][1].out, channels, 1);
  }
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
  const Lookup lookup = [&file](std::string_view name) {
    HostTensor made;
    const GgufTensor* tensor = file.findTensor("mask." + std::string(name));
    if (!tensor) return made;
    for (uint32_t d = tensor->dims; d-- > 0;) made.shape.push_back(tensor->ne[d]);
    const ConstHostView view = file.view(*tensor);
    made.data.resize(size_t(view.rows) * size_t(view.cols));
    for (int64_t r = 0; r < view.rows; ++r)
      dequantizeRow(view.type, view.row<uint8_t>(r), &made.data[size_t(r) * size_t(view.cols)], view.cols);
    return made;
  };
  return file.whole([&] { return MaskDecoder(lookup); });
}

void MaskDecoder::decode(const int32_t* codes, float* out) const {
  const Impl& m = *impl_;
  Picture x(kStart, m.codeSize);
  for (int i = 0; i < kMaskCodes; ++i) {
    if (codes[i] < 0 || codes[i] >= kMaskCodebook)
      fail(Code::invalidOption, "Mask code ", i, " is ", codes[i], ", expected 0..", kMaskCodebook - 1);
    std::copy_n(&m.codebook[size_t(codes[i]) * size_t(m.codeSize)], m.codeSize, x.at(i / kStart, i % kStart));
  }
  x = relu(convolve(x, m.first));
  for (const auto& block : m.residual) {
    const Picture branch = convolve(relu(convolve(relu(convolve(x, block[0])), block[1])), block[2]);
    for (size_t i = 0; i < x.data.size(); ++i) x.data[i] += branch.data[i];
  }
  for (const Layer& layer : m.up) x = relu(upsample(x, layer));
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
