// 8-bit tiles in AMX, whose registers are tiles themselves: 16 rows of 64 bytes. Included between PG_ISA_BEGIN and
// PG_ISA_END; the including file has kTileRows, kTileTokens, Level, unpackF32 and these instructions:
//   PG_TILE_CONFIGURE(config), PG_TILE_RELEASE()
//   PG_TILE_ZERO(n), PG_TILE_LOAD(n, from, stride), PG_TILE_STORE(n, to, stride)   strides in bytes
//   PG_TILE_MULTIPLY(c, a, b)     c[m][n] += the sum over i < 64 of a[m][i] * b[i / 4][4 n + i % 4], all signed
//
// One product of tiles is a group of kTileGroup columns. Weights lie in a panel as in AVX-512's, [k / 4][kTileRows][4],
// but with their sign; activations as rows of 64 bytes, [k / 64][kTileTokens][64]. Sums are exact integers and meet
// their scales in the order of the tables without AMX, so the results are theirs, bit for bit.
#pragma once

struct TileConfig {
  uint8_t palette, firstRow, reserved[14];
  uint16_t rowBytes[16];
  uint8_t rows[16];
};
// 0 and 1: sums, 4: activations, 5 and 6: weights
static_assert(kTileTokens <= 16 && (kTileRows == 16 || kTileRows == 32) && pg::kTileGroup == 64,
              "a group of columns is a product of tiles");
alignas(64) static const TileConfig kTileConfig = {
    1, 0, {0}, {64, 64, 0, 0, 64, 64, 64}, {kTileTokens, kTileTokens, 0, 0, kTileTokens, 16, 16}};

// sums[kTileTokens][kTileRows]
PG_INLINE void multiplyGroup(const uint8_t* panel, const uint8_t* tokens, int32_t* sums) {
  PG_FENCE;  // compilers do not know that tiles are loaded from memory
  PG_TILE_LOAD(4, tokens, 64);
  PG_TILE_ZERO(0);
  PG_TILE_LOAD(5, panel, 4 * kTileRows);
  PG_TILE_MULTIPLY(0, 4, 5);
  if (kTileRows > 16) {
    PG_TILE_ZERO(1);
    PG_TILE_LOAD(6, panel + 64, 4 * kTileRows);
    PG_TILE_MULTIPLY(1, 4, 6);
    PG_TILE_STORE(1, sums + 16, 4 * kTileRows);
  }
  PG_TILE_STORE(0, sums, 4 * kTileRows);
  PG_FENCE;
}

static void tile8(float* out, const uint8_t* panel, const float* rowScales, const uint8_t* tokens,
                  const float* tokenScales, const int32_t* offsets, int64_t groups) {
  (void)offsets;  // of unsigned weights: there are none here
  if (groups <= 0) return;
  alignas(64) int32_t sums[2][kTileTokens * kTileRows];
  V acc[kTileTokens][kTileVectors];
  PG_UNROLL
  for (int t = 0; t < kTileTokens; ++t) PG_UNROLL
  for (int i = 0; i < kTileVectors; ++i) acc[t][i] = vload(out + t * kTileRows + i * kLanes);
  PG_TILE_CONFIGURE(&kTileConfig);
  multiplyGroup(panel, tokens, sums[0]);
  for (int64_t g = 0; g < groups; ++g, rowScales += kTileRows, tokenScales += kTileTokens) {
    panel += pg::kTileGroup * kTileRows, tokens += pg::kTileGroup * kTileTokens;
    // the next group's products run while this one's sums are scaled
    if (g + 1 < groups) multiplyGroup(panel, tokens, sums[(g + 1) % 2]);
    const int32_t* sum = sums[g % 2];
    PG_UNROLL
    for (int t = 0; t < kTileTokens; ++t) PG_UNROLL
    for (int i = 0; i < kTileVectors; ++i) {
      const V scale = vmul(vload(rowScales + i * kLanes), vset(tokenScales[t]));
      const I whole = vloadI((const int16_t*)(sum + t * kTileRows + i * kLanes));
      acc[t][i] = vfma(scale, vtoF32(whole), acc[t][i]);
    }
  }
  PG_TILE_RELEASE();
  PG_UNROLL
  for (int t = 0; t < kTileTokens; ++t) PG_UNROLL
  for (int i = 0; i < kTileVectors; ++i) vstore(out + t * kTileRows + i * kLanes, acc[t][i]);
}

static void packTokens8(const float* x, int64_t stride, int64_t count, int64_t k, uint8_t* tokens, float* scales,
                        int32_t* offsets) {
  (void)offsets;
  for (int64_t c = 0; c < k; c += pg::kTileGroup, scales += kTileTokens)
    for (int64_t t = 0; t < kTileTokens; ++t, tokens += pg::kTileGroup)
      if (t < count) {
        scales[t] = unpackF32(x + t * stride + c, k - c < pg::kTileGroup ? k - c : pg::kTileGroup, (Level*)tokens);
      } else {
        scales[t] = 0;
        memset(tokens, 0, size_t(pg::kTileGroup));
      }
}

PG_INLINE V panelWord(V v) { return v; }

static double peak8(int64_t rounds) {
  alignas(64) static const TileConfig kWhole = {1, 0, {0}, {64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16}};
  PG_TILE_CONFIGURE(&kWhole);
  PG_TILE_ZERO(0);
  PG_TILE_ZERO(1);
  PG_TILE_ZERO(2);
  PG_TILE_ZERO(3);
  PG_TILE_ZERO(4);
  PG_TILE_ZERO(5);
  for (int64_t n = 0; n < rounds; ++n) {
    PG_TILE_MULTIPLY(0, 4, 5);
    PG_TILE_MULTIPLY(1, 4, 5);
    PG_TILE_MULTIPLY(2, 4, 5);
    PG_TILE_MULTIPLY(3, 4, 5);
  }
  PG_TILE_RELEASE();
  return (double)rounds * 4 * 2 * 16 * 16 * 64;
}
