// Ops that a device need not bring itself: computed on the host, rows copied there and back.
#include <cmath>
#include <vector>

#include "device/device.h"

namespace pg {

void Device::gelu(View gate, ConstView up) {
  if (up && (up.rows != gate.rows || up.cols != gate.cols)) fail(Code::internal, "gelu: shapes differ");
  std::vector<float> y(size_t(gate.cols)), factor(size_t(up ? up.cols : 0));
  for (int64_t r = 0; r < gate.rows; ++r) {
    download(y.data(), gate.slice(r, 1));
    for (float& x : y) x /= 1 + std::exp(-1.5957691216057308f * (x + 0.044715f * x * x * x));   // 2 sqrt(2 / pi)
    if (up) {
      download(factor.data(), up.slice(r, 1));
      for (size_t i = 0; i < y.size(); ++i) y[i] *= factor[i];
    }
    upload(gate.slice(r, 1), y.data());
  }
}

}  // namespace pg
