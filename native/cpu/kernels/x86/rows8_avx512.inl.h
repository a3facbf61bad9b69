// Decode kernels in AVX-512 VNNI: a weight row in its file layout times the 8-bit activations of 1 to 8 tokens.
// Included between PG_ISA_BEGIN and PG_ISA_END.
//
// 256 columns make four registers that hold four columns of each half (16 columns) of the eight groups of 32: a lane
// belongs to one half group throughout, so that products are added as integers over all registers, and one conversion,
// one multiplication by the scales and one addition end a super-block. Weights are brought into this order once for all
// tokens; activations are stored in it. Levels stay where a byte has them, as four or sixteen times themselves, where
// that saves operations; the scale takes it back, exactly.
#pragma once

// 256 columns of a token
struct TokenBlock {
  int8_t values[4][8][2][4];  // [register][group][half][column]: see dwordOf
  float scales[16];  // of half groups, as the rest
  float sums[16];  // scale * (sum of values)
  int32_t starts[2][16];  // what products of levels less 128 begin with, -128 * (sum of values); of Q4_0's levels
};

// Which four of a group's 32 columns register r holds of half h. Last halves come in the order 1, 0, 3, 2, for which
// Q4_0 only has to turn its words.
constexpr int dwordOf(int r, int h) { return h ? 4 + (r ^ 1) : r; }

struct Places {
  alignas(64) int32_t at[16];
};
// lane 2 * group + half: where dword 8 * block(group) + dwordOf(r, half) lies
template <typename Block>
constexpr Places placesOf(int r, Block block) {
  Places p{};
  for (int lane = 0; lane < 16; ++lane) p.at[lane] = 8 * block(lane / 2) + dwordOf(r, lane % 2);
  return p;
}
PG_INLINE __m512i load(const Places& p) { return _mm512_load_si512(p.at); }

// Eight groups of 32 bytes, two a register, to the order of TokenBlock.
PG_INLINE void arrange(const __m512i* pairs, __m512i* w) {
  // of four groups the lanes of registers 0 and 1, of 2 and 3
  const __m512i places[2] = {_mm512_setr_epi32(0, 5, 8, 13, 16, 21, 24, 29, 1, 4, 9, 12, 17, 20, 25, 28),
                             _mm512_setr_epi32(2, 7, 10, 15, 18, 23, 26, 31, 3, 6, 11, 14, 19, 22, 27, 30)};
  PG_UNROLL
  for (int i = 0; i < 2; ++i) {
    const __m512i first = _mm512_permutex2var_epi32(pairs[0], places[i], pairs[1]),
                  last = _mm512_permutex2var_epi32(pairs[2], places[i], pairs[3]);
    w[2 * i] = _mm512_shuffle_i64x2(first, last, 0x44);
    w[2 * i + 1] = _mm512_shuffle_i64x2(first, last, 0xee);
  }
}

// ---- products and sums ----

// start + values * w
PG_INLINE __m512i dotBlock(__m512i start, const __m512i* w, const TokenBlock& x) {
  PG_UNROLL
  for (int r = 0; r < 4; ++r) start = _mm512_dpbusd_epi32(start, w[r], _mm512_loadu_si512(x.values[r]));
  return start;
}

// acc[t] += slope * products of levels less the centre of starts[kStart]
template <int kTokens, int kStart>
PG_INLINE void addCentred(V* acc, const __m512i* w, V slope, const TokenBlock* x, int64_t stride) {
  for (int t = 0; t < kTokens; ++t, x += stride) {
    const __m512i sums = dotBlock(_mm512_loadu_si512(x->starts[kStart]), w, *x);
    acc[t] = vfma(vtoF32(sums), vmul(slope, vload(x->scales)), acc[t]);
  }
}

// Two registers' sums of lanes eight, four and two apart, side by side
PG_INLINE V addHalves(V a, V b) { return vadd(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee)); }
PG_INLINE V addQuarters(V a, V b) { return vadd(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd)); }
PG_INLINE V addPairs(V a, V b) { return vadd(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee)); }

