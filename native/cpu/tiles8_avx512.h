// 8-bit tiles in AVX-512 VNNI: 32 weight rows x 12 tokens. Included between PG_ISA_BEGIN and PG_ISA_END.
//
// Weights lie in a panel as unsigned bytes (value + 128), [k / 4][32 rows][4]; activations as signed bytes,
// [k / 4][12 tokens][4], broadcast from memory. Each accumulator starts at -128 * (sum of its activations), so that
// the offset of the weights costs nothing. Every group of kTileGroup columns, sums are converted, scaled and added to
// the f32 tile in the first-level cache: 5 operations an accumulator for 16 multiplications.
#pragma once

#define PG_STR_(x) #x
#define PG_STR(x) PG_STR_(x)

#if defined(__GNUC__) || defined(__clang__)
// One loop in assembly: gcc 12 keeps arrays of vpdpbusd accumulators on the stack and is three times slower.
// zmm(8 + 2t), zmm(9 + 2t): rows 0..15 and 16..31 of token t.
#define PG_START(t, a, b) "vpbroadcastd 4*" #t "(%[off]), %%zmm" #a "\n\tvmovdqa32 %%zmm" #a ", %%zmm" #b "\n\t"
#define PG_TOKEN(s, t, a, b) \
  "vpbroadcastd 48*" #s "+4*" #t "(%[x]), %%zmm2\n\tvpdpbusd %%zmm2, %%zmm0, %%zmm" #a "\n\tvpdpbusd %%zmm2, %%zmm1, %%zmm" #b "\n\t"
#define PG_STEP(s)                                                                                                   \
  "vmovdqu64 128*" #s "(%[w]), %%zmm0\n\tvmovdqu64 64+128*" #s "(%[w]), %%zmm1\n\t"                                  \
  PG_TOKEN(s, 0, 8, 9) PG_TOKEN(s, 1, 10, 11) PG_TOKEN(s, 2, 12, 13) PG_TOKEN(s, 3, 14, 15) PG_TOKEN(s, 4, 16, 17)   \
  PG_TOKEN(s, 5, 18, 19) PG_TOKEN(s, 6, 20, 21) PG_TOKEN(s, 7, 22, 23) PG_TOKEN(s, 8, 24, 25) PG_TOKEN(s, 9, 26, 27) \
  PG_TOKEN(s, 10, 28, 29) PG_TOKEN(s, 11, 30, 31)
#define PG_FINISH(t, a, b)                                                                          \
  "vmulps 4*" #t "(%[xs])%{1to16%}, %%zmm0, %%zmm2\n\tvmulps 4*" #t "(%[xs])%{1to16%}, %%zmm1, %%zmm3\n\t" \
  "vcvtdq2ps %%zmm" #a ", %%zmm" #a "\n\tvcvtdq2ps %%zmm" #b ", %%zmm" #b "\n\t"                    \
  "vfmadd213ps 128*" #t "(%[out]), %%zmm2, %%zmm" #a "\n\tvfmadd213ps 128*" #t "+64(%[out]), %%zmm3, %%zmm" #b "\n\t" \
  "vmovups %%zmm" #a ", 128*" #t "(%[out])\n\tvmovups %%zmm" #b ", 128*" #t "+64(%[out])\n\t"

