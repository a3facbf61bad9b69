// Tiles of weights of 4 and 5 bits in AVX2: 16 weight rows x 6 tokens, products of bytes added in 16 bits. Included
// between PG_ISA_BEGIN and PG_ISA_END after rows8_avx2.inl.h, whose blocks of activations these are too.
//
// A weight is slope * level - base with a level of 0 to 15 or 31, as the file has it (Q4_0: slope * (level - 8), so its
// levels are centred and there is no base). So few bits leave room: the pairs of products that vpmaddubsw adds can be
// added up in 16 bits over 32 or 16 columns before they must be widened. 32 products then take 2.5 to 2.75 operations
// where 16-bit levels (tiles8_avx2.inl.h) take four. With Q6_K's 6 bits and its scale per 16 columns it would be 3.25,
// which gained nothing.
#pragma once
#define PG_LEVELS

// 32 columns of 16 weight rows
struct LevelBlock {
  uint8_t levels[8][16][4];  // [columns / 4][row][column]
  float slopes[16], bases[16];
};

static bool hasLevels(pg::DType type) {
  return type == pg::DType::q4_0 || type == pg::DType::q4_k || type == pg::DType::q5_k;
}

// ---- products ----

// acc[i] += products of w[i]'s unsigned bytes with the four signed ones at x, added in pairs. In assembly where
// possible, as vmultiplyAdd16.
PG_INLINE void multiplyAdd8(I* acc, const I* w, const int8_t* x) {
#if defined(__GNUC__) || defined(__clang__)
  I four, product;
  __asm__(
      "vpbroadcastd %4, %2\n\tvpmaddubsw %2, %5, %3\n\tvpmaddubsw %2, %6, %2\n\t"
      "vpaddw %3, %0, %0\n\tvpaddw %2, %1, %1"
      : "+x"(acc[0]), "+x"(acc[1]), "=&x"(four), "=&x"(product)
      : "m"(*(const int8_t(*)[4])x), "x"(w[0]), "x"(w[1]));
#else
  const I four = vsetPair((const int16_t*)x);
  for (int i = 0; i < 2; ++i) acc[i] = _mm256_add_epi16(acc[i], _mm256_maddubs_epi16(w[i], four));
#endif
}

// acc = sums in 16 bits over the steps [first, first + kSteps), of four columns each, for all tokens; with kCentred of
// levels less 8, by the tokens' offsets
template <int kSteps, bool kCentred>
PG_INLINE void sumLevels(const LevelBlock* w, const TokenBlock* x, int lane, int first, I (*acc)[2]) {
  I levels[2] = {load32(w->levels[first][0]), load32(w->levels[first][8])};
  PG_UNROLL
  for (int t = 0; t < 6; ++t) {
    const I four = vsetPair((const int16_t*)x[t].values[first][lane]);
    const I start = kCentred ? vsetPair(x[t].offsets[lane]) : vzeroI();
    PG_UNROLL
    for (int i = 0; i < 2; ++i) acc[t][i] = _mm256_add_epi16(start, _mm256_maddubs_epi16(levels[i], four));
  }
  for (int s = first + 1; s < first + kSteps; ++s) {
    levels[0] = load32(w->levels[s][0]), levels[1] = load32(w->levels[s][8]);
    PG_UNROLL
    for (int t = 0; t < 6; ++t) multiplyAdd8(acc[t], levels, x[t].values[s][lane]);
  }
}

// out += slope * (the tokens' scales) * sums; less base * (the tokens' sums) unless they are centred
template <bool kCentred>
PG_INLINE void addLevels(float* out, const LevelBlock* w, const TokenBlock* x, int lane, I (*sums)[2]) {
  V first = vload(w->slopes), last = vload(w->slopes + 8);
#if defined(__GNUC__) || defined(__clang__)
  // gcc would load the slopes for every token, and keep `out` on the stack as well and store twice
  __asm__("" : "+x"(first), "+x"(last), "+r"(out) : : "memory");
#endif
  PG_UNROLL
  for (int t = 0; t < 6; ++t, out += 16) {
    const V scale = vset(x[t].scales[lane]);
    V low = vfma(vtoF32(sums[t][0]), vmul(first, scale), vload(out));
    V high = vfma(vtoF32(sums[t][1]), vmul(last, scale), vload(out + 8));
    if (!kCentred) {
      const V sum = vset(x[t].sums[lane]);
      low = vfnma(vload(w->bases), sum, low);
      high = vfnma(vload(w->bases + 8), sum, high);
    }
    vstore(out, low);
    vstore(out + 8, high);
  }
}

