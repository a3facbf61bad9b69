// The bits kernel of both NEON tables.
#pragma once

static void bits(const uint64_t* query, int64_t panels, const uint8_t* page, int64_t tokens, int64_t words,
                 int32_t* best) {
  for (int64_t q = 0; q < panels; ++q) {
    const uint8_t* row = (const uint8_t*)(query + q * words);
    int32_t least = INT32_MAX;
    for (int64_t t = 0; t < tokens; ++t) {
      const uint8_t* other = page + t * words * 8;
      int32_t distance = 0;
      int64_t w = 0;
      for (; w + 2 <= words; w += 2)
        distance += vaddvq_u8(vcntq_u8(veorq_u8(vld1q_u8(row + w * 8), vld1q_u8(other + w * 8))));
      if (w < words) distance += vaddv_u8(vcnt_u8(veor_u8(vld1_u8(row + w * 8), vld1_u8(other + w * 8))));
      if (distance < least) least = distance;
    }
    best[q] = least;
  }
}
