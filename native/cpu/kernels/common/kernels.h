#pragma once
// Kernels: one table per instruction set, chosen once per device. Kernels know pointers and sizes, nothing else; sizes
// are in values unless said otherwise. kernels_scalar.cpp holds the plain version of each.
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/epilogue.h"

namespace pg {

// Columns of weights and of activations that share one 8-bit scale in a tile of a product of many rows.
inline constexpr int64_t kTileGroup = 64;
// Columns that the decode kernels take at a time: one super-block.
inline constexpr int64_t kRowBlock = 256;
// Bytes ahead of the one in use that decode kernels ask for: memory's latency times its bandwidth, a small part of a
// first-level cache.
inline constexpr size_t kPrefetchAhead = 4096;
// Tokens the decode kernels accept.
inline constexpr int64_t kMaxDecodeTokens = 8;

// Columns of heads that attention takes in 16-bit integers, at most; rows of integers lie so far apart.
inline constexpr int64_t kRow16 = 256;
// Largest integers of probabilities and of values there: kTileGroup products of them fit 31 bits.
inline constexpr int kProbabilityLevel = 8191, kValueLevel = 4095;
// Their scores are exponents of 2.
inline constexpr float kLog2E = 1.44269504f;

// Sums on their way to an Epilogue. acc and second: [tokens][n], rows accStride apart; biases may be none.
struct Sums {
  const float *acc, *second;
  int64_t accStride;
  const float *bias, *secondBias;
};

struct Kernels {
  const char* isa;

  // --- rows of f32 ---
  // sum of a[i] * b[i]
  float (*dot)(const float* a, const float* b, int64_t n);
  // y[i] *= s
  void (*scale)(float* y, float s, int64_t n);
  // y[i] += x[i]
  void (*add)(float* y, const float* x, int64_t n);
  float (*max)(const float* x, int64_t n);
  // x[i] = exp(x[i] - shift); returns the sum
  float (*expSum)(float* x, float shift, int64_t n);
  // One step of an online softmax over n >= 1 more scores x[i] * factor, then capped (cap 0: not): they become
  // exp(score - *top), *top and *sum are brought up to date. Returns what earlier weights must be multiplied by; *top
  // is -infinity at first.
  float (*softmaxStep)(float* x, float factor, float cap, float* top, float* sum, int64_t n);
  // x[i] = cap * tanh(x[i] / cap)
  void (*softcap)(float* x, float cap, int64_t n);
  // x[i] = gelu_tanh(x[i])
  void (*gelu)(float* x, int64_t n);
  // out[i] = gelu_tanh(gate[i]) * up[i]; out may be gate
  void (*geluMul)(float* out, const float* gate, const float* up, int64_t n);
  // [tokens][n] sums to rows of out, outStride apart
  void (*finish)(Epilogue kind, float* out, int64_t outStride, const Sums& y, int64_t n, int64_t tokens);
  // out = x / rms(x) * weight, or out += that; out may be x
  void (*rmsNorm)(float* out, const float* x, const float* weight, float eps, bool add, int64_t n);
  void (*layerNorm)(float* out, const float* x, const float* weight, const float* bias, float eps, int64_t n);
  // x[i], x[i + half] rotated by angle i: cosines[half], sines[half]
  void (*rope)(float* x, const float* cosines, const float* sines, int64_t half);
  // --- gradients of rows, for training: d of something is the loss's gradient with respect to it ---
  // dx of rmsNorm or layerNorm, given dy, or dx += that; dx may be dy
  void (*rmsNormGrad)(float* dx, const float* dy, const float* x, const float* weight, float eps, bool add, int64_t n);
  void (*layerNormGrad)(float* dx, const float* dy, const float* x, const float* weight, float eps, bool add,
                        int64_t n);
  // d[i] *= gelu_tanh'(x[i])
  void (*geluGrad)(float* d, const float* x, int64_t n);
  // of geluMul: gate and up become d gate and d up, given d out
  void (*geluMulGrad)(float* gate, float* up, const float* d, int64_t n);
  // Of a row of probabilities p over scores cap * tanh(x * factor / cap) (cap 0: not capped): d p becomes d x. mean:
  // the sum of p[i] * d[i].
  void (*softmaxGrad)(float* d, const float* p, const float* x, float mean, float factor, float cap, int64_t n);
  // log of the sum of exp(x[i])
  float (*logSumExp)(const float* x, int64_t n);
  // Of factor * logSumExp over z = cap * tanh(x / cap): z becomes d x. sum: logSumExp(z).
  void (*logSumExpGrad)(float* z, float sum, float factor, float cap, int64_t n);

