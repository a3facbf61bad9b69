// Decode kernels for registers of 256 bits: a weight row in its file layout times the 8-bit activations of 1 to 8
// tokens. Included between PG_ISA_BEGIN and PG_ISA_END by AVX2 and AVX-VNNI, whose files say before how levels and
// activations are multiplied: dotLevels and, for Q8_0, prepare8, dot8 and kOffset8.
//
// 256 columns make eight registers that hold four columns of each of the eight groups of 32: a lane belongs to one
// group throughout, so that products are added as integers over all registers, and one conversion, one multiplication
// by the eight scales and one addition end a super-block. Weights are brought into this order by shuffles, once for all
// tokens; activations are stored in it. Offsets and minimums enter as scale * (sum of activations).
#pragma once

// 256 columns of a token, groups in the order of laneGroups()
struct TokenBlock {
  int8_t values[8][8][4];  // [columns of a group / 4][group][column]
  float scales[8];  // of groups
  float sums[8];  // scale * (sum of values)
  float halves[2][8];  // the same of the first, of the last 16 columns
  int16_t offsets[8][2];  // -8 * (sum of values) of a group's columns 0, 1, 4, 5, 8 ..., of 2, 3, 6, 7, 10 ...
};

// Of four registers, out[r]: dwords r, and in the upper half dwords 4 + r.
PG_INLINE void gather4(__m256i a, __m256i b, __m256i c, __m256i d, __m256i* out) {
  const __m256i ab = _mm256_unpacklo_epi32(a, b), cd = _mm256_unpacklo_epi32(c, d);
  const __m256i ab2 = _mm256_unpackhi_epi32(a, b), cd2 = _mm256_unpackhi_epi32(c, d);
  out[0] = _mm256_unpacklo_epi64(ab, cd);
  out[1] = _mm256_unpackhi_epi64(ab, cd);
  out[2] = _mm256_unpacklo_epi64(ab2, cd2);
  out[3] = _mm256_unpackhi_epi64(ab2, cd2);
}

// 16 bytes of each of eight blocks: out[r] has dword r of all.
template <int kBytes>
PG_INLINE void gather8(const uint8_t* p, __m256i* out) {
  gather4(loadTwo(p, p + kBytes), loadTwo(p + 4 * kBytes, p + 5 * kBytes), loadTwo(p + 2 * kBytes, p + 3 * kBytes),
          loadTwo(p + 6 * kBytes, p + 7 * kBytes), out);
}

// Registers of even and odd groups, each [dword r | dword 4 + r], to those of all.
PG_INLINE void merge(const __m256i* even, const __m256i* odd, __m256i* w) {
  for (int r = 0; r < 4; ++r) {
    w[r] = _mm256_permute2x128_si256(even[r], odd[r], 0x20);
    w[4 + r] = _mm256_permute2x128_si256(even[r], odd[r], 0x31);
  }
}

// acc + (slope * (levels * values) - base * (sums of values)) of 256 columns
PG_INLINE V addProducts(V acc, __m256i sums, V slope, V base, const TokenBlock& x) {
  acc = vfnma(base, vload(x.sums), acc);
  return vfma(_mm256_cvtepi32_ps(sums), vmul(slope, vload(x.scales)), acc);
}