// out[t * stride] = the sum of acc[t], in vsum's order of additions
template <int kTokens>
PG_INLINE void storeSums(const V* acc, float* out, int64_t stride) {
  if constexpr (kTokens < 4) {
    for (int t = 0; t < kTokens; ++t) out[t * stride] = vsum(acc[t]);
  } else {
    constexpr int kMore = kTokens == 8 ? 4 : 0;
    const V four = addQuarters(addHalves(acc[0], acc[1]), addHalves(acc[2], acc[3]));
    const V more =
        kMore ? addQuarters(addHalves(acc[kMore], acc[kMore + 1]), addHalves(acc[kMore + 2], acc[kMore + 3])) : four;
    const V all = addPairs(four, more);  // tokens t and t + 4, two lanes each, in lanes 4 * t ..
    alignas(64) float sums[16];
    vstore(sums, vadd(all, _mm512_movehdup_ps(all)));
    for (int t = 0; t < kTokens; ++t) out[t * stride] = sums[t % 4 * 4 + t / 4 * 2];
  }
}

#define PG_BEGIN_SUMS \
  V acc[kTokens];     \
  for (int t = 0; t < kTokens; ++t) acc[t] = vzero();

// ---- rows ----

struct WordPlaces {
  alignas(64) int16_t at[32];
};
// Words [first, first + count) of each of eight blocks, of which 128 bytes hold seven and the eighth's scale; each
// `times` times.
constexpr WordPlaces wordsQ4_0(int first, int count, int times) {
  WordPlaces p{};
  for (int block = 0; block < 8; ++block)
    for (int i = 0; i < count * times; ++i)
      p.at[count * times * block + i] = int16_t((pg::kBytesQ4_0 / 2 * block + first + i / times) % 64);
  return p;
}
static constexpr WordPlaces kScalesQ4_0 = wordsQ4_0(0, 1, 2), kFirstQ4_0 = wordsQ4_0(1, 4, 1),
                            kLastQ4_0 = wordsQ4_0(5, 4, 1);

template <int kTokens>
static void dotQ4_0(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out,
                    int64_t outStride) {
  const __m512i scales = _mm512_load_si512(kScalesQ4_0.at), first = _mm512_load_si512(kFirstQ4_0.at),
                last = _mm512_load_si512(kLastQ4_0.at);
  // levels of last halves stay in high nibbles
  const __m512i nibbles = _mm512_set1_epi64((long long)0xf0f0f0f00f0f0f0f);
  const V factors = _mm512_mask_blend_ps(0xaaaa, vset(1), vset(0.0625f));
  PG_BEGIN_SUMS
  for (int64_t s = 0; s < supers; ++s, row += 8 * pg::kBytesQ4_0, ++x) {
    prefetchBlocks(row, 8 * pg::kBytesQ4_0);
    // every byte is loaded once, in order: overlapping loads halve what the hardware prefetcher brings
    const __m512i front = _mm512_loadu_si512(row), middle = _mm512_loadu_si512(row + 64);
    const V d = _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_permutex2var_epi16(front, scales, middle)));
    // the eighth block's words lie behind
    const __m512i a = _mm512_mask_broadcastq_epi64(_mm512_permutex2var_epi16(front, first, middle), 0x80,
                                                   _mm_loadl_epi64((const __m128i*)(row + 128)));
    const __m512i b = _mm512_mask_broadcastq_epi64(_mm512_permutex2var_epi16(front, last, middle), 0x80,
                                                   _mm_loadl_epi64((const __m128i*)(row + 136)));
    const __m512i w[4] = {_mm512_and_si512(a, nibbles), _mm512_and_si512(_mm512_rol_epi64(a, 32), nibbles),
                          _mm512_and_si512(b, nibbles), _mm512_and_si512(_mm512_rol_epi64(b, 32), nibbles)};
    addCentred<kTokens, 1>(acc, w, vmul(d, factors), x, tokenBlocks);
  }
  storeSums<kTokens>(acc, out, outStride);
}

