#include "gpu/gpu_weights.h"

#include <cstring>
#include <initializer_list>

#include "base/math.h"

namespace pg::gpu {
namespace {

// Fields of a type's block in the order of the device's rows: format/blocks.h has where they lie in a block,
// kernels/quantized.h reads them.
struct Fields {
  DType type;
  uint32_t count;
  uint32_t from[4], bytes[4];
};

constexpr Fields kFields[] = {
    {DType::f32, 1, {0}, {4}},
    {DType::f16, 1, {0}, {2}},
    {DType::bf16, 1, {0}, {2}},
    {DType::q4_0, 2, {2, 0}, {16, 2}},
    {DType::q4_1, 2, {4, 0}, {16, 4}},
    {DType::q5_0, 3, {6, 2, 0}, {16, 4, 2}},
    {DType::q5_1, 3, {8, 4, 0}, {16, 4, 4}},
    {DType::q8_0, 2, {2, 0}, {32, 2}},
    {DType::q2_k, 3, {16, 0, 80}, {64, 16, 4}},
    {DType::q3_k, 4, {32, 0, 96, 108}, {64, 32, 12, 2}},
    {DType::q4_k, 2, {16, 0}, {128, 16}},
    {DType::q5_k, 3, {48, 16, 0}, {128, 32, 16}},
    {DType::q6_k, 4, {0, 128, 192, 208}, {128, 64, 16, 2}},
    {DType::iq4_nl, 2, {2, 0}, {16, 2}},
    {DType::iq4_xs, 2, {8, 0}, {128, 8}},
};

constexpr const Fields* fieldsOf(DType type) {
  for (const Fields& fields : kFields)
    if (fields.type == type) return &fields;
  return nullptr;
}

// The fields of every type are its whole block.
constexpr bool fieldsAreWhole() {
  for (const Fields& fields : kFields) {
    uint32_t bytes = 0;
    for (uint32_t f = 0; f < fields.count; ++f) bytes += fields.bytes[f];
    if (bytes != dtypeInfo(fields.type)->bytes) return false;
  }
  return true;
}
static_assert(fieldsAreWhole());

// Calls move(byte in the packed row, byte in the file's row, how many).
template <class Move>
void eachField(const PackArgs& p, const Move& move) {
  size_t before = 0;
  for (uint32_t f = 0; f < p.fields; ++f) {
    for (size_t b = 0; b < p.blocks; ++b) move(before + b * p.bytes[f], b * p.blockBytes + p.from[f], p.bytes[f]);
    before += size_t(p.bytes[f]) * p.blocks;
  }
}

}  // namespace

bool keepsType(DType type) { return fieldsOf(type) != nullptr; }

PackArgs packing(DType type, int64_t cols) {
  const DTypeInfo& info = *dtypeInfo(type);
  const Fields& fields = *fieldsOf(type);
  PackArgs args{};
  args.blocks = uint32_t(cols / info.block);
  args.blockBytes = info.bytes;
  args.fields = fields.count;
  for (uint32_t f = 0; f < fields.count; ++f) args.from[f] = fields.from[f], args.bytes[f] = fields.bytes[f];
  const int64_t whole = info.quantized ? cols : roundUp<int64_t>(cols, 32);
  args.strideBytes = uint32_t(roundUp<size_t>(bytesFor(type, whole), 16));
  return args;
}

void packRow(const PackArgs& packing, const uint8_t* blocks, uint8_t* packed) {
  eachField(packing, [&](size_t to, size_t from, size_t bytes) { std::memcpy(packed + to, blocks + from, bytes); });
}

void unpackRow(const PackArgs& packing, const uint8_t* packed, uint8_t* blocks) {
  eachField(packing, [&](size_t to, size_t from, size_t bytes) { std::memcpy(blocks + from, packed + to, bytes); });
}

}  // namespace pg::gpu
