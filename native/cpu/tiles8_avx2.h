// Tiles of quantized weights in AVX2: 16 weight rows x 6 tokens in 16-bit integers. Included between PG_ISA_BEGIN and
// PG_ISA_END.
//
// vpmaddubsw would saturate with 8-bit weights, and undoing signs costs what it saves; vpmaddwd on 16 bits needs as
// many instructions and leaves room for values of 12 bits, whose rounding does not matter. Panels are
// [k / 2][16 rows][2], tokens [k / 2][6][2].
#pragma once

constexpr int kLevels16 = 2047;   // 64 products of two such numbers fit 31 bits

static void tile8(float* out, const uint8_t* panel, const float* rowScales, const uint8_t* tokens, const float* tokenScales,
                  const int32_t* offsets, int64_t groups) {
  (void)offsets;   // of unsigned weights: there are none here
  for (; groups > 0; --groups, rowScales += 16, tokenScales += 6) {
    __m256i acc[6][2];
    PG_UNROLL
    for (int t = 0; t < 6; ++t) acc[t][0] = acc[t][1] = _mm256_setzero_si256();
    for (int s = 0; s < pg::kTileGroup / 2; ++s, panel += 64, tokens += 24) {
      const __m256i a = _mm256_load_si256((const __m256i*)panel), b = _mm256_load_si256((const __m256i*)(panel + 32));
      PG_UNROLL
      for (int t = 0; t < 6; ++t) {
        const I x = vsetPair((const int16_t*)(tokens + 4 * t));
        vmultiplyAdd16(&acc[t][0], a, x);
        vmultiplyAdd16(&acc[t][1], b, x);
      }
    }
    const V low = vload(rowScales), high = vload(rowScales + 8);
    PG_UNROLL
    for (int t = 0; t < 6; ++t) {
      const V x = vset(tokenScales[t]);
      vstore(out + 16 * t, vfma(vmul(low, x), _mm256_cvtepi32_ps(acc[t][0]), vload(out + 16 * t)));
      vstore(out + 16 * t + 8, vfma(vmul(high, x), _mm256_cvtepi32_ps(acc[t][1]), vload(out + 16 * t + 8)));
    }
  }
}

// Up to 64 numbers as 16-bit levels of one scale, which is returned.
PG_INLINE float levels(const float* x, int64_t n, int16_t* to) {
  V v[8], top = vzero();
  for (int i = 0; i < 8; ++i) {
    v[i] = n - 8 * i >= 8 ? vload(x + 8 * i) : n - 8 * i <= 0 ? vzero() : vloadFirst(x + 8 * i, n - 8 * i);
    top = vmax(top, vabs(v[i]));
  }
  const float max = vmaxAcross(top);
  const V inverse = vset(max > 0 ? kLevels16 / max : 0);
  for (int i = 0; i < 8; i += 2) {
    const __m256i q = _mm256_packs_epi32(_mm256_cvtps_epi32(vmul(v[i], inverse)), _mm256_cvtps_epi32(vmul(v[i + 1], inverse)));
    _mm256_storeu_si256((__m256i*)(to + 8 * i), _mm256_permute4x64_epi64(q, 0xd8));
  }
  return max / kLevels16;
}

static void packTokens8(const float* x, int64_t stride, int64_t count, int64_t k, uint8_t* tokens, float* scales, int32_t* offsets) {
  (void)offsets;
  for (int64_t c = 0; c < k; c += pg::kTileGroup, tokens += pg::kTileGroup * 12, scales += 6) {
    int32_t pairs[6][32];
    for (int64_t t = 0; t < 6; ++t) {
      scales[t] = t < count ? levels(x + t * stride + c, k - c, (int16_t*)pairs[t]) : 0;
      if (t >= count) memset(pairs[t], 0, sizeof pairs[t]);
    }
    for (int i = 0; i < 32; ++i)
      for (int t = 0; t < 6; ++t) memcpy(tokens + 24 * i + 4 * t, &pairs[t][i], 4);
  }
}

// ---- whole super-blocks to f32 ----

PG_INLINE V bytesToF32(__m128i eight) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight)); }

