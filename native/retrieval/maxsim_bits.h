// The bits kernel of the AVX tables, in the words of the including file:
//   B: kBitLanes words, one per query token; bload, bstore; bspread(word): in every lane; bxor
//   bones(B): ones of each byte; baddBytes, baddLanes; bsumBytes(B): of each lane; bleast(B, B) per lane, of values
//   below 2^31
#pragma once

constexpr int64_t kByteWords = 31;   // words whose ones a byte can count

static void bits(const uint64_t* query, int64_t panels, const uint8_t* page, int64_t tokens, int64_t words,
                 int32_t* best) {
  for (int64_t p = 0; p < panels; ++p) {
    const uint64_t* panel = query + p * words * kBitLanes;
    B least = bspread(INT32_MAX);
    for (int64_t t = 0; t < tokens; ++t) {
      const uint8_t* row = page + t * words * 8;
      B distance = bspread(0);
      for (int64_t w = 0; w < words;) {
        const int64_t end = words - w > kByteWords ? w + kByteWords : words;
        B bytes = bspread(0);
        for (; w < end; ++w) {
          int64_t word;
          memcpy(&word, row + w * 8, 8);
          bytes = baddBytes(bytes, bones(bxor(bload(panel + w * kBitLanes), bspread(word))));
        }
        distance = baddLanes(distance, bsumBytes(bytes));
      }
      least = bleast(least, distance);
    }
    int64_t lanes[kBitLanes];
    bstore(lanes, least);
    for (int64_t i = 0; i < kBitLanes; ++i) best[p * kBitLanes + i] = int32_t(lanes[i]);
  }
}