static void tile8(float* out, const uint8_t* panel, const float* rowScales, const uint8_t* tokens, const float* tokenScales,
                  const int32_t* offsets, int64_t groups) {
  if (groups <= 0) return;
  int64_t steps;
  __asm__ volatile(
      ".p2align 4\n1:\n\t"
      PG_START(0, 8, 9) PG_START(1, 10, 11) PG_START(2, 12, 13) PG_START(3, 14, 15) PG_START(4, 16, 17) PG_START(5, 18, 19)
      PG_START(6, 20, 21) PG_START(7, 22, 23) PG_START(8, 24, 25) PG_START(9, 26, 27) PG_START(10, 28, 29) PG_START(11, 30, 31)
      "mov %[count], %[steps]\n\t"
      ".p2align 4\n2:\n\t"
      PG_STEP(0) PG_STEP(1) PG_STEP(2) PG_STEP(3)
      "add $512, %[w]\n\tadd $192, %[x]\n\tdec %[steps]\n\tjnz 2b\n\t"
      "vmovups (%[ws]), %%zmm0\n\tvmovups 64(%[ws]), %%zmm1\n\t"
      PG_FINISH(0, 8, 9) PG_FINISH(1, 10, 11) PG_FINISH(2, 12, 13) PG_FINISH(3, 14, 15) PG_FINISH(4, 16, 17) PG_FINISH(5, 18, 19)
      PG_FINISH(6, 20, 21) PG_FINISH(7, 22, 23) PG_FINISH(8, 24, 25) PG_FINISH(9, 26, 27) PG_FINISH(10, 28, 29) PG_FINISH(11, 30, 31)
      "add $128, %[ws]\n\tadd $48, %[xs]\n\tadd $48, %[off]\n\tdec %[groups]\n\tjnz 1b"
      : [w] "+r"(panel), [ws] "+r"(rowScales), [x] "+r"(tokens), [xs] "+r"(tokenScales), [off] "+r"(offsets),
        [groups] "+r"(groups), [steps] "=&r"(steps)
      : [out] "r"(out), [count] "i"(pg::kTileGroup / 16)
      : "memory", "cc", "zmm0", "zmm1", "zmm2", "zmm3", "zmm8", "zmm9", "zmm10", "zmm11", "zmm12", "zmm13", "zmm14", "zmm15",
        "zmm16", "zmm17", "zmm18", "zmm19", "zmm20", "zmm21", "zmm22", "zmm23", "zmm24", "zmm25", "zmm26", "zmm27", "zmm28",
        "zmm29", "zmm30", "zmm31");
}

#define PG_PEAK(a) "vpdpbusd %%zmm0, %%zmm1, %%zmm" #a "\n\t"
static double peak8(int64_t rounds) {
  int64_t n = rounds;
  __asm__ volatile(
      "vpxord %%zmm0, %%zmm0, %%zmm0\n\tvpxord %%zmm1, %%zmm1, %%zmm1\n\t.p2align 4\n1:\n\t"
      PG_PEAK(8) PG_PEAK(9) PG_PEAK(10) PG_PEAK(11) PG_PEAK(12) PG_PEAK(13) PG_PEAK(14) PG_PEAK(15) PG_PEAK(16) PG_PEAK(17)
      PG_PEAK(18) PG_PEAK(19) PG_PEAK(20) PG_PEAK(21) PG_PEAK(22) PG_PEAK(23) PG_PEAK(24) PG_PEAK(25) PG_PEAK(26) PG_PEAK(27)
      PG_PEAK(28) PG_PEAK(29) PG_PEAK(30) PG_PEAK(31)
      "dec %[n]\n\tjnz 1b"
      : [n] "+r"(n)
      :
      : "cc", "zmm0", "zmm1", "zmm8", "zmm9", "zmm10", "zmm11", "zmm12", "zmm13", "zmm14", "zmm15", "zmm16", "zmm17", "zmm18",
        "zmm19", "zmm20", "zmm21", "zmm22", "zmm23", "zmm24", "zmm25", "zmm26", "zmm27", "zmm28", "zmm29", "zmm30", "zmm31");
  return (double)rounds * 24 * 128;
}
#else
static double peak8(int64_t rounds) {
  __m512i acc[24], a = _mm512_set1_epi8((char)rounds);
  for (int i = 0; i < 24; ++i) acc[i] = a;
  for (int64_t n = 0; n < rounds; ++n)
    for (int i = 0; i < 24; ++i) acc[i] = _mm512_dpbusd_epi32(acc[i], a, a);
  int32_t sum = 0;
  for (int i = 0; i < 24; ++i) sum |= _mm512_reduce_or_epi32(acc[i]);
  return (double)rounds * 24 * 128 + (sum == 1);
}