template <int kTokens, bool kEight>
static void dotQ48_0(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out,
                     int64_t outStride) {
  constexpr int kBytes = kEight ? pg::kBytesQ8_0 : pg::kBytesQ4_0;
  V acc[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = vzero();
  for (int64_t s = 0; s < supers; ++s, row += 8 * kBytes) {
    prefetchBlocks(row, 8 * kBytes);
    const V slope = _mm256_cvtph_ps(inLanes(scaleWords<kBytes>(row))), base = vmul(slope, vset(kEight ? kOffset8 : 8));
    __m256i w[8];
    gather8<kBytes>(row + 2, w);
    if (kEight) {
      gather8<kBytes>(row + 18, w + 4);
      for (int r = 0; r < 8; ++r) w[r] = prepare8(w[r]);
    } else {
      for (int r = 0; r < 4; ++r) w[4 + r] = nibbles(_mm256_srli_epi16(w[r], 4)), w[r] = nibbles(w[r]);
    }
    for (int t = 0; t < kTokens; ++t) {
      const TokenBlock& b = x[t * tokenBlocks + s];
      if (!kEight) acc[t] = addProducts(acc[t], dotLevels<15, 8>(w, b.values[0][0]), slope, base, b);
      else if (kOffset8 != 0) acc[t] = addProducts(acc[t], dot8(w, b.values[0][0]), slope, base, b);
      else acc[t] = vfma(_mm256_cvtepi32_ps(dot8(w, b.values[0][0])), vmul(slope, vload(b.scales)), acc[t]);
    }
  }
  for (int t = 0; t < kTokens; ++t) out[t * outStride] = vsum(acc[t]);
}

// Q4_K, and Q5_K with its fifth bits
template <int kTokens, bool kFive>
static void dotQ45K(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out,
                    int64_t outStride) {
  V acc[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = vzero();
  for (int64_t s = 0; s < supers; ++s, row += kFive ? pg::kBytesQ5K : pg::kBytesQ4K) {
    prefetchBlocks(row, kFive ? pg::kBytesQ5K : pg::kBytesQ4K);
    V slope, base;
    slopes(row, laneGroups(), &slope, &base);
    const uint8_t* qs = row + (kFive ? 48 : 16);
    __m256i even[4], odd[4], w[8];
    gather4(load32(qs), load32(qs + 64), load32(qs + 32), load32(qs + 96), even);
    for (int r = 0; r < 4; ++r) odd[r] = nibbles(_mm256_srli_epi16(even[r], 4)), even[r] = nibbles(even[r]);
    if (kFive) {
      // bit g of a byte is the fifth of group g. Turned to bit 4 in the lanes of groups 0, 4, 2, 6 by two shifts, it
      // has the bits of groups 1, 5, 3, 7 above.
      const __m256i bits = load32(row + 16), up = _mm256_slli_epi16(bits, 4);
      const __m256i a = _mm256_unpacklo_epi32(up, bits), b = _mm256_unpackhi_epi32(up, bits),
                    bit4 = _mm256_set1_epi8(16);
      const __m256i down = _mm256_setr_epi32(0, 0, 2, 2, 0, 0, 2, 2);
      const __m256i turned[4] = {_mm256_srlv_epi32(_mm256_shuffle_epi32(a, 0x44), down),
                                 _mm256_srlv_epi32(_mm256_shuffle_epi32(a, 0xee), down),
                                 _mm256_srlv_epi32(_mm256_shuffle_epi32(b, 0x44), down),
                                 _mm256_srlv_epi32(_mm256_shuffle_epi32(b, 0xee), down)};
      for (int r = 0; r < 4; ++r) {
        even[r] = _mm256_or_si256(even[r], _mm256_and_si256(turned[r], bit4));
        odd[r] = _mm256_or_si256(odd[r], _mm256_and_si256(_mm256_srli_epi16(turned[r], 1), bit4));
      }
    }
    merge(even, odd, w);
    for (int t = 0; t < kTokens; ++t) {
      const TokenBlock& b = x[t * tokenBlocks + s];
      acc[t] = addProducts(acc[t], dotLevels<kFive ? 31 : 15, 8>(w, b.values[0][0]), slope, base, b);
    }
  }
  for (int t = 0; t < kTokens; ++t) out[t * outStride] = vsum(acc[t]);
}

// 256 columns of Q6_K as 0..63
PG_INLINE void levelsQ6K(const uint8_t* row, __m256i* w) {
  // groups 0 | 2 and 4 | 6 (the low | high nibbles), then 1 | 3 and 5 | 7
  const __m256i q0 = load32(row), q1 = load32(row + 32), q2 = load32(row + 64), q3 = load32(row + 96);
  const __m256i from[4] = {_mm256_unpacklo_epi32(q0, q2), _mm256_unpackhi_epi32(q0, q2), _mm256_unpacklo_epi32(q1, q3),
                           _mm256_unpackhi_epi32(q1, q3)};
  // bits 2j of a byte belong to group j of the first, 4 + j of the last 128 columns
  const __m256i h0 = load32(row + 128), h1 = load32(row + 160), a = _mm256_unpacklo_epi32(h0, h1),
                b = _mm256_unpackhi_epi32(h0, h1);
  const __m256i upA = _mm256_slli_epi16(a, 4), upB = _mm256_slli_epi16(b, 4), bits45 = _mm256_set1_epi8(0x30);
  // groups 0, 4, 2, 6 have theirs in bits 4 and 5, groups 1, 5, 3, 7 above
  const __m256i turned[4] = {_mm256_unpacklo_epi64(upA, a), _mm256_unpackhi_epi64(upA, a),
                             _mm256_unpacklo_epi64(upB, b), _mm256_unpackhi_epi64(upB, b)};
  __m256i even[4], odd[4];
  for (int i = 0; i < 4; ++i) {
    const __m256i low = nibbles(from[i]), high = nibbles(_mm256_srli_epi16(from[i], 4));
    __m256i* to = i < 2 ? even + 2 * i : odd + 2 * (i - 2);
    to[0] = _mm256_unpacklo_epi64(low, high);
    to[1] = _mm256_unpackhi_epi64(low, high);
  }
  for (int r = 0; r < 4; ++r) {
    even[r] = _mm256_or_si256(even[r], _mm256_and_si256(turned[r], bits45));
    odd[r] = _mm256_or_si256(odd[r], _mm256_and_si256(_mm256_srli_epi16(turned[r], 2), bits45));
  }
  merge(even, odd, w);
}

template <int kTokens>
static void dotQ6K(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out,
                   int64_t outStride) {
  V acc[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = vzero();
  // the scale of the first 16 columns of each lane's group in the top byte
  const __m256i place = _mm256_or_si256(_mm256_slli_epi32(laneGroups(), 25), _mm256_set1_epi32(0x00808080));
  for (int64_t s = 0; s < supers; ++s, row += pg::kBytesQ6K) {
    prefetchBlocks(row, pg::kBytesQ6K);
    const __m256i scales = _mm256_broadcastsi128_si256(load16(row + 192));
    const V d = vset(vhalf(row + 208) * 0x1p-24f);
    const V first = vmul(_mm256_cvtepi32_ps(_mm256_shuffle_epi8(scales, place)), d);
    const V last =
        vmul(_mm256_cvtepi32_ps(_mm256_shuffle_epi8(scales, _mm256_add_epi32(place, _mm256_set1_epi32(1 << 24)))), d);
    const V firstBase = vmul(first, vset(32)), lastBase = vmul(last, vset(32));
    __m256i w[8];
    levelsQ6K(row, w);
    for (int t = 0; t < kTokens; ++t) {
      const TokenBlock& b = x[t * tokenBlocks + s];
      const V product = vmul(_mm256_cvtepi32_ps(dotLevels<63, 4>(w, b.values[0][0])), first);
      acc[t] = vfnma(lastBase, vload(b.halves[1]), vfnma(firstBase, vload(b.halves[0]), acc[t]));
      acc[t] = vfma(vfma(_mm256_cvtepi32_ps(dotLevels<63, 4>(w + 4, b.values[4][0])), last, product), vload(b.scales),
                    acc[t]);
    }
  }
  for (int t = 0; t < kTokens; ++t) out[t * outStride] = vsum(acc[t]);
}

static void quantizeBlock(const float* x, int64_t n, TokenBlock* to) {
  alignas(32) float few[256];
  if (n < 256) {
    memset(few, 0, sizeof few);
    x = (const float*)memcpy(few, x, size_t(n) * sizeof(float));
  }
  int groups[8];
  _mm256_storeu_si256((__m256i*)groups, laneGroups());
  float tops[8], inverses[8];
  for (int i = 0; i < 8; ++i) {
    const float* g = x + 32 * groups[i];
    tops[i] =
        vmaxAcross(vmax(vmax(vabs(vload(g)), vabs(vload(g + 8))), vmax(vabs(vload(g + 16)), vabs(vload(g + 24)))));
  }
  const V top = vload(tops), scale = vdiv(top, vset(127));
  vstore(inverses, vselectLess(vzero(), top, vdiv(vset(127), top), vzero()));
  V v[8];
  for (int i = 0; i < 8; ++i) {
    const V inverse = vset(inverses[i]);
    __m256i q[4];
    for (int j = 0; j < 4; ++j) q[j] = _mm256_cvtps_epi32(vmul(vload(x + 32 * groups[i] + 8 * j), inverse));
    const __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));  // within 128-bit lanes
    v[i] = _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
  }
  vtranspose(v);
  __m256i sums[2], offsets = _mm256_setzero_si256();
  for (int half = 0; half < 2; ++half) {
    __m256i pairs = _mm256_setzero_si256();
    for (int r = 4 * half; r < 4 * half + 4; ++r) {
      const __m256i bytes = _mm256_castps_si256(v[r]);
      _mm256_storeu_si256((__m256i*)to->values[r], bytes);
      pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes));
    }
    sums[half] = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    vstore(to->halves[half], vmul(scale, _mm256_cvtepi32_ps(sums[half])));
    offsets = _mm256_sub_epi16(offsets, _mm256_slli_epi16(pairs, 3));
  }
  _mm256_storeu_si256((__m256i*)to->offsets, offsets);
  vstore(to->scales, scale);
  vstore(to->sums, vmul(scale, _mm256_cvtepi32_ps(_mm256_add_epi32(sums[0], sums[1]))));
}
