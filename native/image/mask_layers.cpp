#include "image/mask_layers.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/math.h"
#include "format/quantize.h"

namespace pg {
namespace {

constexpr int kOutputs = 8;   // outputs that one inner step makes; channel counts are padded to a multiple
constexpr int kPixels = 4;  // pixels that share the weights of an inner step
constexpr int64_t kMaxChannels = 4096;

int padded(int channels) { return roundUp(channels, kOutputs); }

// Where an output pixel takes its inputs from: input offset and weights.
struct KernelTap {
  int dy, dx;
  const float* weight;
};

// Of the points of a square, which input pixel and which output pixel they are: y * inStep, y * outStep + shiftY.
struct Grid {
  int side, inStep, outStep, shiftY, shiftX;
};

// At every point: output = bias + sum over taps of weight * input(y + dy, x + dx).
void filter(const MaskPicture& in, const std::vector<KernelTap>& taps, const MaskLayer& layer, const Grid& grid,
            MaskPicture& out) {
  const std::vector<float> outside(size_t(in.channels), 0.0f);
  const int points = grid.side * grid.side;
  for (int first = 0; first < points; first += kPixels) {
    for (int lane = 0; lane < out.channels; lane += kOutputs) {
      float sum[kPixels][kOutputs];
      for (int p = 0; p < kPixels; ++p) memcpy(sum[p], &layer.bias[size_t(lane)], sizeof sum[p]);
      for (const KernelTap& tap : taps) {
        const float* source[kPixels];
        bool any = false;
        for (int p = 0; p < kPixels; ++p) {
          const int point = std::min(first + p, points - 1);
          const int y = point / grid.side * grid.inStep + tap.dy, x = point % grid.side * grid.inStep + tap.dx;
          const bool inside = y >= 0 && y < in.size && x >= 0 && x < in.size;
          source[p] = inside ? in.at(y, x) : outside.data();
          any |= inside;
        }
        if (!any) continue;
        const float* weight = tap.weight + size_t(lane) * size_t(in.channels);
        for (int c = 0; c < in.channels; ++c, weight += kOutputs)
          for (int p = 0; p < kPixels; ++p)
            for (int l = 0; l < kOutputs; ++l) sum[p][l] += source[p][c] * weight[l];
      }
      for (int p = 0; p < kPixels && first + p < points; ++p) {
        const int y = (first + p) / grid.side * grid.outStep + grid.shiftY;
        const int x = (first + p) % grid.side * grid.outStep + grid.shiftX;
        memcpy(out.at(y, x) + lane, sum[p], sizeof sum[p]);
      }
    }
  }
}

}  // namespace

MaskPicture::MaskPicture(int side, int count)
    : size(side), channels(padded(count)), data(size_t(side) * size_t(side) * size_t(channels)) {}

const float* MaskLayer::tap(int ky, int kx) const {
  return &weight[size_t(ky * kernel + kx) * size_t(padded(in)) * size_t(padded(out))];
}

MaskPicture convolve(const MaskPicture& in, const MaskLayer& layer, int stride) {
  std::vector<KernelTap> taps;
  const int reach = (layer.kernel - 1) / 2;
  for (int ky = 0; ky < layer.kernel; ++ky)
    for (int kx = 0; kx < layer.kernel; ++kx) taps.push_back({ky - reach, kx - reach, layer.tap(ky, kx)});
  MaskPicture out(in.size / stride, layer.out);
  filter(in, taps, layer, {out.size, stride, 1, 0, 0}, out);
  return out;
}

// out[2y + ky - 1] += in[y] * weight[ky]. Seen from the output, even rows take (y, ky 1) and (y - 1, ky 3), odd rows
// (y, ky 2) and (y + 1, ky 0).
MaskPicture upsample(const MaskPicture& in, const MaskLayer& layer) {
  static constexpr struct {
    int offset, k;
  } kFrom[2][2] = {{{0, 1}, {-1, 3}}, {{0, 2}, {1, 0}}};
  MaskPicture out(in.size * 2, layer.out);
  for (int shiftY = 0; shiftY < 2; ++shiftY)
    for (int shiftX = 0; shiftX < 2; ++shiftX) {
      std::vector<KernelTap> taps;
      for (const auto& row : kFrom[shiftY])
        for (const auto& column : kFrom[shiftX])
          taps.push_back({row.offset, column.offset, layer.tap(row.k, column.k)});
      filter(in, taps, layer, {in.size, 1, 2, shiftY, shiftX}, out);
    }
  return out;
}

MaskPicture relu(MaskPicture picture) {
  for (float& v : picture.data) v = v > 0 ? v : 0;
  return picture;
}

MaskPicture addResidual(MaskPicture x, const MaskResidual& block) {
  const MaskLayer* layers = block.layers;
  const MaskPicture branch = convolve(relu(convolve(relu(convolve(x, layers[0])), layers[1])), layers[2]);
  for (size_t i = 0; i < x.data.size(); ++i) x.data[i] += branch.data[i];
  return x;
}

MaskTensors maskTensorsOf(const GgufFile& file) {
  return [&file](std::string_view name) {
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
}

HostTensor MaskReader::read(const std::string& name, std::vector<int64_t> expected) const {
  HostTensor tensor = lookup_(name);
  if (tensor.data.empty())
    fail(Code::modelInvalid, "The ", what_, " has no tensor ", name, " (vae-oid.npz holds them all)");
  // a filter's values in one row, which block types need: [out, in * k * k]
  if (const auto taps = expected.back() * expected.back();
      expected.size() == 4 && tensor.shape.size() == 2 && tensor.shape[1] % taps == 0)
    tensor.shape = {tensor.shape[0], tensor.shape[1] / taps, expected.back(), expected.back()};
  // GGUF drops outermost ones
  while (tensor.shape.size() < expected.size()) tensor.shape.insert(tensor.shape.begin(), 1);
  bool good = tensor.shape.size() == expected.size();
  size_t count = 1;
  for (size_t i = 0; good && i < expected.size(); ++i) {
    good = tensor.shape[i] >= 1 && tensor.shape[i] <= kMaxChannels && (!expected[i] || tensor.shape[i] == expected[i]);
    count *= size_t(tensor.shape[i]);
  }
  if (!good || count != tensor.data.size())
    fail(Code::modelInvalid, "Tensor ", name, " of the ", what_, " has shape ", shapeText(tensor.shape), " and ",
         tensor.data.size(), " values, expected ", shapeText(expected), " (0 = any)");
  // max(0, NaN) would hide it, and a mask without meaning would come out
  for (size_t i = 0; i < count; ++i)
    if (!std::isfinite(tensor.data[i]))
      fail(Code::modelInvalid, "Tensor ", name, " of the ", what_, " holds ", tensor.data[i], " in element ", i,
           ": the training diverged or the file is damaged");
  return tensor;
}

MaskLayer MaskReader::layer(const std::string& name, int in, int out, int kernel, bool transposed) const {
  const HostTensor tensor = read(name + ".weight", transposed ? std::vector<int64_t>{in, out, kernel, kernel}
                                                              : std::vector<int64_t>{out, in, kernel, kernel});
  MaskLayer made;
  made.in = in;
  made.out = int(tensor.shape[transposed ? 1 : 0]);
  made.kernel = kernel;
  const size_t taps = size_t(kernel) * size_t(kernel), paddedIn = size_t(padded(in));
  made.weight.assign(taps * paddedIn * size_t(padded(made.out)), 0);
  for (size_t o = 0; o < size_t(made.out); ++o)
    for (size_t i = 0; i < size_t(in); ++i)
      for (size_t t = 0; t < taps; ++t) {
        const size_t from = transposed ? (i * size_t(made.out) + o) * taps + t : (o * size_t(in) + i) * taps + t;
        const size_t to =
            t * paddedIn * size_t(padded(made.out)) + (o / kOutputs * paddedIn + i) * kOutputs + o % kOutputs;
        made.weight[to] = tensor.data[from];
      }
  made.bias = read(name + ".bias", {made.out}).data;
  made.bias.resize(size_t(padded(made.out)), 0);
  return made;
}

MaskResidual MaskReader::residual(const std::string& name, int channels) const {
  MaskResidual block;
  block.layers[0] = layer(name + ".net.0", channels, 0, 3);
  block.layers[1] = layer(name + ".net.2", block.layers[0].out, 0, 3);
  block.layers[2] = layer(name + ".net.4", block.layers[1].out, channels, 1);
  return block;
}

}  // namespace pg