template <int kTokens>
static void dotQ8_0(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out,
                    int64_t outStride) {
  constexpr int kBytes = pg::kBytesQ8_0;
  const __m512i sign = _mm512_set1_epi8((char)128);
  const __m512i four = _mm512_castsi128_si512(
      _mm_setr_epi16(0, 0, kBytes / 2, kBytes / 2, kBytes, kBytes, 3 * kBytes / 2, 3 * kBytes / 2));
  PG_BEGIN_SUMS
  for (int64_t s = 0; s < supers; ++s, row += 8 * kBytes, ++x) {
    prefetchBlocks(row, 8 * kBytes);
    __m256i d[2];  // scales of four blocks each, for both halves
    PG_UNROLL
    for (int i = 0; i < 2; ++i)
      d[i] = _mm512_castsi512_si256(_mm512_permutex2var_epi16(_mm512_loadu_si512(row + 4 * kBytes * i), four,
                                                              _mm512_loadu_si512(row + 4 * kBytes * i + 64)));
    const V slope = _mm512_cvtph_ps(_mm256_inserti128_si256(d[0], _mm256_castsi256_si128(d[1]), 1));
    __m512i pairs[4], w[4];
    PG_UNROLL
    for (int i = 0; i < 4; ++i) {
      const uint8_t* q = row + 2 * kBytes * i + 2;
      // the 64 bytes end inside the blocks; clang would take a load of 32 apart
      pairs[i] = _mm512_inserti64x4(_mm512_loadu_si512(q), _mm256_loadu_si256((const __m256i*)(q + kBytes)), 1);
    }
    arrange(pairs, w);
    PG_UNROLL
    for (int r = 0; r < 4; ++r) w[r] = _mm512_xor_si512(w[r], sign);
    addCentred<kTokens, 0>(acc, w, slope, x, tokenBlocks);
  }
  storeSums<kTokens>(acc, out, outStride);
}

template <int kTokens, bool kEight>
static void dotQ48_0(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out,
                     int64_t outStride) {
  if (kEight) dotQ8_0<kTokens>(row, supers, x, tokenBlocks, out, outStride);
  else dotQ4_0<kTokens>(row, supers, x, tokenBlocks, out, outStride);
}

// Groups 2 i and 2 i + 1 are the low and the high nibbles of the same 32 bytes.
constexpr int lowQ45K(int group) { return group / 2; }
constexpr int highQ5K(int) { return 0; }
static constexpr Places kLowQ45K[4] = {placesOf(0, lowQ45K), placesOf(1, lowQ45K), placesOf(2, lowQ45K),
                                       placesOf(3, lowQ45K)},
                        kHighQ5K[4] = {placesOf(0, highQ5K), placesOf(1, highQ5K), placesOf(2, highQ5K),
                                       placesOf(3, highQ5K)};

// Q4_K, and Q5_K with its fifth bits
template <int kTokens, bool kFive>
static void dotQ45K(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out,
                    int64_t outStride) {
  constexpr int kBytes = kFive ? pg::kBytesQ5K : pg::kBytesQ4K;
  const __m512i ofGroup = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  // Q4_K's levels of odd groups stay in high nibbles; with a fifth bit they would leave the byte.
  const __m512i nibbles =
      kFive ? _mm512_set1_epi8(15)
            : _mm512_broadcast_i32x4(_mm_setr_epi32(0x0f0f0f0f, 0x0f0f0f0f, (int)0xf0f0f0f0, (int)0xf0f0f0f0));
  const V factors = _mm512_mask_blend_ps(0xcccc, vset(1), vset(0.0625f));
  const __m512i down = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0, 4, 4)), bit4 = _mm512_set1_epi8(16);
  const __m512i turn = _mm512_sub_epi32(_mm512_set1_epi32(4), ofGroup);  // bit g to bit 4, counts are taken mod 32
  PG_BEGIN_SUMS
  for (int64_t s = 0; s < supers; ++s, row += kBytes, ++x) {
    prefetchBlocks(row, kBytes);
    const V both = slopes16(row), base = _mm512_permutexvar_ps(_mm512_add_epi32(ofGroup, _mm512_set1_epi32(8)), both);
    V slope = _mm512_permutexvar_ps(ofGroup, both);
    if (!kFive) slope = vmul(slope, factors);
    const __m512i front = _mm512_loadu_si512(row + kBytes - 128), back = _mm512_loadu_si512(row + kBytes - 64);
    __m512i w[4];
    PG_UNROLL
    for (int r = 0; r < 4; ++r) {
      const __m512i q = _mm512_permutex2var_epi32(front, load(kLowQ45K[r]), back);
      w[r] = _mm512_and_si512(kFive ? _mm512_srlv_epi32(q, down) : q, nibbles);
      if (!kFive) continue;
      const __m512i bits = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i*)(row + 16)));  // bit g: group g's
      const __m512i high = _mm512_rolv_epi32(_mm512_permutexvar_epi32(load(kHighQ5K[r]), bits), turn);
      w[r] = _mm512_ternarylogic_epi32(high, bit4, w[r], 0xea);  // w | high & bit4
    }
    const TokenBlock* token = x;
    for (int t = 0; t < kTokens; ++t, token += tokenBlocks) {
      const V products = vtoF32(dotBlock(_mm512_setzero_si512(), w, *token));
      acc[t] = vfnma(base, vload(token->sums), acc[t]);
      acc[t] = vfma(products, vmul(slope, vload(token->scales)), acc[t]);
    }
  }
  storeSums<kTokens>(acc, out, outStride);
}

