// The f32 and int8 kernels of every vector table, in the words of cpu/simd_*.h and of the including file:
//   Q: a query's values; P: a page's, int8_t, or int16_t with PG_WIDEN, which widens rows first
//   W: int32_t sums per lane; wload(Q*): a group of a panel; X wspread(P*): a group of a row in every lane;
//   wmac(sums, group, spread); wfloats(sums); wstart(panel, groups): what sums begin with
//   kTile: rows of a page at a time, against one or two panels; kGroup: values that one instruction adds up
#pragma once

// The last tile overlaps the one before: a maximum may see a row twice. Pages of fewer rows go one by one.
PG_INLINE int64_t tileStart(int64_t t, int64_t tokens) {
  return tokens >= kTile && t + kTile > tokens ? tokens - kTile : t;
}

PG_INLINE void tileF32(const float* query, const float* page, int64_t dims, float* best, const int panels,
                       const int rows) {
  V sums[2 * kTile];
  PG_UNROLL
  for (int i = 0; i < panels * rows; ++i) sums[i] = vzero();
  for (int64_t k = 0; k < dims; ++k) {
    const V first = vload(query + k * kLanes);
    const V second = panels == 2 ? vload(query + (dims + k) * kLanes) : first;
    PG_UNROLL
    for (int r = 0; r < rows; ++r) {
      const V x = vset(page[r * dims + k]);
      sums[r] = vfma(first, x, sums[r]);
      if (panels == 2) sums[rows + r] = vfma(second, x, sums[rows + r]);
    }
  }
  PG_UNROLL
  for (int p = 0; p < panels; ++p) {
    V top = vload(best + p * kLanes);
    PG_UNROLL
    for (int r = 0; r < rows; ++r) top = vmax(top, sums[p * rows + r]);
    vstore(best + p * kLanes, top);
  }
}

static void f32(const float* query, int64_t panels, const float* page, int64_t tokens, int64_t dims, float* best) {
  for (int64_t p = 0; p < panels; ++p) vstore(best + p * kLanes, vset(-INFINITY));
  const bool whole = tokens >= kTile;
  for (int64_t t = 0; t < tokens; t += whole ? kTile : 1) {
    const float* rows = page + tileStart(t, tokens) * dims;
    for (int64_t p = 0; p < panels; p += 2) {
      const float* panel = query + p * dims * kLanes;
      float* top = best + p * kLanes;
      if (p + 1 < panels) whole ? tileF32(panel, rows, dims, top, 2, kTile) : tileF32(panel, rows, dims, top, 2, 1);
      else whole ? tileF32(panel, rows, dims, top, 1, kTile) : tileF32(panel, rows, dims, top, 1, 1);
    }
  }
}

// One group of every row; `rest`: of the last group, which is cut short, or 0.
PG_INLINE void addGroup(W* sums, const Q* query, int64_t panelStep, const P* page, int64_t dims, int64_t rest,
                        const int panels, const int rows) {
  const auto first = wload(query);
  const auto second = panels == 2 ? wload(query + panelStep) : first;
  PG_UNROLL
  for (int r = 0; r < rows; ++r) {
    const P* values = page + r * dims;
    P few[kGroup] = {};
    for (int64_t i = 0; i < rest; ++i) few[i] = values[i];
    const X x = wspread(rest ? few : values);
    sums[r] = wmac(sums[r], first, x);
    if (panels == 2) sums[rows + r] = wmac(sums[rows + r], second, x);
  }
}

PG_INLINE void tileInt8(const Q* query, const P* page, const float* scales, int64_t dims, float* best, const int panels,
                        const int rows) {
  const int64_t whole = dims / kGroup, rest = dims % kGroup, groups = whole + (rest != 0), step = kLanes * kGroup;
  W sums[2 * kTile];
  PG_UNROLL
  for (int p = 0; p < panels; ++p) {
    const W start = wstart(query + p * groups * step, groups);
    PG_UNROLL
    for (int r = 0; r < rows; ++r) sums[p * rows + r] = start;
  }
  for (int64_t g = 0; g < whole; ++g)
    addGroup(sums, query + g * step, groups * step, page + g * kGroup, dims, 0, panels, rows);
  if (rest) addGroup(sums, query + whole * step, groups * step, page + whole * kGroup, dims, rest, panels, rows);
  PG_UNROLL
  for (int p = 0; p < panels; ++p) {
    V top = vload(best + p * kLanes);
    PG_UNROLL
    for (int r = 0; r < rows; ++r) top = vmax(top, vmul(wfloats(sums[p * rows + r]), vset(scales[r])));
    vstore(best + p * kLanes, top);
  }
}

static void int8(const void* query, int64_t panels, const int8_t* page, const float* scales, int64_t tokens,
                 int64_t dims, float* best) {
  const int64_t panelValues = (dims + kGroup - 1) / kGroup * kGroup * kLanes;
  for (int64_t p = 0; p < panels; ++p) vstore(best + p * kLanes, vset(-INFINITY));
  const bool whole = tokens >= kTile;
#if defined(PG_WIDEN)
  P wide[kTile * kMaxVectorDims];
#endif
  for (int64_t t = 0; t < tokens; t += whole ? kTile : 1) {
    const int64_t at = tileStart(t, tokens);
#if defined(PG_WIDEN)
    const int8_t* narrow = page + at * dims;
    for (int64_t i = 0; i < (whole ? kTile : 1) * dims; ++i) wide[i] = narrow[i];
    const P* rows = wide;
#else
    const P* rows = page + at * dims;
#endif
    for (int64_t p = 0; p < panels; p += 2) {
      const Q* panel = static_cast<const Q*>(query) + p * panelValues;
      float* top = best + p * kLanes;
      if (p + 1 < panels)
        whole ? tileInt8(panel, rows, scales + at, dims, top, 2, kTile)
              : tileInt8(panel, rows, scales + at, dims, top, 2, 1);
      else
        whole ? tileInt8(panel, rows, scales + at, dims, top, 1, kTile)
              : tileInt8(panel, rows, scales + at, dims, top, 1, 1);
    }
  }
}