  // n values of any type to f32; f32 to a cache type (f32, f16, q8_0)
  void (*toF32)(DType type, const void* src, float* dst, int64_t n);
  void (*fromF32)(DType type, const float* src, void* dst, int64_t n);

  // --- tiles: tileRows weight rows x tileTokens tokens, f32 ---
  int64_t tileRows, tileTokens;
  // panel[k][tileRows] from columns [column, column + k) of `rows` <= tileRows rows of f32, f16, bf16 or q8_0, `stride`
  // bytes apart; rows that are missing become zeros. For q8_0 column and k are multiples of 32.
  void (*packRows)(DType type, const uint8_t* w, size_t stride, int64_t rows, int64_t column, int64_t k, float* panel);
  // tokens[k][tileTokens] from `count` rows of x, `stride` floats apart; missing ones become zeros
  void (*packTokens)(const float* x, int64_t stride, int64_t count, int64_t k, float* tokens);
  // out[t][r] = (add ? out[t][r] : 0) + sum over k of panel[k][r] * tokens[k][t]; rows of out are `stride` apart
  void (*tile)(float* out, int64_t stride, const float* panel, const float* tokens, int64_t k, bool add);
  // out[t][c] = out[t][c] * keep[t] + sum over keys of p[t][key] * v[key][c], t < tokens <= tileTokens, c < cols;
  // rows of out are `stride` apart, of p kTileGroup, of v (f32; f16 and q8_0 too where few tokens want them) vStride
  // bytes. cols is a multiple of 16, of 32 for q8_0.
  void (*mix)(float* out, int64_t stride, const float* keep, const float* p, DType type, const uint8_t* v,
              size_t vStride, int64_t keys, int64_t cols, int64_t tokens);

  // --- the same tiles in 8 bits; absent (packRows8 null) in the scalar table ---
  int64_t panelBytes, tokenBytes;  // a packed weight or activation takes
  // Columns [column, column + k) as 8-bit panels with a scale per row and group: scales[group][tileRows]. Types: f32
  // and those of hasTile8. column is a multiple of 256, the last group may be cut short.
  void (*packRows8)(DType type, const uint8_t* w, size_t stride, int64_t rows, int64_t column, int64_t k,
                    uint8_t* panel, float* scales);
  // One group of such a panel from what lies the other way: x[k <= kTileGroup][tileRows], `stride` floats apart.
  void (*packColumns8)(const float* x, int64_t stride, int64_t k, uint8_t* panel, float* scales);
  bool (*hasTile8)(DType type);
  // scales, offsets: [group][tileTokens]
  void (*packTokens8)(const float* x, int64_t stride, int64_t count, int64_t k, uint8_t* tokens, float* scales,
                      int32_t* offsets);
  // out[tileTokens][tileRows] += over `groups` groups
  void (*tile8)(float* out, const uint8_t* panel, const float* rowScales, const uint8_t* tokens,
                const float* tokenScales, const int32_t* offsets, int64_t groups);

  // --- the same tiles of weights as the file has them, slope * level - base, where few bits of levels save
  //     instructions; absent (hasLevels null) where they do not ---
  int64_t levelBlockBytes;  // of tileRows rows and 32 columns of weights
  bool (*hasLevels)(DType type);
  // panel[ceil(k / 32)] of columns [column, column + k), column a multiple of 256
  void (*packLevels)(DType type, const uint8_t* w, size_t stride, int64_t rows, int64_t column, int64_t k,
                     uint8_t* panel);
  // tokens[ceil(k / kRowBlock)][tileTokens] blocks of tokenBlockBytes, as decoding has them
  void (*packTokenLevels)(const float* x, int64_t stride, int64_t count, int64_t k, uint8_t* tokens);
  // out[tileTokens][tileRows] += over `blocks` of 32 columns; `type` is what packLevels was given
  void (*tileLevels)(DType type, float* out, const uint8_t* panel, const uint8_t* tokens, int64_t blocks);