static void tile8(float* out, const uint8_t* panel, const float* rowScales, const uint8_t* tokens, const float* tokenScales,
                  const int32_t* offsets, int64_t groups) {
  for (; groups > 0; --groups, rowScales += 32, tokenScales += 12, offsets += 12) {
    __m512i a[12], b[12];
    for (int t = 0; t < 12; ++t) a[t] = b[t] = _mm512_set1_epi32(offsets[t]);
    for (int s = 0; s < pg::kTileGroup / 4; ++s, panel += 128, tokens += 48) {
      const __m512i w0 = _mm512_loadu_si512(panel), w1 = _mm512_loadu_si512(panel + 64);
      for (int t = 0; t < 12; ++t) {
        int32_t four;
        memcpy(&four, tokens + 4 * t, 4);
        a[t] = _mm512_dpbusd_epi32(a[t], w0, _mm512_set1_epi32(four));
        b[t] = _mm512_dpbusd_epi32(b[t], w1, _mm512_set1_epi32(four));
      }
    }
    for (int t = 0; t < 12; ++t) {
      const V xs = vset(tokenScales[t]);
      vstore(out + 32 * t, vfma(vmul(vload(rowScales), xs), _mm512_cvtepi32_ps(a[t]), vload(out + 32 * t)));
      vstore(out + 32 * t + 16, vfma(vmul(vload(rowScales + 16), xs), _mm512_cvtepi32_ps(b[t]), vload(out + 32 * t + 16)));
    }
  }
}
#endif

static void packTokens8(const float* x, int64_t stride, int64_t count, int64_t k, uint8_t* tokens, float* scales, int32_t* offsets) {
  const int64_t groups = (k + pg::kTileGroup - 1) / pg::kTileGroup;
  for (int64_t g = 0; g < groups; ++g)
    for (int t = 0; t < kTileTokens; ++t) {
      uint8_t* to = tokens + g * pg::kTileGroup * kTileTokens + 4 * t;
      int32_t bytes[16] = {0};
      float scale = 0;
      int32_t sum = 0;
      if (t < count) {
        V v[4], top = vzero();
        for (int i = 0; i < 4; ++i) {
          const int64_t left = k - (g * pg::kTileGroup + 16 * i);
          v[i] = left <= 0 ? vzero() : vloadFirst(x + t * stride + g * pg::kTileGroup + 16 * i, left);
          top = vmax(top, vabs(v[i]));
        }
        const float max = vmaxAcross(top);
        scale = max / 127;
        const V inverse = vset(max > 0 ? 127 / max : 0);
        __m512i total = _mm512_setzero_si512();
        for (int i = 0; i < 4; ++i) {
          const __m512i q = _mm512_cvtps_epi32(vmul(v[i], inverse));
          total = _mm512_add_epi32(total, q);
          _mm_storeu_si128((__m128i*)(bytes + 4 * i), _mm512_cvtsepi32_epi8(q));
        }
        sum = _mm512_reduce_add_epi32(total);
      }
      for (int i = 0; i < 16; ++i) memcpy(to + i * 4 * kTileTokens, bytes + i, 4);
      scales[g * kTileTokens + t] = scale;
      offsets[g * kTileTokens + t] = -128 * sum;
    }
}

// ---- weights: a row's group of 64 columns as signed bytes with one scale ----

// 32 columns by a table of 16 levels: nibbles of 16 bytes, low ones first
PG_INLINE void lookUp16(const uint8_t* nibbles, V levels, int8_t* to) {
  const __m256i table = _mm256_broadcastsi128_si256(_mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(levels)));
  const __m256i q = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)nibbles));
  const __m256i shift = _mm256_setr_epi64x(0, 0, 4, 4);
  const __m256i index = _mm256_and_si256(_mm256_srlv_epi64(q, shift), _mm256_set1_epi8(15));
  _mm256_storeu_si256((__m256i*)to, _mm256_shuffle_epi8(table, index));
}