// Of four groups 0 and 2, 1 and 3 are the low and the high nibbles of 32 bytes; the same 32 have bits 4 and 5 of all.
constexpr int lowQ6K(int group) { return group / 4 * 2 + group % 2; }
constexpr int highQ6K(int group) { return group / 4; }
static constexpr Places kLowQ6K[4] = {placesOf(0, lowQ6K), placesOf(1, lowQ6K), placesOf(2, lowQ6K),
                                      placesOf(3, lowQ6K)},
                        kHighQ6K[4] = {placesOf(0, highQ6K), placesOf(1, highQ6K), placesOf(2, highQ6K),
                                       placesOf(3, highQ6K)};

template <int kTokens>
static void dotQ6K(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out,
                   int64_t outStride) {
  // bits 0 to 3 of a level go to bits 2 to 5 of its byte, bits 4 and 5 above: four times the level, less 128
  const __m512i turnLow = _mm512_setr_epi32(2, 2, 2, 2, 30, 30, 30, 30, 2, 2, 2, 2, 30, 30, 30, 30),
                turnHigh = _mm512_setr_epi32(6, 6, 4, 4, 2, 2, 0, 0, 6, 6, 4, 4, 2, 2, 0, 0);
  const __m512i bits25 = _mm512_set1_epi8(0x3c), bits67 = _mm512_set1_epi8((char)0xc0);
  PG_BEGIN_SUMS
  for (int64_t s = 0; s < supers; ++s, row += pg::kBytesQ6K, ++x) {
    prefetchBlocks(row, pg::kBytesQ6K);
    const V slope = vmul(vloadI8((const int8_t*)row + 192), vset(vhalf(row + 208) * 0.25f));
    const __m512i front = _mm512_loadu_si512(row), back = _mm512_loadu_si512(row + 64),
                  bits = _mm512_loadu_si512(row + 128);
    __m512i w[4];
    PG_UNROLL
    for (int r = 0; r < 4; ++r) {
      const __m512i low = _mm512_rolv_epi32(_mm512_permutex2var_epi32(front, load(kLowQ6K[r]), back), turnLow);
      const __m512i high = _mm512_rolv_epi32(_mm512_permutexvar_epi32(load(kHighQ6K[r]), bits), turnHigh);
      w[r] = _mm512_ternarylogic_epi32(high, bits67, _mm512_and_si512(low, bits25), 0xea);  // low | high & bits67
    }
    addCentred<kTokens, 0>(acc, w, slope, x, tokenBlocks);
  }
  storeSums<kTokens>(acc, out, outStride);
}

// ---- activations ----

static void quantizeBlock(const float* x, int64_t n, TokenBlock* to) {
  alignas(64) float few[256];
  if (n < 256) {
    memset(few, 0, sizeof few);
    x = (const float*)memcpy(few, x, size_t(n) * sizeof(float));
  }
  alignas(64) int8_t bytes[8][2][16];
  for (int g = 0; g < 8; ++g) {
    const V a = vload(x + 32 * g), b = vload(x + 32 * g + 16);
    const float top = vmaxAcross(vmax(vabs(a), vabs(b)));
    const V inverse = vset(top > 0 ? 127 / top : 0);
    _mm_store_si128((__m128i*)bytes[g][0], toBytes(vmul(a, inverse)));
    _mm_store_si128((__m128i*)bytes[g][1], toBytes(vmul(b, inverse)));
    to->scales[2 * g] = to->scales[2 * g + 1] = top / 127;
  }
  __m512i pairs[4], values[4], sums = _mm512_setzero_si512();
  for (int i = 0; i < 4; ++i) pairs[i] = _mm512_load_si512(bytes[2 * i]);
  arrange(pairs, values);
  for (int r = 0; r < 4; ++r) {
    _mm512_storeu_si512(to->values[r], values[r]);
    sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), values[r]);
  }
  vstore(to->sums, vmul(vload(to->scales), vtoF32(sums)));
  const __m512i less = _mm512_sub_epi32(_mm512_setzero_si512(), sums);
  _mm512_storeu_si512(to->starts[0], _mm512_slli_epi32(less, 7));
  // first halves less 8, last halves, which are sixteen times themselves, less 128
  _mm512_storeu_si512(to->starts[1], _mm512_sllv_epi32(less, _mm512_set1_epi64(7LL << 32 | 3)));
}