// kMost: the largest level. kCentred: a weight is slope * (level - 8), which takes no base.
template <int kMost, bool kCentred>
static void tileOf(float* out, const LevelBlock* w, const TokenBlock* x, int64_t blocks) {
  constexpr int kRoom = 32767 / (2 * 127 * kMost), kSteps = kRoom < 8 ? kRoom : 8;  // that 16 bits have room for
  static_assert(kSteps > 0 && 8 % kSteps == 0, "steps are added in equal parts");
  static_assert(!kCentred || kSteps == 8, "offsets are those of a whole group");
  const I one = _mm256_set1_epi16(1);
  int lanes[8];
  _mm256_storeu_si256((I*)lanes, laneGroups());  // its own inverse: group g lies in lane lanes[g]
  for (; blocks > 0; blocks -= 8, x += 6)
    for (int g = 0; g < (blocks < 8 ? int(blocks) : 8); ++g, ++w) {
      I acc[6][2], sums[6][2];
      for (int s = 0; s < 8; s += kSteps) {
        sumLevels<kSteps, kCentred>(w, x, lanes[g], s, acc);
        PG_UNROLL
        for (int t = 0; t < 6; ++t)
          for (int i = 0; i < 2; ++i) {
            const I wide = _mm256_madd_epi16(acc[t][i], one);
            sums[t][i] = s ? _mm256_add_epi32(sums[t][i], wide) : wide;
          }
      }
      addLevels<kCentred>(out, w, x, lanes[g], sums);
    }
}

static void tileLevels(pg::DType type, float* out, const uint8_t* panel, const uint8_t* tokens, int64_t blocks) {
  const LevelBlock* w = (const LevelBlock*)panel;
  const TokenBlock* x = (const TokenBlock*)tokens;
  if (type == pg::DType::q4_0) tileOf<15, true>(out, w, x, blocks);
  else if (type == pg::DType::q4_k) tileOf<15, false>(out, w, x, blocks);
  else tileOf<31, false>(out, w, x, blocks);
}

// ---- activations ----

static void packTokenLevels(const float* x, int64_t stride, int64_t count, int64_t k, uint8_t* tokens) {
  TokenBlock* to = (TokenBlock*)tokens;
  for (int64_t c = 0; c < k; c += pg::kRowBlock, to += 6) {
    for (int64_t t = 0; t < count; ++t) quantizeBlock(x + t * stride + c, k - c, to + t);
    memset(to + count, 0, size_t(6 - count) * sizeof *to);
  }
}

// ---- weights ----

// Up to 256 columns of a row
struct RowLevels {
  uint8_t levels[256];
  float slopes[8], bases[8];
};

static void rowLevels(pg::DType type, const uint8_t* row, int64_t column, int64_t blocks, RowLevels* to) {
  const bool five = type == pg::DType::q5_k;
  if (type == pg::DType::q4_0) {
    vstore(to->bases, vzero());
    const uint8_t* b = row + column / pg::kBlock * pg::kBytesQ4_0;
    for (int64_t g = 0; g < blocks; ++g, b += pg::kBytesQ4_0) {
      _mm256_storeu_si256((__m256i*)(to->levels + 32 * g), levels4_0(b));
      to->slopes[g] = vhalf(b);
    }
    return;
  }
  const uint8_t* b = row + column / pg::kSuperBlock * (five ? pg::kBytesQ5K : pg::kBytesQ4K);
  V slope, base;
  slopes(b, inOrder(), &slope, &base);
  vstore(to->slopes, slope);
  vstore(to->bases, base);
  for (int g = 0; g < 8; ++g)
    _mm256_storeu_si256((__m256i*)(to->levels + 32 * g), five ? levels45K<true>(b, g) : levels45K<false>(b, g));
}

static void packLevels(pg::DType type, const uint8_t* w, size_t stride, int64_t rows, int64_t column, int64_t k,
                       uint8_t* panel) {
  LevelBlock* to = (LevelBlock*)panel;
  for (int64_t c = 0; c < k; c += pg::kSuperBlock, to += 8) {
    const int64_t blocks = (k - c < pg::kSuperBlock ? k - c : pg::kSuperBlock) / pg::kBlock;
    for (int64_t first = 0; first < kTileRows; first += kLanes) {
      RowLevels row[kLanes];
      for (int64_t r = 0; r < kLanes; ++r)
        if (first + r < rows) rowLevels(type, w + stride * size_t(first + r), column + c, blocks, row + r);
        else memset(row + r, 0, sizeof *row);
      V slopes[kLanes], bases[kLanes];
      for (int r = 0; r < kLanes; ++r) slopes[r] = vload(row[r].slopes), bases[r] = vload(row[r].bases);
      vtranspose(slopes);
      vtranspose(bases);
      for (int64_t g = 0; g < blocks; ++g) {
        vstore(to[g].slopes + first, slopes[g]);
        vstore(to[g].bases + first, bases[g]);
        V v[kLanes];
        for (int r = 0; r < kLanes; ++r) v[r] = vload((const float*)(row[r].levels + 32 * g));
        vtranspose(v);
        for (int j = 0; j < kLanes; ++j) vstore((float*)to[g].levels[j][first], v[j]);
      }
    }
  }
}