PG_INLINE V levels16() { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }

// Blocks that do not exist (a group cut short) are passed as nullptr.
PG_INLINE float unpackQ8_0(const pg::BlockQ8_0* a, const pg::BlockQ8_0* b, int8_t* to) {
  const float da = _cvtsh_ss(a->d), db = b ? _cvtsh_ss(b->d) : 0, scale = fabsf(da) > fabsf(db) ? fabsf(da) : fabsf(db);
  const float inverse = scale > 0 ? 32768 / scale : 0;
  for (int i = 0; i < 2; ++i) {
    const pg::BlockQ8_0* block = i ? b : a;
    if (!block) {
      memset(to + 32, 0, 32);
      continue;
    }
    // a rounding product of 16 bits: the block with the larger scale keeps its values
    const __m512i ratio = _mm512_set1_epi16((short)_mm_cvtsi128_si32(_mm_packs_epi32(_mm_cvtps_epi32(_mm_set_ss((i ? db : da) * inverse)), _mm_setzero_si128())));
    const __m512i q = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)block->qs));
    _mm256_storeu_si256((__m256i*)(to + 32 * i), _mm512_cvtsepi16_epi8(_mm512_mulhrs_epi16(q, ratio)));
  }
  return scale;
}

PG_INLINE float unpackQ4_0(const pg::BlockQ4_0* a, const pg::BlockQ4_0* b, int8_t* to) {
  const float da = _cvtsh_ss(a->d), db = b ? _cvtsh_ss(b->d) : 0, larger = fabsf(da) > fabsf(db) ? da : db;
  // sixteenths of the larger scale: its block is exact, and it decides the sign so that -8 fits a byte
  const float scale = larger / 16, inverse = larger != 0 ? 16 / larger : 0;
  const V levels = vsub(levels16(), vset(8));
  lookUp16(a->qs, vmul(levels, vset(da * inverse)), to);
  if (b) lookUp16(b->qs, vmul(levels, vset(db * inverse)), to + 32);
  else memset(to + 32, 0, 32);
  return scale;
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

// Largest |slope * q - base| for q in 0..top
PG_INLINE float reach(float slope, float base, float top) {
  const float low = fabsf(base), high = fabsf(slope * top - base);
  return low > high ? low : high;
}

static void unpackQ4K(const pg::BlockQ4K* b, int64_t groups, int8_t* to, float* scales) {
  const ScaleMin sm = scaleMin(b->scales);
  const float d = _cvtsh_ss(b->d), dmin = _cvtsh_ss(b->dmin);
  for (int64_t g = 0; g < groups; ++g, to += 64) {
    const float slope[2] = {d * sm.scale[2 * g], d * sm.scale[2 * g + 1]}, base[2] = {dmin * sm.min[2 * g], dmin * sm.min[2 * g + 1]};
    const float a = reach(slope[0], base[0], 15), c = reach(slope[1], base[1], 15), top = a > c ? a : c;
    const float inverse = top > 0 ? 127 / top : 0;
    scales[g] = top / 127;
    const __m512i q = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i*)(b->qs + 32 * g)));
    const __m512i shift = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4);
    const __m512i index = _mm512_and_si512(_mm512_srlv_epi64(q, shift), _mm512_set1_epi8(15));
    __m128i table[2];
    for (int i = 0; i < 2; ++i)
      table[i] = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_fmsub_ps(levels16(), vset(slope[i] * inverse), vset(base[i] * inverse))));
    const __m512i tables = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_broadcastsi128_si256(table[0])), _mm256_broadcastsi128_si256(table[1]), 1);
    _mm512_storeu_si512(to, _mm512_shuffle_epi8(tables, index));
  }
}

