// Decoders must reproduce the reference bit for bit; encoders must not have a larger error than it.
#include <limits>

#include "base/half.h"
#include "format/gguf.h"
#include "format/quantize.h"
#include "golden.h"

using namespace pg;
using namespace pg::test;

namespace {

bool sameBits(float a, float b) {
  return std::isnan(a) ? std::isnan(b) : floatToBits(a) == floatToBits(b);
}

}  // namespace

TEST(dequantize_every_type_matches_the_reference_bit_for_bit) {
  const std::string path = golden("gguf/quants.gguf");
  if (path.empty()) return;
  const auto file = GgufFile::open(path);
  const Safetensors expected(golden("gguf/quants.expected.safetensors"));
  CHECK(file->tensors().size() > 80);
  for (const auto& t : file->tensors()) {
    const std::vector<float> want = expected[std::string(t.name)].floats();
    CHECK_EQUAL(int64_t(want.size()), t.elements());
    std::vector<float> got(want.size());
    CHECK(canDequantize(t.type));
    const ConstView view = file->view(t);
    for (int64_t r = 0; r < t.rows(); ++r)
      dequantizeRow(t.type, view.row<uint8_t>(r), got.data() + r * t.cols(), t.cols());
    for (size_t i = 0; i < want.size(); ++i)
      if (!sameBits(got[i], want[i]))
        throw Failure{std::string(t.name), "element " + std::to_string(i) + ": " + std::to_string(got[i]) + " instead of " + std::to_string(want[i])};
  }
}