// 32 unsigned bytes as slope * q - base
PG_INLINE void store32(float* to, __m256i q, float slope, float base) {
  const V m = vset(slope), b = vset(base);
  const __m128i low = _mm256_castsi256_si128(q), high = _mm256_extracti128_si256(q, 1);
  vstore(to, _mm256_fmsub_ps(bytesToF32(low), m, b));
  vstore(to + 8, _mm256_fmsub_ps(bytesToF32(_mm_srli_si128(low, 8)), m, b));
  vstore(to + 16, _mm256_fmsub_ps(bytesToF32(high), m, b));
  vstore(to + 24, _mm256_fmsub_ps(bytesToF32(_mm_srli_si128(high, 8)), m, b));
}

static void wideQ4_0(const uint8_t* b, float* to, int64_t n) {
  for (; n > 0; n -= 32, b += 18, to += 32) {
    const float d = vhalf(b);
    const __m128i q = _mm_loadu_si128((const __m128i*)(b + 2));
    const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(q), _mm_srli_epi16(q, 4), 1);
    store32(to, _mm256_and_si256(both, _mm256_set1_epi8(15)), d, 8 * d);
  }
}

struct ScaleMin {
  uint8_t scale[8], min[8];
};

// The eight 6-bit scales and minimums of Q4_K and Q5_K, four at a time.
PG_INLINE ScaleMin scaleMin(const uint8_t* s) {
  uint32_t a, b, c, part[4];
  memcpy(&a, s, 4);
  memcpy(&b, s + 4, 4);
  memcpy(&c, s + 8, 4);
  part[0] = a & 0x3f3f3f3f;
  part[1] = (c & 0x0f0f0f0f) | ((a >> 2) & 0x30303030);
  part[2] = b & 0x3f3f3f3f;
  part[3] = ((c >> 4) & 0x0f0f0f0f) | ((b >> 2) & 0x30303030);
  ScaleMin out;
  memcpy(&out, part, 16);
  return out;
}

// Slope and base of the eight groups of a Q4_K or Q5_K super-block (they begin alike): x = slope * q - base.
PG_INLINE void slopes(const uint8_t* row, float* slope, float* base) {
  const ScaleMin sm = scaleMin(row + 4);
  uint32_t both;
  memcpy(&both, row, 4);
  const __m128 d = _mm_cvtph_ps(_mm_cvtsi32_si128((int)both));
  vstore(slope, vmul(bytesToF32(_mm_loadl_epi64((const __m128i*)sm.scale)), _mm256_broadcastss_ps(d)));
  vstore(base, vmul(bytesToF32(_mm_loadl_epi64((const __m128i*)sm.min)), _mm256_broadcastss_ps(_mm_movehdup_ps(d))));
}

// 32 columns of Q4_K or Q5_K (five: the fifth bits, else NULL): group 2j + high
PG_INLINE __m256i nibblesK(const uint8_t* qs, const uint8_t* fives, int j, int high) {
  __m256i q = _mm256_loadu_si256((const __m256i*)(qs + 32 * j));
  q = _mm256_and_si256(high ? _mm256_srli_epi16(q, 4) : q, _mm256_set1_epi8(15));
  if (!fives) return q;
  const __m256i bit = _mm256_set1_epi8((char)(1 << (2 * j + high)));
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_loadu_si256((const __m256i*)fives), bit), bit);
  return _mm256_or_si256(q, _mm256_and_si256(set, _mm256_set1_epi8(16)));
}

static void wideQ45K(const uint8_t* b, float* to, int64_t n, bool five) {
  for (; n > 0; n -= 256, b += five ? 176 : 144) {
    float slope[8], base[8];
    slopes(b, slope, base);
    for (int g = 0; g < 8; ++g, to += 32) store32(to, nibblesK(b + (five ? 48 : 16), five ? b + 16 : NULL, g / 2, g % 2), slope[g], base[g]);
  }
}

// 32 columns of Q6_K as 0..63: part 0..7
PG_INLINE __m256i sixBits(const uint8_t* b, int part) {
  const int half = part / 4, j = part % 4;   // 128 columns each; ql serves j and j + 2, qh all four
  const __m256i low = _mm256_loadu_si256((const __m256i*)(b + 64 * half + 32 * (j % 2)));
  const __m256i high = _mm256_srl_epi16(_mm256_loadu_si256((const __m256i*)(b + 128 + 32 * half)), _mm_cvtsi32_si128(2 * j));
  const __m256i nibble = _mm256_and_si256(j < 2 ? low : _mm256_srli_epi16(low, 4), _mm256_set1_epi8(15));
  return _mm256_or_si256(nibble, _mm256_slli_epi16(_mm256_and_si256(high, _mm256_set1_epi8(3)), 4));
}

