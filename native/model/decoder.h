#pragma once
// Gemma 1 and 2 as PaliGemma uses them: prefix-LM prefill, one layer at a time, and batched decode steps.
#include <algorithm>
#include <span>
#include <vector>

#include "device/arena.h"
#include "model/adapted_ops.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/text_layer.h"
#include "model/weights.h"

namespace pg {

// A token that enters a decode step at `position`; the logits of the next one come out. Known tokens of one sequence
// may enter together, as rows with consecutive positions.
struct DecodeRow {
  enum class Head : uint8_t { all, ids, best, none };

  KvSequence* kv;          // has room for position + 1 tokens
  int32_t token;
  int64_t position;        // of `token`
  int64_t prefix;          // tokens that attend to each other fully
  const AdapterSet* adapters = nullptr;
  Head head = Head::all;   // which logits are wanted
  std::span<const int32_t> ids = {};    // ascending; with Head::ids only these are computed
  std::vector<int32_t>* best = nullptr;  // with Head::best: as many largest as it has room for, chosen on the device;
                                         // becomes their ids, ascending, fewer where there are fewer
};

// One sequence of a prefill, see Decoder::beginPrefill.
struct PrefillPart {
  KvSequence* kv;
  std::span<const int32_t> ids;
  std::span<const ConstView> images;
  int64_t prefix;
  const AdapterSet* adapters;
};

// Which rows of a prefill have to leave its last layer.
enum class PrefillRows : uint8_t { all, last };

class Decoder {
 public:
  Decoder(Device& device, const TextConfig& config, const TextWeights& weights, AttentionWindow window,
          bool finalSoftcap)
      : device_(device),
        config_(config),
        weights_(weights),
        limits_(device.limits()),
        finalSoftcap_(finalSoftcap ? config.finalSoftcap : 0),
        ops_(device),
        layers_(device, ops_, config, weights, window),
        prefillArena_(device),
        decodeArena_(device) {}

  static constexpr int32_t kImageRow = -1;  // in ids: the next row of `images` instead of a token

  // Appends ids to the sequence behind kv, from position kv.length() on. Positions below `prefix` see each other fully
  // (they must come in one prefill), the rest is causal. images: features [rows, hidden] that enter layer 0 as
  // they are, as many rows together as there are kImageRow. adapters (or nullptr) stay alive until the prefill ends.
  // Replaces an unfinished prefill. PrefillRows::last: of the finished prefill only the last row's logits are asked
  // for (of each sequence), and there is no tape; the same bits for less work.
  void beginPrefill(KvSequence& kv, std::span<const int32_t> ids, std::span<const ConstView> images, int64_t prefix,
                    const AdapterSet* adapters, PrefillRows wanted = PrefillRows::all) {
    const PrefillPart part{&kv, ids, images, prefix, adapters};
    beginPrefill({&part, 1}, wanted);
  }
  // The same of several sequences, whose rows come one behind the other. Their products share the work that does not
  // depend on the number of rows, and each gets the bits that it gets alone: where every part mayJoin() and they have
  // at most jointRows() together.
  void beginPrefill(std::span<const PrefillPart> parts, PrefillRows wanted);
  bool mayJoin(int64_t rows) const { return rows > limits_.stepRows && rows <= limits_.blockRows; }
  int64_t jointRows() const { return limits_.jointRows; }
  // One layer; true when all are done. tape: gets what a backward pass needs of that layer.
  bool stepPrefill(const LayerTape& tape = {});
  // Computes a layer of the finished prefill again from what entered it, tape.attention: for what else a tape wants.
  void repeatLayer(int64_t layer, const LayerTape& tape);
  // The residual stream [tokens, hidden], on the device, until the next call here.
  View prefillRows() const { return pass_.x; }
  ConstView prefillPositions() const { return pass_.positions; }
  AttentionMask mask(int64_t layer, int64_t prefix) const { return layers_.mask(layer, prefix); }
  float finalSoftcap() const { return finalSoftcap_; }  // 0: none
  // Logits of rows [begin, begin + count) of the finished prefill, count <= stepRows(), to host [count, vocab].
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

  // Up to so many rows a step reads the weights once; more take more passes.
  int64_t stepRows() const { return limits_.stepRows; }
  // Most that Head::best gives.
  int64_t mostBest() const { return std::min(limits_.topK, config_.vocab); }

 private:
  // What the head left on the device for some rows of a step.
  struct HeadResult {
    size_t first, count;  // rows of the step
    ConstView logits;  // [count, vocab], or of Head::ids [1, ids]
    ConstView ids, values;  // of Head::best [1, k]
  };

  View numbers(Arena& arena, std::span<const int32_t> numbers);
  View tokens(Arena& arena, std::span<const int32_t> ids);
  void embed(View x, ConstView ids);
  void enter(View x, const PrefillPart& part, ConstView tokenIds);
  std::span<const ConstView> copyImages(View rows, std::span<const ConstView> images);
  void logitsOf(Arena& arena, View out, ConstView x);
  HeadResult idsOf(Arena& arena, ConstView row, std::span<const int32_t> ids);
  std::vector<HeadResult> heads(View x, std::span<const DecodeRow> rows);
  void download(const HeadResult& result, std::span<const DecodeRow> rows, float* logits);
  size_t scratchBytes(int64_t rows, size_t segments) const;

  Device& device_;
  const TextConfig& config_;
  const TextWeights& weights_;
  const DeviceLimits limits_;
  float finalSoftcap_;
  AdaptedOps ops_;
  TextLayers layers_;
  Arena prefillArena_, decodeArena_;

  // the prefill under way
  TextPass pass_;
  std::vector<Segment> segments_;
  int64_t nextLayer_ = 0;
};

}  // namespace pg