static void unpackQ5K(const pg::BlockQ5K* b, int64_t groups, int8_t* to, float* scales) {
  const ScaleMin sm = scaleMin(b->scales);
  const float d = _cvtsh_ss(b->d), dmin = _cvtsh_ss(b->dmin);
  const __m256i high = _mm256_loadu_si256((const __m256i*)b->qh);
  for (int64_t g = 0; g < groups; ++g, to += 64) {
    const float slope[2] = {d * sm.scale[2 * g], d * sm.scale[2 * g + 1]}, base[2] = {dmin * sm.min[2 * g], dmin * sm.min[2 * g + 1]};
    const float a = reach(slope[0], base[0], 31), c = reach(slope[1], base[1], 31), top = a > c ? a : c;
    const float inverse = top > 0 ? 127 / top : 0;
    scales[g] = top / 127;
    const __m256i q = _mm256_loadu_si256((const __m256i*)(b->qs + 32 * g));
    for (int i = 0; i < 2; ++i) {
      const __m256i index = _mm256_and_si256(i ? _mm256_srli_epi16(q, 4) : q, _mm256_set1_epi8(15));
      const V m = vset(slope[i] * inverse), s = vset(base[i] * inverse);
      const __m256i low = _mm256_broadcastsi128_si256(_mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_fmsub_ps(levels16(), m, s))));
      const __m256i up = _mm256_broadcastsi128_si256(_mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_fmsub_ps(vadd(levels16(), vset(16)), m, s))));
      const __mmask32 fifth = _mm256_test_epi8_mask(high, _mm256_set1_epi8((char)(1 << (2 * g + i))));
      _mm256_storeu_si256((__m256i*)(to + 32 * i), _mm256_mask_shuffle_epi8(_mm256_shuffle_epi8(low, index), fifth, up, index));
    }
  }
}

static void unpackQ6K(const pg::BlockQ6K* b, int64_t groups, int8_t* to, float* scales) {
  const float d = _cvtsh_ss(b->d);
  for (int64_t g = 0; g < groups; ++g, to += 64) {
    // groups 0, 1: low and high nibbles of ql[0..63]; 2, 3: of ql[64..127]
    const int64_t half = g / 2, shift = 4 * (g % 2);
    const __m512i low = _mm512_srl_epi16(_mm512_loadu_si512(b->ql + 64 * half), _mm_cvtsi64_si128(shift));
    const __m512i bits = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i*)(b->qh + 32 * half)));
    // the two high bits to bits 4 and 5
    const __m512i turn = _mm512_add_epi32(_mm512_set1_epi32(int(4 - shift)), _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, -2, -2, -2, -2, -2, -2, -2, -2));
    const __m512i high = _mm512_and_si512(_mm512_rolv_epi32(bits, turn), _mm512_set1_epi8(0x30));
    const __m512i q = _mm512_sub_epi8(_mm512_ternarylogic_epi32(low, _mm512_set1_epi8(15), high, 0xea), _mm512_set1_epi8(32));
    const int8_t* s = b->scales + 4 * g;
    int most = 0;
    for (int i = 0; i < 4; ++i) most = abs(s[i]) > most ? abs(s[i]) : most;
    if (most == 0) most = 1;
    // value = scale * q, at most 32 * most; times 2^bits it has 14 bits, times ratio / 2^15 at most 127
    int bits14 = 0;
    while ((32 * most << (bits14 + 1)) <= 16384) ++bits14;
    const int ratio = 127 * 32768 / (32 * most << bits14);
    scales[g] = d * 32768 / ((float)ratio * (float)(1 << bits14));
    for (int i = 0; i < 2; ++i) {
      const __m512i wide = _mm512_cvtepi8_epi16(i ? _mm512_extracti64x4_epi64(q, 1) : _mm512_castsi512_si256(q));
      const __m512i scale = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_set1_epi16((short)(s[2 * i] * (1 << bits14)))), _mm256_set1_epi16((short)(s[2 * i + 1] * (1 << bits14))), 1);
      const __m512i value = _mm512_mulhrs_epi16(_mm512_mullo_epi16(wide, scale), _mm512_set1_epi16((short)ratio));
      _mm256_storeu_si256((__m256i*)(to + 32 * i), _mm512_cvtsepi16_epi8(value));
    }
  }
}

