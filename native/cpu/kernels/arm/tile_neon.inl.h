// The f32 tile of vector_tiles.h in NEON, which multiplies by a lane: twelve tokens are three registers where
// broadcasts would leave none for the sums. PG_FENCE keeps gcc from loading earlier than that.
#pragma once

#define PG_FMA_LANE(t, x, lane)                        \
  acc[t][0] = vfmaq_laneq_f32(acc[t][0], w0, x, lane); \
  acc[t][1] = vfmaq_laneq_f32(acc[t][1], w1, x, lane);
#define PG_FMA_FOUR(t)             \
  {                                \
    const V x = vload(tokens + t); \
    PG_FMA_LANE(t, x, 0)           \
    PG_FMA_LANE(t + 1, x, 1)       \
    PG_FMA_LANE(t + 2, x, 2)       \
    PG_FMA_LANE(t + 3, x, 3)       \
  }

static void tile(float* out, int64_t stride, const float* panel, const float* tokens, int64_t k, bool add) {
  V acc[12][2];
  PG_UNROLL
  for (int t = 0; t < 12; ++t) acc[t][0] = acc[t][1] = vzero();
  for (; k > 0; --k, panel += kTileRows, tokens += kTileTokens) {
    const V w0 = vload(panel), w1 = vload(panel + 4);
    PG_FMA_FOUR(0)
    PG_FMA_FOUR(4)
    PG_FMA_FOUR(8)
    PG_FENCE
  }
  PG_UNROLL
  for (int t = 0; t < 12; ++t, out += stride) {
    vstore(out, add ? vadd(vload(out), acc[t][0]) : acc[t][0]);
    vstore(out + 4, add ? vadd(vload(out + 4), acc[t][1]) : acc[t][1]);
    PG_FENCE
  }
}
