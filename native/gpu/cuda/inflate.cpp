#include "gpu/cuda/inflate.h"

#include <array>
#include <cstdint>
#include <vector>

#include "base/error.h"

namespace pg::gpu::cuda {
namespace {

[[noreturn]] void damaged() { fail(Code::internal, "This build's CUDA kernels are damaged"); }

// Bits, lowest first.
class Bits {
 public:
  explicit Bits(std::string_view data) : data_(data) {}

  uint32_t take(int count) {
    while (held_ < count) {
      if (at_ == data_.size()) damaged();
      bits_ |= uint64_t(uint8_t(data_[at_++])) << held_;
      held_ += 8;
    }
    const auto value = uint32_t(bits_ & ((uint64_t(1) << count) - 1));
    bits_ >>= count;
    held_ -= count;
    return value;
  }
  // What follows the byte that was begun.
  std::string_view bytes(size_t count) {
    at_ -= size_t(held_ / 8);
    bits_ = 0, held_ = 0;
    if (count > data_.size() - at_) damaged();
    at_ += count;
    return data_.substr(at_ - count, count);
  }

 private:
  std::string_view data_;
  size_t at_ = 0;
  uint64_t bits_ = 0;
  int held_ = 0;
};

// A canonical Huffman code: symbols in the order of their codes, and how many codes each length has.
class Code15 {
 public:
  explicit Code15(const std::vector<uint8_t>& lengths) : symbols_(lengths.size()) {
    for (const uint8_t length : lengths) ++count_[length];
    count_[0] = 0;
    std::array<uint16_t, 17> next{};
    for (size_t length = 1; length < 16; ++length) next[length + 1] = uint16_t(next[length] + count_[length]);
    for (size_t symbol = 0; symbol < lengths.size(); ++symbol)
      if (lengths[symbol]) symbols_[next[lengths[symbol]]++] = uint16_t(symbol);
  }

  uint32_t read(Bits& bits) const {
    int code = 0, first = 0, index = 0;
    for (size_t length = 1; length < 16; ++length) {
      code |= int(bits.take(1));
      if (code - first < count_[length]) return symbols_[size_t(index + code - first)];
      index += count_[length];
      first = (first + count_[length]) << 1;
      code <<= 1;
    }
    damaged();
  }

 private:
  std::array<uint16_t, 16> count_{};
  std::vector<uint16_t> symbols_;
};

struct Codes {
  Code15 literals, distances;
};

Codes fixedCodes() {
  std::vector<uint8_t> literals(288, 8);
  for (size_t i = 144; i < 256; ++i) literals[i] = 9;
  for (size_t i = 256; i < 280; ++i) literals[i] = 7;
  return {Code15(literals), Code15(std::vector<uint8_t>(30, 5))};
}

Codes readCodes(Bits& bits) {
  const size_t literals = bits.take(5) + 257, distances = bits.take(5) + 1, codes = bits.take(4) + 4;
  static constexpr uint8_t kOrder[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
  std::vector<uint8_t> own(19);
  for (size_t i = 0; i < codes; ++i) own[kOrder[i]] = uint8_t(bits.take(3));
  const Code15 lengthCode(own);

  std::vector<uint8_t> lengths;
  while (lengths.size() < literals + distances) {
    const uint32_t symbol = lengthCode.read(bits);
    if (symbol < 16) {
      lengths.push_back(uint8_t(symbol));
      continue;
    }
    if (symbol == 16 && lengths.empty()) damaged();
    const uint8_t value = symbol == 16 ? lengths.back() : uint8_t(0);
    const uint32_t repeat = symbol == 16 ? 3 + bits.take(2) : symbol == 17 ? 3 + bits.take(3) : 11 + bits.take(7);
    lengths.insert(lengths.end(), repeat, value);
  }
  const auto middle = lengths.begin() + ptrdiff_t(literals), end = middle + ptrdiff_t(distances);
  if (lengths.size() > literals + distances) damaged();
  return {Code15({lengths.begin(), middle}), Code15({middle, end})};
}

void readBlock(Bits& bits, const Codes& codes, std::string& out, size_t most) {
  static constexpr uint16_t kLength[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                           31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
  static constexpr uint8_t kLengthBits[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                              2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
  static constexpr uint16_t kDistance[30] = {1,    2,    3,    4,    5,    7,    9,    13,    17,    25,
                                             33,   49,   65,   97,   129,  193,  257,  385,   513,   769,
                                             1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
  for (;;) {
    const uint32_t symbol = codes.literals.read(bits);
    if (symbol == 256) return;
    if (symbol < 256) {
      out.push_back(char(symbol));
    } else {
      if (symbol > 285) damaged();
      const size_t length = kLength[symbol - 257] + bits.take(kLengthBits[symbol - 257]);
      const uint32_t code = codes.distances.read(bits);
      if (code > 29) damaged();
      const size_t distance = kDistance[code] + bits.take(code < 4 ? 0 : int(code) / 2 - 1);
      if (distance > out.size()) damaged();
      for (size_t i = 0; i < length; ++i) out.push_back(out[out.size() - distance]);
    }
    if (out.size() > most) damaged();
  }
}

}  // namespace

std::string inflate(std::string_view packed, size_t bytes) {
  Bits bits(packed);
  std::string out;
  out.reserve(bytes);
  bool last = false;
  while (!last) {
    last = bits.take(1) != 0;
    const uint32_t kind = bits.take(2);
    if (kind == 0) {
      const std::string_view sizes = bits.bytes(4);
      const size_t count = size_t(uint8_t(sizes[0])) | size_t(uint8_t(sizes[1])) << 8;
      out += bits.bytes(count);
    } else if (kind == 1) {
      readBlock(bits, fixedCodes(), out, bytes);
    } else if (kind == 2) {
      readBlock(bits, readCodes(bits), out, bytes);
    } else {
      damaged();
    }
  }
  if (out.size() != bytes) damaged();
  return out;
}

}  // namespace pg::gpu::cuda