  // --- attention in 16-bit integers, kTileGroup keys at a time; absent (scores16 null) where f32 is as fast ---
  // A row of n <= kRow16 values becomes integers of at most `level`, value = integer * *scale; `to` takes kRow16.
  void (*packQueries16)(const float* x, int64_t n, int level, int16_t* to, float* scale);
  // `count` <= kTileGroup keys of f32, f16, bf16 or q8_0, missing ones as zeros: panels[panel][pairs of
  // columns][tileRows][2] of n, rounded up to 8, columns
  void (*packKeys16)(DType type, const uint8_t* x, size_t stride, int64_t count, int64_t n, int level, int16_t* panels,
                     float* scales);
  // The same for values, of at most kValueLevel: panels[panel][pairs of keys][tileRows][2], n rounded up to 16
  void (*packValues16)(DType type, const uint8_t* x, size_t stride, int64_t count, int64_t n, int16_t* panels,
                       float* scales);
  // out[tileTokens][kTileGroup] = products of queries and keys; n as for packKeys16. n * level^2 must fit 31 bits.
  void (*scores16)(float* out, const int16_t* queries, const float* queryScales, const int16_t* keys,
                   const float* keyScales, int64_t n);
  // softmaxStep for a row of such a tile, scores and *top times kLog2E, of which keys [from, to) are seen, from < to.
  // p and *weight: *weight * p[key] is the probability of a key times the scale of its value.
  float (*softmax16)(const float* scores, int64_t from, int64_t to, float cap, const float* valueScales, float* top,
                     float* sum, int16_t* p, float* weight);
  // out[t][c] = out[t][c] * keep[t] + weights[t] * sum over keys of p[t][key] * values[key][c]; n as for packValues16,
  // rounded up
  void (*mix16)(float* out, int64_t stride, const float* keep, const float* weights, const int16_t* p,
                const int16_t* values, int64_t n);

  // --- decoding: few tokens, weights used once ---
  // out[t][rows] = the products of `rows` weight rows of k values with `count` tokens; f32, f16, bf16, q8_0
  void (*dotRows)(DType type, const uint8_t* w, size_t stride, int64_t rows, int64_t k, const float* x, int64_t xStride,
                  int64_t count, float* out);
  // The same for types of hasDot8, with 8-bit activations; absent in the scalar table. Activations are written first, a
  // scale per 32 columns: of every token ceil(k / kRowBlock) blocks of tokenBlockBytes, whose layout is the table's
  // own.
  int64_t tokenBlockBytes;
  void (*quantizeTokens)(const float* x, int64_t stride, int64_t count, int64_t k, uint8_t* tokens);
  void (*dotRows8)(DType type, const uint8_t* w, size_t stride, int64_t rows, int64_t k, const uint8_t* tokens,
                   int64_t count, float* out);
  bool (*hasDot8)(DType type);

  // --- limits of the machine, for reports ---
  // The 8-bit multiply-add instructions of the tiles from registers alone; returns multiplications and additions done.
  double (*peak8)(int64_t rounds);
  // Reads every byte, prefetching; n is a multiple of 512.
  uint64_t (*read)(const uint8_t* p, size_t n);
};

extern const Kernels kKernelsScalar;
#if defined(__x86_64__) || defined(_M_X64)
// kKernelsAvxVnni where PG_HAS_AVXVNNI, kKernelsAmx where PG_HAS_AMX
extern const Kernels kKernelsAvx2, kKernelsAvxVnni, kKernelsAvx512Vnni, kKernelsAmx;
#elif defined(__aarch64__) || defined(_M_ARM64)
extern const Kernels kKernelsNeon, kKernelsNeonDotprod, kKernelsNeonI8mm;
#endif

}  // namespace pg
