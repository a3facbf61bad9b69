#pragma once
// What the tests of kernels share: tables, rows of every type, activations in blocks.
#include <algorithm>
#include <cstring>

#include "base/half.h"
#include "check.h"
#include "cpu/cpu_info.h"
#include "format/quantize.h"
#include "reference_values.h"

namespace pg {

using test::geluTanh, test::randoms;

#if defined(__x86_64__) || defined(_M_X64)
extern const Kernels kAmxOverAvx2, kAmxOverAvx512;
#endif

inline constexpr int64_t kWidest = 16;   // lanes of the widest vector

// Of this machine, and AMX's with its instructions emulated.
inline std::vector<const Kernels*> everyTable() {
  std::vector<const Kernels*> tables;
  for (const std::string& isa : supportedIsas()) tables.push_back(kernelsFor(isa));
#if defined(__x86_64__) || defined(_M_X64)
  if (kernelsFor("avx2")) tables.push_back(&kAmxOverAvx2);
  if (kernelsFor("avx512vnni")) tables.push_back(&kAmxOverAvx512);
#endif
  return tables;
}

// Runs body(kernels, n, offset) for lengths 0 .. 2 * width + 3 and a few longer ones, at four alignments of floats.
template <class Body>
void forLengths(const Body& body) {
  for (const Kernels* kernels : everyTable())
    for (int64_t n = 0; n <= 2 * kWidest + 3 + 128; n += n < 2 * kWidest + 3 ? 1 : 17)
      for (int64_t offset = 0; offset < 4; ++offset) body(*kernels, n, offset);
}

inline void checkRow(const Kernels& kernels, const float* out, const std::vector<double>& want, double relative,
                     double absolute = 1e-30) {
  for (size_t i = 0; i < want.size(); ++i)
    if (!(std::fabs(out[i] - want[i]) <= relative * std::fabs(want[i]) + absolute))
      throw test::Failure{kernels.isa, "value " + std::to_string(i) + " of " + std::to_string(want.size()) + ": " +
                                           std::to_string(out[i]) + " instead of " + std::to_string(want[i])};
}

struct Rows {
  size_t front;                   // bytes before the first row: rows of a file are aligned to their values, no more
  std::vector<uint8_t> bytes;
  std::vector<float> values;
  size_t stride;
  const uint8_t* data() const { return bytes.data() + front; }

  Rows(DType type, int64_t rows, int64_t cols, unsigned seed)
      : front(type == DType::f32 ? 4 : 2),
        values(randoms(size_t(rows * cols), seed, 0.2f)),
        stride(bytesFor(type, cols)) {
    bytes.resize(stride * size_t(rows) + front);
    for (int64_t r = 0; r < rows; ++r) {
      quantizeRow(type, values.data() + r * cols, bytes.data() + front + stride * size_t(r), cols);
      dequantizeRow(type, bytes.data() + front + stride * size_t(r), values.data() + r * cols, cols);
    }
  }
};

// Activations as the decode kernels read them; on a cache line, as the driver's are.
struct TokenBlocks {
  std::vector<uint8_t> bytes;
  uint8_t* data;
  TokenBlocks(const Kernels& k, const float* x, int64_t tokens, int64_t n)
      : bytes(size_t(tokens * ((n + kRowBlock - 1) / kRowBlock) * k.tokenBlockBytes) + 64, 0x55),
        data(reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(bytes.data()) + 63) & ~uintptr_t(63))) {
    k.quantizeTokens(x, n, tokens, n, data);
  }
};

inline const DType kEightBitTypes[] = {DType::q8_0, DType::q4_0, DType::q4_k, DType::q5_k, DType::q6_k};

}  // namespace pg
