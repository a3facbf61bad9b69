// Weight rows to 8-bit tile panels, for the tables that unpack 256 columns at a time. The including file has
//   Level, kMostLevel                     a panel's weight; what the largest number of a group becomes
//   unpackQ4_0 ... unpackQ6K(b, to, scales)   a super-block, or eight blocks, as levels with a scale per 64 columns
//   unpackF32(w, n, to)                   up to 64 numbers; returns their scale
//   panelWord(v)                          levels as the panel holds them
// Included between PG_ISA_BEGIN and PG_ISA_END.
#pragma once

static bool hasTile8(pg::DType type) {
  return type == pg::DType::q8_0 || type == pg::DType::q4_0 || type == pg::DType::q4_k || type == pg::DType::q5_k ||
         type == pg::DType::q6_k;
}

// Up to 256 columns of one row.
static void unpackRow(pg::DType type, const uint8_t* row, int64_t column, int64_t k, Level* to, float* scales) {
  switch (type) {
    case pg::DType::q4_k: return unpackQ4K(row + column / pg::kSuperBlock * pg::kBytesQ4K, to, scales);
    case pg::DType::q5_k: return unpackQ5K(row + column / pg::kSuperBlock * pg::kBytesQ5K, to, scales);
    case pg::DType::q6_k: return unpackQ6K(row + column / pg::kSuperBlock * pg::kBytesQ6K, to, scales);
    case pg::DType::q8_0:
    case pg::DType::q4_0: {
      const size_t size = type == pg::DType::q8_0 ? pg::kBytesQ8_0 : pg::kBytesQ4_0;
      const uint8_t* blocks = row + size_t(column / pg::kBlock) * size;
      uint8_t few[8 * pg::kBytesQ8_0] = {0};
      if (k < pg::kSuperBlock)
        blocks =
            (const uint8_t*)memcpy(few, blocks, size_t(k / pg::kBlock) * size);  // blocks that do not exist are zeros
      return type == pg::DType::q8_0 ? unpackQ8_0(blocks, to, scales) : unpackQ4_0(blocks, to, scales);
    }
    default:
      for (int64_t g = 0; 64 * g < k; ++g)
        scales[g] = unpackF32((const float*)row + column + 64 * g, k - 64 * g, to + 64 * g);
  }
}

// Panels are [k / kWord][kTileRows][kWord]: 32-bit words of kWord columns of a row.
static void packRows8(pg::DType type, const uint8_t* w, size_t stride, int64_t rows, int64_t column, int64_t k,
                      uint8_t* panel, float* scales) {
  constexpr int64_t kWord = 4 / int64_t(sizeof(Level));
  for (int64_t c = 0; c < k; c += 256) {
    const int64_t n = k - c < 256 ? k - c : 256, groups = (n + 63) / 64;
    for (int64_t part = 0; part < kTileRows; part += kLanes) {
      alignas(64) Level levels[kLanes][256];
      float s[kLanes][4];
      for (int64_t r = 0; r < kLanes; ++r) {
        if (part + r < rows) {
          unpackRow(type, w + stride * size_t(part + r), column + c, n, levels[r], s[r]);
        } else {
          memset(levels[r], 0, sizeof levels[r]);
          memset(s[r], 0, sizeof s[r]);
        }
      }
      for (int64_t g = 0; g < groups; ++g)
        for (int64_t r = 0; r < kLanes; ++r) scales[(c / 64 + g) * kTileRows + part + r] = s[r][g];
      for (int64_t i = 0; i < groups * 64; i += kLanes * kWord) {
        V v[kLanes];
        for (int r = 0; r < kLanes; ++r) v[r] = panelWord(vload((const float*)(levels[r] + i)));
        vtranspose(v);
        float* to = (float*)panel + (c + i) / kWord * kTileRows + part;
        for (int j = 0; j < kLanes; ++j) vstore(to + j * kTileRows, v[j]);
      }
    }
  }
}

// A panel's words are what lies below each other here, so nothing is transposed.
static void packColumns8(const float* x, int64_t stride, int64_t k, uint8_t* panel, float* scales) {
  constexpr int kWord = 4 / int(sizeof(Level));
  for (int64_t part = 0; part < kTileRows; part += kLanes, x += kLanes) {
    V top = vzero();
    for (int64_t i = 0; i < k; ++i) top = vmax(top, vabs(vload(x + i * stride)));
    alignas(64) float most[kLanes], inverse[kLanes];
    vstore(most, top);
    for (int r = 0; r < kLanes; ++r) {
      inverse[r] = most[r] > 0 ? kMostLevel / most[r] : 0;
      scales[part + r] = most[r] / kMostLevel;
    }
    const V factor = vload(inverse);
    float* to = (float*)panel + part;
    for (int64_t i = 0; i < pg::kTileGroup; i += kWord, to += kTileRows) {
      alignas(64) float levels[kWord][kLanes];
      for (int j = 0; j < kWord; ++j)
        vstore(levels[j], i + j < k ? vround(vmul(vload(x + (i + j) * stride), factor)) : vzero());
      alignas(64) uint32_t words[kLanes];
      for (int r = 0; r < kLanes; ++r) {
        words[r] = 0;
        for (int j = 0; j < kWord; ++j)
          words[r] |= ((uint32_t)(int32_t)levels[j][r] & (~0u >> (32 - 8 * sizeof(Level)))) << (8 * sizeof(Level) * j);
      }
      vstore(to, panelWord(vload((const float*)words)));
    }
  }
}
