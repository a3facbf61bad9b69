// Reproduces big_vision's models/ppp/gemma.py; checked against Gemma(2)ForCausalLM inside PaliGemma.
#include "model/decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

namespace pg {
namespace {

// Rows that pass through the feed-forward together: large enough that unpacking weights costs little, small enough
// that its activations [rows, ffn] stay a few tens of MB.
constexpr int64_t kBlockRows = 512;

}  // namespace

AttentionMask Decoder::mask(int64_t layer, int64_t prefix) const {
  const bool slides = layer % 2 == 0 && window_ != AttentionWindow::none;
  return {.prefix = prefix,
          .window = slides ? config_.slidingWindow : 0,
          .windowInPrefix = window_ == AttentionWindow::causal};
}

size_t Decoder::scratchBytes(int64_t rows) const {
  const int64_t block = std::min(rows, kBlockRows), qWidth = config_.heads * config_.headDim;
  const size_t attention = Arena::sizeOf(block, config_.hidden) +
                           2 * Arena::sizeOf(block, config_.kvHeads * config_.headDim) + Arena::sizeOf(block, qWidth) +
                           Arena::sizeOf(block, config_.hidden);
  const size_t feedForward = 2 * Arena::sizeOf(block, config_.hidden) + Arena::sizeOf(block, config_.ffn);
  const int64_t headRows = std::min(rows, kLogitRows);
  const size_t head = Arena::sizeOf(headRows, config_.vocab) + Arena::sizeOf(headRows, config_.hidden);
  return Arena::sizeOf(rows, config_.hidden) + Arena::sizeOf(rows, qWidth) +
         std::max({attention, feedForward, head, Arena::sizeOf(rows, config_.hidden)});
}

void Decoder::beginPrefill(KvSequence& kv, std::span<const int32_t> ids, const float* imageRows, int64_t prefix,
                           const AdapterSet* adapters) {
  const int64_t tokens = int64_t(ids.size()), d = config_.hidden, start = kv.length();
  kv.grow(start + tokens);
  prefillArena_.reset();
  prefillArena_.reserve(scratchBytes(tokens));
  x_ = prefillArena_.take(tokens, d);
  q_ = prefillArena_.take(tokens, config_.heads * config_.headDim);

  // text rows enter as embedding * sqrt(hidden), image rows as the projector gave them
  for (int64_t begin = 0; begin < tokens;) {
    const bool image = ids[size_t(begin)] == kImageRow;
    int64_t end = begin;
    while (end < tokens && (ids[size_t(end)] == kImageRow) == image) ++end;
    View rows = x_.slice(begin, end - begin);
    if (image) {
      device_.upload(rows, imageRows);
      imageRows += (end - begin) * d;
    } else {
      device_.embed(rows, weights_.embedding.weight, ids.subspan(size_t(begin), size_t(end - begin)),
                    std::sqrt(float(d)));
    }
    begin = end;
  }
  positions_.resize(size_t(tokens));
  std::iota(positions_.begin(), positions_.end(), start);
  segments_ = {{kv.view(), 0, tokens, start, prefix, adapters}};
  nextLayer_ = 0;
}

bool Decoder::stepPrefill() {
  if (nextLayer_ < config_.layers) layer(prefillArena_, nextLayer_++, x_, q_, segments_, positions_);
  return nextLayer_ == config_.layers;
}

void Decoder::layer(Arena& arena, int64_t index, View x, View q, std::span<const Segment> segments,
                    std::span<const int64_t> positions) {
  const TextLayer& w = weights_.layers[size_t(index)];
  const float eps = config_.normEps;
  const int64_t kvWidth = config_.kvHeads * config_.headDim;

  // Calls use(segment, its rows inside the block, block-relative) for the segments that meet rows [row, row + rows).
  const auto eachSegment = [&](int64_t row, int64_t rows, auto&& use) {
    for (const Segment& s : segments) {
      const int64_t begin = std::max(row, s.row), end = std::min(row + rows, s.row + s.rows);
      if (begin < end) use(s, begin - row, end - begin, s.position + begin - s.row);
    }
  };

  // The same as runs of rows with one choice of adapters; empty where no row has any.
  const auto adapterRows = [&](int64_t row, int64_t rows) {
    std::vector<AdapterRows> groups;
    bool any = false;
    eachSegment(row, rows, [&](const Segment& s, int64_t begin, int64_t count, int64_t) {
      any |= s.adapters != nullptr;
      if (!groups.empty() && groups.back().set == s.adapters) groups.back().rows += count;
      else groups.push_back({s.adapters, begin, count});
    });
    if (!any) groups.clear();
    return groups;
  };

  // keys and values of every row first: prefix rows see rows that come after them
  for (int64_t row = 0; row < x.rows; row += kBlockRows) {
    const int64_t rows = std::min(kBlockRows, x.rows - row);
    Arena::Scope scope(arena);
    View branch = arena.take(rows, x.cols), k = arena.take(rows, kvWidth), v = arena.take(rows, kvWidth);
    View qRows = q.slice(row, rows);
    device_.rmsNorm(branch, x.slice(row, rows), w.attnNorm.weight, eps);
    const MatmulJob qkv[] = {{qRows, &w.q}, {k, &w.k}, {v, &w.v}};
    ops_.matmul(branch, qkv, adapterRows(row, rows));
    device_.rope(qRows, positions.subspan(size_t(row), size_t(rows)), config_.headDim, config_.ropeTheta);
    device_.rope(k, positions.subspan(size_t(row), size_t(rows)), config_.headDim, config_.ropeTheta);
    eachSegment(row, rows, [&](const Segment& s, int64_t begin, int64_t count, int64_t position) {
      device_.storeKv(s.kv, index, k.slice(begin, count), v.slice(begin, count), position);
    });
  }

  for (int64_t row = 0; row < x.rows; row += kBlockRows) {
    const int64_t rows = std::min(kBlockRows, x.rows - row);
    View xRows = x.slice(row, rows);
    const std::vector<AdapterRows> adapters = adapterRows(row, rows);
    {
      // x += out(attend(q)); Gemma 2 normalises the branch before the addition
      Arena::Scope scope(arena);
      View attended = arena.take(rows, q.cols), branch = arena.take(rows, x.cols);
      std::vector<AttentionJob> jobs;
      eachSegment(row, rows, [&](const Segment& s, int64_t begin, int64_t count, int64_t position) {
        jobs.push_back(
            {attended.slice(begin, count), q.slice(row + begin, count), s.kv, position, mask(index, s.prefix)});
      });
      device_.attention(jobs, index, config_.attentionScale, config_.attentionSoftcap, w.q.precision());
      const MatmulJob out{config_.postNorms ? branch : xRows, &w.out,
                          config_.postNorms ? Epilogue::store : Epilogue::add};
      ops_.matmul(attended, {&out, 1}, adapters);
      if (config_.postNorms) device_.rmsNorm(xRows, branch, w.postAttnNorm.weight, eps, true);
    }
    {
      // x += down(gelu(gate) * up), the branch again normalised by Gemma 2
      Arena::Scope scope(arena);
      View branch = arena.take(rows, x.cols), wide = arena.take(rows, config_.ffn);
      device_.rmsNorm(branch, xRows, w.ffnNorm.weight, eps);
      ops_.geglu(wide, branch, w.gate, w.up, adapters);
      const MatmulJob down{config_.postNorms ? branch : xRows, &w.down,
                           config_.postNorms ? Epilogue::store : Epilogue::add};
      ops_.matmul(wide, {&down, 1}, adapters);
      if (config_.postNorms) device_.rmsNorm(xRows, branch, w.postFfnNorm.weight, eps, true);
    }
  }
}

// A row of the embedding that is not finite spoils one logit only, which no choice of a token would show.
static void checkLogits(std::span<const float> logits) {
  size_t nans = 0;
  for (const float v : logits) nans += v != v;
  if (nans)
    fail(Code::modelInvalid, "The model computes ", nans, " of ", logits.size(),
         " logits as NaN: its weights hold values that are not finite. Convert or download it again; convert names the "
         "tensor");
}

// logits = softcap(norm(x) embedding^T)
void Decoder::head(Arena& arena, ConstView x, float* logits) {
  for (int64_t row = 0; row < x.rows; row += kLogitRows) {
    const int64_t rows = std::min(kLogitRows, x.rows - row);
    Arena::Scope scope(arena);
    View normed = arena.take(rows, x.cols), out = arena.take(rows, config_.vocab);
    device_.rmsNorm(normed, x.slice(row, rows), weights_.outputNorm.weight, config_.normEps);
    const MatmulJob job{out, &weights_.embedding};
    device_.matmul(normed, {&job, 1});
    if (finalSoftcap_ > 0) device_.softcap(out, finalSoftcap_);
    device_.download(logits + row * config_.vocab, out);
    checkLogits({logits + row * config_.vocab, size_t(rows * config_.vocab)});
  }
}

namespace {

// Calls use(index of its first id, how many) for every run of consecutive ids.
template <class Use>
void eachRun(std::span<const int32_t> ids, Use&& use) {
  for (size_t begin = 0, end; begin < ids.size(); begin = end) {
    for (end = begin + 1; end < ids.size() && ids[end] == ids[end - 1] + 1;) ++end;
    use(begin, end - begin);
  }
}

// Runs of consecutive ids are slices of the weight: no copy, but a product each.
constexpr size_t kMaxRuns = 256;

}  // namespace

bool Decoder::fewIds(std::span<const int32_t> ids) const {
  if (ids.size() > size_t(config_.vocab) / 4) return false;
  size_t runs = 0;
  eachRun(ids, [&](size_t, size_t) { ++runs; });
  return runs <= kMaxRuns;
}

// The same numbers as head(), of some ids of one row.
void Decoder::headOf(Arena& arena, ConstView row, std::span<const int32_t> ids, float* logits) {
  Arena::Scope scope(arena);
  View normed = arena.take(1, row.cols), out = arena.take(1, int64_t(ids.size()));
  device_.rmsNorm(normed, row, weights_.outputNorm.weight, config_.normEps);
  std::vector<Linear> slices;
  std::vector<MatmulJob> jobs;
  slices.reserve(kMaxRuns);   // jobs point at them
  const auto flush = [&] {
    device_.matmul(normed, jobs);
    slices.clear();
    jobs.clear();
  };
  eachRun(ids, [&](size_t begin, size_t count) {
    Linear& slice = slices.emplace_back(weights_.embedding);
    slice.weight = slice.weight.slice(ids[begin], int64_t(count));
    jobs.push_back({out.columns(int64_t(begin), int64_t(count)), &slice});
    if (slices.size() == kMaxRuns) flush();
  });
  if (!jobs.empty()) flush();
  if (finalSoftcap_ > 0) device_.softcap(out, finalSoftcap_);
  std::vector<float> values(ids.size());
  device_.download(values.data(), out);
  for (size_t i = 0; i < ids.size(); ++i) logits[ids[i]] = values[i];
}

void Decoder::prefillLogits(int64_t begin, int64_t count, float* logits) {
  head(prefillArena_, x_.slice(begin, count), logits);
}

void Decoder::prefillStates(float* states) { device_.download(states, x_); }

void Decoder::prefillFinalStates(float* states) {
  Arena::Scope scope(prefillArena_);
  View normed = prefillArena_.take(x_.rows, x_.cols);
  device_.rmsNorm(normed, x_, weights_.outputNorm.weight, config_.normEps);
  device_.download(states, normed);
}

void Decoder::prefillProjection(const Linear& head, float* out) {
  for (int64_t row = 0; row < x_.rows; row += kLogitRows) {
    const int64_t rows = std::min(kLogitRows, x_.rows - row);
    Arena::Scope scope(prefillArena_);
    View normed = prefillArena_.take(rows, x_.cols), y = prefillArena_.take(rows, head.out());
    device_.rmsNorm(normed, x_.slice(row, rows), weights_.outputNorm.weight, config_.normEps);
    const MatmulJob job{y, &head};
    const AdapterRows all{segments_[0].adapters, 0, rows};
    ops_.matmul(normed, {&job, 1}, {&all, 1});
    device_.download(out + row * head.out(), y);
  }
}

void Decoder::decode(std::span<const DecodeRow> rows, float* logits) {
  // Devices multiply more than a few rows in another way, with other last bits: then company would show.
  if (int64_t(rows.size()) > kStepRows) {
    decode(rows.first(size_t(kStepRows)), logits);
    return decode(rows.subspan(size_t(kStepRows)), logits + kStepRows * config_.vocab);
  }
  const int64_t count = int64_t(rows.size());
  decodeArena_.reset();
  decodeArena_.reserve(scratchBytes(count));
  View x = decodeArena_.take(count, config_.hidden), q = decodeArena_.take(count, config_.heads * config_.headDim);
  std::vector<int32_t> ids;
  std::vector<int64_t> positions;
  std::vector<Segment> segments;
  for (const DecodeRow& row : rows) row.kv->grow(row.position + 1);   // before views are taken: it moves their pages
  for (const DecodeRow& row : rows) {
    ids.push_back(row.token);
    positions.push_back(row.position);
    // a segment each, also within a sequence: so a row's attention is computed as it would be alone
    segments.push_back({row.kv->view(), int64_t(segments.size()), 1, row.position, row.prefix, row.adapters});
  }
  device_.embed(x, weights_.embedding.weight, ids, std::sqrt(float(config_.hidden)));
  for (int64_t i = 0; i < config_.layers; ++i) layer(decodeArena_, i, x, q, segments, positions);
  for (int64_t begin = 0, end; begin < count; begin = end) {
    const DecodeRow& row = rows[size_t(begin)];
    end = begin + 1;
    float* out = logits + begin * config_.vocab;
    if (row.head == DecodeRow::Head::ids) headOf(decodeArena_, x.slice(begin, 1), row.ids, out);
    if (row.head != DecodeRow::Head::all) continue;
    while (end < count && rows[size_t(end)].head == DecodeRow::Head::all) ++end;
    head(decodeArena_, x.slice(begin, end - begin), out);
  }
}

}  // namespace pg
