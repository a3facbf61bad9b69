#include "serve/load/check_device.h"

#include <cmath>

#include "format/quantize.h"

namespace pg {
namespace {

constexpr int64_t kIn = 256, kOut = 48;

// Neither regular nor random: the same everywhere.
std::vector<float> values(int64_t count, int64_t step) {
  std::vector<float> list;
  for (int64_t i = 0; i < count; ++i) list.push_back(float((i * step) % 101 - 50) / 50);
  return list;
}

bool near(const std::vector<float>& got, const std::vector<double>& right, double tolerance) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < right.size(); ++i) {
    difference += (got[i] - right[i]) * (got[i] - right[i]);
    size += right[i] * right[i];
  }
  return difference <= tolerance * tolerance * size;  // false for NaN
}

Buffer uploaded(Device& device, const std::vector<float>& from, View& view, int64_t rows, int64_t cols) {
  Buffer buffer = device.allocate(from.size() * sizeof(float));
  view = buffer.view(DType::f32, rows, cols);
  device.upload(view, from.data());
  return buffer;
}

bool multiplies(Device& device, DType type, int64_t rows) {
  std::vector<float> weight = values(kOut * kIn, 37);
  std::vector<uint8_t> bytes(bytesFor(type, kIn) * size_t(kOut));
  for (int64_t row = 0; row < kOut; ++row) {
    uint8_t* at = bytes.data() + bytesFor(type, kIn) * size_t(row);
    quantizeRow(type, weight.data() + row * kIn, at, kIn);
    dequantizeRow(type, at, weight.data() + row * kIn, kIn);
  }
  Linear linear;
  const Placement placement{.host = {bytes.data(), type, kOut, kIn}, .file = {}, .to = &linear.weight};
  const std::vector<Buffer> placed = device.place({&placement, 1});

  const std::vector<float> x = values(rows * kIn, 53);
  std::vector<float> y(size_t(rows * kOut));
  View in, out;
  const Buffer first = uploaded(device, x, in, rows, kIn), second = uploaded(device, y, out, rows, kOut);
  const MatmulJob job{out, &linear};
  device.matmul(in, {&job, 1});
  device.download(y.data(), out);

  std::vector<double> right;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < kOut; ++o) {
      double sum = 0;
      for (int64_t i = 0; i < kIn; ++i) sum += double(x[size_t(r * kIn + i)]) * weight[size_t(o * kIn + i)];
      right.push_back(sum);
    }
  return near(y, right, 0.02);
}

bool normalizes(Device& device) {
  const std::vector<float> x = values(3 * kIn, 29), weight = values(kIn, 31);
  std::vector<float> y(x.size());
  View in, factors, out;
  const Buffer a = uploaded(device, x, in, 3, kIn), b = uploaded(device, weight, factors, 1, kIn),
               c = uploaded(device, y, out, 3, kIn);
  device.rmsNorm(out, in, factors, 1e-6f);
  device.download(y.data(), out);
  std::vector<double> right;
  for (size_t row = 0; row < 3; ++row) {
    double squares = 0;
    for (size_t i = 0; i < size_t(kIn); ++i) squares += double(x[row * kIn + i]) * x[row * kIn + i];
    for (size_t i = 0; i < size_t(kIn); ++i)
      right.push_back(x[row * kIn + i] / std::sqrt(squares / kIn + 1e-6) * weight[i]);
  }
  return near(y, right, 1e-4);
}

}  // namespace

std::string wrongOp(Device& device) {
  for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::q4_0, DType::q4_k})
    for (const int64_t rows : {1, 70})
      if (!multiplies(device, type, rows)) return std::string("products with ") + dtypeName(type) + " weights";
  if (!normalizes(device)) return "norms";
  return {};
}

}  // namespace pg