PG_INLINE float unpackF32(const float* w, int64_t n, int8_t* to) {
  V v[4], top = vzero();
  for (int i = 0; i < 4; ++i) {
    v[i] = n - 16 * i <= 0 ? vzero() : vloadFirst(w + 16 * i, n - 16 * i);
    top = vmax(top, vabs(v[i]));
  }
  const float max = vmaxAcross(top);
  const V inverse = vset(max > 0 ? 127 / max : 0);
  for (int i = 0; i < 4; ++i) _mm_storeu_si128((__m128i*)(to + 16 * i), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(vmul(v[i], inverse))));
  return max / 127;
}

// Up to 256 columns of one row.
static void unpackRow(pg::DType type, const uint8_t* row, int64_t column, int64_t k, int8_t* to, float* scales) {
  const int64_t groups = (k + 63) / 64;
  switch (type) {
    case pg::DType::q4_k: unpackQ4K((const pg::BlockQ4K*)row + column / 256, groups, to, scales); break;
    case pg::DType::q5_k: unpackQ5K((const pg::BlockQ5K*)row + column / 256, groups, to, scales); break;
    case pg::DType::q6_k: unpackQ6K((const pg::BlockQ6K*)row + column / 256, groups, to, scales); break;
    case pg::DType::q8_0: {
      const pg::BlockQ8_0* b = (const pg::BlockQ8_0*)row + column / 32;
      for (int64_t g = 0; g < groups; ++g) scales[g] = unpackQ8_0(b + 2 * g, 64 * g + 32 < k ? b + 2 * g + 1 : NULL, to + 64 * g);
      break;
    }
    case pg::DType::q4_0: {
      const pg::BlockQ4_0* b = (const pg::BlockQ4_0*)row + column / 32;
      for (int64_t g = 0; g < groups; ++g) scales[g] = unpackQ4_0(b + 2 * g, 64 * g + 32 < k ? b + 2 * g + 1 : NULL, to + 64 * g);
      break;
    }
    default:
      for (int64_t g = 0; g < groups; ++g) scales[g] = unpackF32((const float*)row + column + 64 * g, k - 64 * g, to + 64 * g);
  }
}

static bool hasTile8(pg::DType type) {
  return type == pg::DType::q8_0 || type == pg::DType::q4_0 || type == pg::DType::q4_k || type == pg::DType::q5_k || type == pg::DType::q6_k;
}

static void packRows8(pg::DType type, const uint8_t* w, size_t stride, int64_t rows, int64_t column, int64_t k, uint8_t* panel, float* scales) {
  const __m512i offset = _mm512_set1_epi8((char)128);
  for (int64_t c = 0; c < k; c += 256) {
    const int64_t n = k - c < 256 ? k - c : 256, groups = (n + 63) / 64;
    for (int64_t half = 0; half < 32; half += 16) {
      alignas(64) int8_t bytes[16][256];
      float s[16][4];
      for (int64_t r = 0; r < 16; ++r) {
        if (half + r < rows) {
          unpackRow(type, w + stride * size_t(half + r), column + c, n, bytes[r], s[r]);
        } else {
          memset(bytes[r], 0, 256);
          memset(s[r], 0, sizeof s[r]);
        }
      }
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t group = c / 64 + g;
        V v[16];
        for (int r = 0; r < 16; ++r) {
          v[r] = _mm512_castsi512_ps(_mm512_xor_si512(_mm512_load_si512(bytes[r] + 64 * g), offset));
          scales[group * 32 + half + r] = s[r][g];
        }
        vtranspose(v);
        for (int i = 0; i < 16; ++i) vstore((float*)(panel + group * 2048 + i * 128 + half * 4), v[i]);
      }
    }
  }
}