static void wideQ6K(const uint8_t* b, float* to, int64_t n) {
  for (; n > 0; n -= 256, b += 210) {
    const float d = vhalf(b + 208);
    const int8_t* s = (const int8_t*)b + 192;
    for (int part = 0; part < 8; ++part, to += 32) {
      float a = d * s[2 * part], c = d * s[2 * part + 1];
      const __m256i q = sixBits(b, part);
      const __m128i low = _mm256_castsi256_si128(q), high = _mm256_extracti128_si256(q, 1);
      vstore(to, _mm256_fmsub_ps(bytesToF32(low), vset(a), vset(32 * a)));
      vstore(to + 8, _mm256_fmsub_ps(bytesToF32(_mm_srli_si128(low, 8)), vset(a), vset(32 * a)));
      vstore(to + 16, _mm256_fmsub_ps(bytesToF32(high), vset(c), vset(32 * c)));
      vstore(to + 24, _mm256_fmsub_ps(bytesToF32(_mm_srli_si128(high, 8)), vset(c), vset(32 * c)));
    }
  }
}

static bool hasTile8(pg::DType type) {
  return type == pg::DType::q8_0 || type == pg::DType::q4_0 || type == pg::DType::q4_k || type == pg::DType::q5_k || type == pg::DType::q6_k;
}

static void packRows8(pg::DType type, const uint8_t* w, size_t stride, int64_t rows, int64_t column, int64_t k, uint8_t* panel, float* scales) {
  for (int64_t c = 0; c < k; c += 256) {
    const int64_t n = k - c < 256 ? k - c : 256, groups = (n + 63) / 64, at = column + c;
    for (int64_t half = 0; half < 16; half += 8) {
      alignas(32) int16_t values[8][256];
      for (int64_t r = 0; r < 8; ++r) {
        float wide[256];
        const float* x = wide;
        const uint8_t* row = w + stride * size_t(half + r);
        if (half + r >= rows) {
          memset(values[r], 0, sizeof values[r]);
          for (int64_t g = 0; g < groups; ++g) scales[(c / 64 + g) * 16 + half + r] = 0;
          continue;
        }
        switch (type) {
          case pg::DType::q8_0: q8ToF32Row((const pg::BlockQ8_0*)row + at / 32, wide, n); break;
          case pg::DType::q4_0: wideQ4_0(row + at / 32 * 18, wide, n); break;
          case pg::DType::q4_k: wideQ45K(row + at / 256 * 144, wide, n, false); break;
          case pg::DType::q5_k: wideQ45K(row + at / 256 * 176, wide, n, true); break;
          case pg::DType::q6_k: wideQ6K(row + at / 256 * 210, wide, n); break;
          default: x = (const float*)row + at;
        }
        for (int64_t g = 0; g < groups; ++g) scales[(c / 64 + g) * 16 + half + r] = levels(x + 64 * g, n - 64 * g, values[r] + 64 * g);
      }
      for (int64_t i = 0; i < groups * 4; ++i) {   // 16 columns: 8 pairs of 8 rows
        V v[8];
        for (int r = 0; r < 8; ++r) v[r] = _mm256_castsi256_ps(_mm256_load_si256((const __m256i*)(values[r] + 16 * i)));
        vtranspose(v);
        for (int j = 0; j < 8; ++j) vstore((float*)(panel + (c / 2 + 8 * i + j) * 64 + half * 4), v[j]);
      }
    }
  }
}

static double peak8(int64_t rounds) {
  __m256i acc[10], a = _mm256_set1_epi8((char)rounds), one = _mm256_set1_epi16(1);
  for (int i = 0; i < 10; ++i) acc[i] = _mm256_set1_epi32(i);
  for (int64_t n = 0; n < rounds; ++n) {
    PG_UNROLL
    for (int i = 0; i < 10; ++i) {
#if defined(__GNUC__) || defined(__clang__)
      __asm__ volatile("" : "+x"(a));   // or the product would leave the loop
#endif
      acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, a), one));
    }
  }
  for (int i = 1; i < 10; ++i) acc[0] = _mm256_or_si256(acc[0], acc[i]);
  return (double)rounds * 10 * 64 + (_mm256_extract_epi32(acc[0], 0) == 12345);
}
