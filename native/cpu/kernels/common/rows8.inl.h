// Rows of 8-bit products from an instruction set's kernels of one row, dotQ48_0, dotQ45K and dotQ6K, and of one block
// of activations, quantizeBlock. Included between PG_ISA_BEGIN and PG_ISA_END.
#pragma once

static bool hasDot8(pg::DType type) {
  return type == pg::DType::q8_0 || type == pg::DType::q4_0 || type == pg::DType::q4_k || type == pg::DType::q5_k ||
         type == pg::DType::q6_k;
}

PG_INLINE size_t superBytes(pg::DType type) {  // of 256 columns
  switch (type) {
    case pg::DType::q4_0: return 8 * pg::kBytesQ4_0;
    case pg::DType::q8_0: return 8 * pg::kBytesQ8_0;
    case pg::DType::q4_k: return pg::kBytesQ4K;
    case pg::DType::q5_k: return pg::kBytesQ5K;
    default: return pg::kBytesQ6K;
  }
}

template <int kTokens>
static void dotRow8(pg::DType type, const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks,
                    float* out, int64_t outStride) {
  switch (type) {
    case pg::DType::q4_0: dotQ48_0<kTokens, false>(row, supers, x, tokenBlocks, out, outStride); break;
    case pg::DType::q8_0: dotQ48_0<kTokens, true>(row, supers, x, tokenBlocks, out, outStride); break;
    case pg::DType::q4_k: dotQ45K<kTokens, false>(row, supers, x, tokenBlocks, out, outStride); break;
    case pg::DType::q5_k: dotQ45K<kTokens, true>(row, supers, x, tokenBlocks, out, outStride); break;
    default: dotQ6K<kTokens>(row, supers, x, tokenBlocks, out, outStride);
  }
}

// Every token in blocks of 256 columns, zeros behind the end; one token's after the other.
static void quantizeTokens(const float* x, int64_t stride, int64_t count, int64_t k, uint8_t* tokens) {
  TokenBlock* to = (TokenBlock*)tokens;
  for (int64_t t = 0; t < count; ++t)
    for (int64_t c = 0; c < k; c += pg::kRowBlock) quantizeBlock(x + t * stride + c, k - c, to++);
}

static void dotRows8(pg::DType type, const uint8_t* w, size_t stride, int64_t rows, int64_t k, const uint8_t* tokens,
                     int64_t count, float* out) {
  const TokenBlock* x = (const TokenBlock*)tokens;
  const int64_t supers = k / pg::kRowBlock, blocks = (k + pg::kRowBlock - 1) / pg::kRowBlock;
  const size_t superSize = superBytes(type), tailSize = size_t(k % pg::kRowBlock) / pg::kBlock * (superSize / 8);
  // Blocks behind the last whole super-block (32-column types only) go through a copy that is padded with zeros.
  uint8_t tail[8 * pg::kBytesQ8_0] = {0};
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t* row = w + stride * size_t(r);
    int64_t t = 0;
    for (; t + 8 <= count; t += 8) dotRow8<8>(type, row, supers, x + t * blocks, blocks, out + t * rows + r, rows);
    for (; t + 4 <= count; t += 4) dotRow8<4>(type, row, supers, x + t * blocks, blocks, out + t * rows + r, rows);
    for (; t + 2 <= count; t += 2) dotRow8<2>(type, row, supers, x + t * blocks, blocks, out + t * rows + r, rows);
    if (t < count) dotRow8<1>(type, row, supers, x + t * blocks, blocks, out + t * rows + r, rows);
    if (tailSize == 0) continue;
    memcpy(tail, row + superSize * size_t(supers), tailSize);
    for (t = 0; t < count; ++t) {
      float more;
      dotRow8<1>(type, tail, 1, x + t * blocks + supers, blocks, &more, 1);
      out[t * rows + r] += more;
    }
  }
}

static uint64_t read(const uint8_t* p, size_t n) {
  V a = vzero(), b = vzero();
  for (size_t i = 0; i < n; i += 512)
    for (size_t j = 0; j < 512; j += 64) {
      vprefetch((const void*)((uintptr_t)(p + i + j) + pg::kPrefetchAhead));
      for (size_t l = 0; l < 64; l += 2 * kLanes * sizeof(float) < 64 ? 2 * kLanes * sizeof(float) : 64) {
        a = vmax(a, vload((const float*)(p + i + j + l)));
        b = vmax(b, vload((const float*)(p + i + j + (l + kLanes * sizeof(float)) % 64)));
      }
    }
  const float top = vmaxAcross(vmax(a, b));
  uint32_t bits;
  memcpy(&bits, &top, 4);
  return bits;
}
