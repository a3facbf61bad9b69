#pragma once
// Gemma 1 and 2 as PaliGemma uses them: prefix-LM prefill, one layer at a time, and batched decode steps.
#include <span>
#include <vector>

#include "device/arena.h"
#include "model/adapted_ops.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/weights.h"

namespace pg {

// A token that enters a decode step at `position`; the logits of the next one come out. Known tokens of one sequence
// may enter together, as rows with consecutive positions.
struct DecodeRow {
  enum class Head : uint8_t { all, ids, none };

  KvSequence* kv;          // has room for position + 1 tokens
  int32_t token;
  int64_t position;        // of `token`
  int64_t prefix;          // tokens that attend to each other fully
  const AdapterSet* adapters = nullptr;
  Head head = Head::all;   // which logits are wanted
  std::span<const int32_t> ids = {};   // ascending; with Head::ids only these are computed
};

class Decoder {
 public:
  Decoder(Device& device, const TextConfig& config, const TextWeights& weights, AttentionWindow window,
          bool finalSoftcap)
      : device_(device),
        config_(config),
        weights_(weights),
        window_(window),
        finalSoftcap_(finalSoftcap ? config.finalSoftcap : 0),
        ops_(device),
        prefillArena_(device),
        decodeArena_(device) {}

  static constexpr int32_t kImageRow = -1;   // in ids: the next row of `imageRows` instead of a token

  // Appends ids to the sequence behind kv, from position kv.length() on. Positions below `prefix` see each other fully
  // (they must come in one prefill), the rest is causal. imageRows: [count of kImageRow, hidden], enters layer 0 as it
  // is. adapters (or nullptr) stay alive until the prefill ends. Replaces an unfinished prefill.
  void beginPrefill(KvSequence& kv, std::span<const int32_t> ids, const float* imageRows, int64_t prefix,
                    const AdapterSet* adapters);
  bool stepPrefill();  // one layer; true when all are done
  // Logits of rows [begin, begin + count) of the finished prefill, count <= kLogitRows, to host [count, vocab].
  void prefillLogits(int64_t begin, int64_t count, float* logits);
  // The residual stream [tokens, hidden] between layers (before the first, after the last: without the final norm).
  void prefillStates(float* states);
  // The same after the final norm; only when the prefill is finished.
  void prefillFinalStates(float* states);

  // What `head` makes of every row of the finished prefill after the final norm: host [tokens, head.out()].
  void prefillProjection(const Linear& head, float* out);

  // One step for every row; logits: host [rows, vocab], of which what a row did not ask for is left as it is. A row's
  // numbers do not depend on its company, nor on how much of the head was asked for.
  void decode(std::span<const DecodeRow> rows, float* logits);
  // Whether a row of the head that is asked for these ids alone is cheaper than a whole one.
  bool fewIds(std::span<const int32_t> ids) const;

  static constexpr int64_t kLogitRows = 8;
  static constexpr int64_t kStepRows = 8;  // up to so many rows a step reads the weights once; more take more passes

 private:
  // Consecutive rows of x that belong to one sequence.
  struct Segment {
    KvView kv;
    int64_t row, rows;  // in x
    int64_t position;  // of the first row
    int64_t prefix;
    const AdapterSet* adapters;
  };

  void layer(Arena& arena, int64_t index, View x, View q, std::span<const Segment> segments,
             std::span<const int64_t> positions);
  void head(Arena& arena, ConstView x, float* logits);
  void headOf(Arena& arena, ConstView row, std::span<const int32_t> ids, float* logits);
  AttentionMask mask(int64_t layer, int64_t prefix) const;
  size_t scratchBytes(int64_t rows) const;

  Device& device_;
  const TextConfig& config_;
  const TextWeights& weights_;
  AttentionWindow window_;
  float finalSoftcap_;
  AdaptedOps ops_;
  Arena prefillArena_, decodeArena_;

  // the prefill under way
  View x_, q_;  // [tokens, hidden], [tokens, heads * headDim]
  std::vector<Segment> segments_;
  std::vector<int64_t> positions_;
  int64_t nextLayer_ = 0;
};

}  // namespace pg
