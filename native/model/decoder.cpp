// Reproduces big_vision's models/ppp/gemma.py; checked against Gemma(2)ForCausalLM inside PaliGemma.
#include "model/decoder.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/largest.h"

namespace pg {
namespace {

// Calls use(index of its first id, how many) for every run of consecutive ids.
template <class Use>
void eachRun(std::span<const int32_t> ids, Use&& use) {
  for (size_t begin = 0, end; begin < ids.size(); begin = end) {
    for (end = begin + 1; end < ids.size() && ids[end] == ids[end - 1] + 1;) ++end;
    use(begin, end - begin);
  }
}

// A row of the embedding that is not finite spoils one logit only, which no choice of a token would show.
[[noreturn]] void refuseLogits() {
  fail(Code::modelInvalid,
       "The model computes logits that are NaN: its weights hold values that are not finite. Convert or download it "
       "again; convert names the tensor");
}

void checkLogits(std::span<const float> logits) {
  if (hasNan(logits)) refuseLogits();
}

}  // namespace

size_t Decoder::scratchBytes(int64_t rows, size_t segments) const {
  const int64_t headRows = std::min(rows, limits_.stepRows), best = mostBest();
  const size_t pass = Arena::sizeOf(rows, config_.hidden) + Arena::sizeOf(rows, config_.heads * config_.headDim) +
                      2 * Arena::sizeOf(rows, 1, DType::i32);   // tokens and positions
  // of a step, every row's results stay until they are downloaded
  const size_t head = size_t(headRows) * (Arena::sizeOf(1, config_.vocab) + 2 * Arena::sizeOf(1, config_.hidden) +
                                          Arena::sizeOf(1, best) + Arena::sizeOf(1, best, DType::i32));
  return pass + std::max({layers_.scratchBytes(rows, segments), head, Arena::sizeOf(rows, config_.hidden)});
}

// [numbers, 1] on the device
View Decoder::numbers(Arena& arena, std::span<const int32_t> numbers) {
  View view = arena.take(int64_t(numbers.size()), 1, DType::i32);
  device_.upload(view, numbers.data());
  return view;
}

// Tokens' ids on the device, and the only place that checks them.
View Decoder::tokens(Arena& arena, std::span<const int32_t> ids) {
  for (const int32_t id : ids)
    if ((id < 0 && id != kImageRow) || id >= config_.vocab)
      fail(Code::internal, "Token ", id, " is outside the vocabulary");
  return numbers(arena, ids);
}

// Rows of text: embedding * sqrt(hidden).
void Decoder::embed(View x, ConstView ids) {
  device_.embed(x, weights_.embedding.weight, ids, std::sqrt(float(config_.hidden)));
}

void Decoder::beginPrefill(std::span<const PrefillPart> parts, PrefillRows wanted) {
  std::vector<int32_t> ids, places;
  segments_.clear();
  for (const PrefillPart& part : parts) {
    const int64_t row = int64_t(ids.size()), count = int64_t(part.ids.size()), start = part.kv->length();
    part.kv->grow(start + count);
    ids.insert(ids.end(), part.ids.begin(), part.ids.end());
    places.resize(ids.size());
    std::iota(places.begin() + row, places.end(), int32_t(start));
    segments_.push_back({part.kv->view(), row, count, part.prefix, part.adapters,
                         wanted == PrefillRows::last ? layers_.wantedOfLast(count) : 0});
  }
  const int64_t count = int64_t(ids.size());
  prefillArena_.reset();
  prefillArena_.reserve(scratchBytes(count, segments_.size()));
  pass_ = {.x = prefillArena_.take(count, config_.hidden),
           .q = prefillArena_.take(count, config_.heads * config_.headDim),
           .positions = numbers(prefillArena_, places),
           .segments = segments_};
  const View tokenIds = tokens(prefillArena_, ids);
  nextLayer_ = 0;
  device_.submit([&] {
    for (size_t i = 0; i < parts.size(); ++i) {
      const Segment& s = segments_[i];
      enter(pass_.x.slice(s.row, s.rows), parts[i], tokenIds.slice(s.row, s.rows));
    }
  });
}

// What enters layer 0: pictures' features and the text's embeddings.
void Decoder::enter(View x, const PrefillPart& part, ConstView tokenIds) {
  std::span<const ConstView> images = part.images;
  for (int64_t begin = 0, end; begin < x.rows; begin = end) {
    const bool picture = part.ids[size_t(begin)] == kImageRow;
    for (end = begin; end < x.rows && (part.ids[size_t(end)] == kImageRow) == picture;) ++end;
    const View rows = x.slice(begin, end - begin);
    if (picture) images = copyImages(rows, images);
    else embed(rows, tokenIds.slice(begin, end - begin));
  }
}

// As many images as fill the rows; returns those that are left.
std::span<const ConstView> Decoder::copyImages(View rows, std::span<const ConstView> images) {
  for (int64_t row = 0; row < rows.rows; images = images.subspan(1)) {
    if (images.empty() || row + images[0].rows > rows.rows)
      fail(Code::internal, "The prompt's image tokens do not fit its images");
    device_.copy(rows.slice(row, images[0].rows), images[0]);
    row += images[0].rows;
  }
  return images;
}

bool Decoder::stepPrefill(const LayerTape& tape) {
  if (nextLayer_ < config_.layers) device_.submit([&] { layers_.forward(prefillArena_, nextLayer_++, pass_, tape); });
  return nextLayer_ == config_.layers;
}

void Decoder::repeatLayer(int64_t layer, const LayerTape& tape) {
  device_.submit([&] {
    device_.copy(pass_.x, tape.attention);
    layers_.forward(prefillArena_, layer, pass_, tape);
  });
}

// out = softcap(norm(x) embedding^T), at most stepRows() rows.
void Decoder::logitsOf(Arena& arena, View out, ConstView x) {
  Arena::Scope scope(arena);
  View normed = arena.take(x.rows, x.cols);
  device_.rmsNorm(normed, x, weights_.outputNorm.weight, config_.normEps);
  const MatmulJob job{out, &weights_.embedding};
  device_.matmul(normed, {&job, 1});
  if (finalSoftcap_ > 0) device_.softcap(out, finalSoftcap_);
}

bool Decoder::fewIds(std::span<const int32_t> ids) const {
  if (ids.size() > size_t(config_.vocab) / 4) return false;
  int64_t runs = 0;
  eachRun(ids, [&](size_t, size_t) { ++runs; });
  return runs <= limits_.jobs;   // runs of consecutive ids are rows of the weight: no copy, but a product each
}

// The same numbers as logitsOf(), of some ids of one row.
Decoder::HeadResult Decoder::idsOf(Arena& arena, ConstView row, std::span<const int32_t> ids) {
  View out = arena.take(1, int64_t(ids.size())), normed = arena.take(1, row.cols);
  device_.rmsNorm(normed, row, weights_.outputNorm.weight, config_.normEps);
  std::vector<Linear> parts;
  std::vector<MatmulJob> jobs;
  parts.reserve(size_t(limits_.jobs));   // jobs point at them
  const auto flush = [&] {
    device_.matmul(normed, jobs);
    parts.clear();
    jobs.clear();
  };
  eachRun(ids, [&](size_t begin, size_t count) {
    parts.push_back(weights_.embedding.rows(ids[begin], int64_t(count)));
    jobs.push_back({out.columns(int64_t(begin), int64_t(count)), &parts.back()});
    if (int64_t(parts.size()) == limits_.jobs) flush();
  });
  if (!jobs.empty()) flush();
  if (finalSoftcap_ > 0) device_.softcap(out, finalSoftcap_);
  return {.first = 0, .count = 1, .logits = out, .ids = {}, .values = {}};
}

void Decoder::prefillLogits(int64_t begin, int64_t count, float* logits) {
  Arena::Scope scope(prefillArena_);
  View out = prefillArena_.take(count, config_.vocab);
  device_.submit([&] { logitsOf(prefillArena_, out, pass_.x.slice(begin, count)); });
  device_.download(logits, out);
  checkLogits({logits, size_t(count * config_.vocab)});
}

void Decoder::prefillStates(float* states) { device_.download(states, pass_.x); }

void Decoder::prefillFinalStates(float* states) {
  Arena::Scope scope(prefillArena_);
  View normed = prefillArena_.take(pass_.x.rows, pass_.x.cols);
  device_.rmsNorm(normed, pass_.x, weights_.outputNorm.weight, config_.normEps);
  device_.download(states, normed);
}

void Decoder::prefillProjection(const Linear& head, float* out) {
  for (int64_t row = 0; row < pass_.x.rows; row += limits_.stepRows) {
    const int64_t rows = std::min(limits_.stepRows, pass_.x.rows - row);
    Arena::Scope scope(prefillArena_);
    View normed = prefillArena_.take(rows, pass_.x.cols), y = prefillArena_.take(rows, head.out());
    device_.submit([&] {
      device_.rmsNorm(normed, pass_.x.slice(row, rows), weights_.outputNorm.weight, config_.normEps);
      const MatmulJob job{y, &head};
      const AdapterRows all{segments_[0].adapters, 0, rows};
      ops_.matmul(normed, {&job, 1}, {&all, 1});
    });
    device_.download(out + row * head.out(), y);
  }
}

void Decoder::decode(std::span<const DecodeRow> rows, float* logits) {
  // Devices multiply more than a few rows in another way, with other last bits: then company would show.
  if (int64_t(rows.size()) > limits_.stepRows) {
    decode(rows.first(size_t(limits_.stepRows)), logits);
    return decode(rows.subspan(size_t(limits_.stepRows)), logits + limits_.stepRows * config_.vocab);
  }
  const int64_t count = int64_t(rows.size());
  decodeArena_.reset();
  decodeArena_.reserve(scratchBytes(count, rows.size()));
  std::vector<int32_t> ids, places;
  std::vector<Segment> segments;
  for (const DecodeRow& row : rows) row.kv->grow(row.position + 1);   // before views are taken: it moves their pages
  for (const DecodeRow& row : rows) {
    ids.push_back(row.token);
    places.push_back(int32_t(row.position));
    // a segment each, also within a sequence: so a row's attention is computed as it would be alone
    segments.push_back({row.kv->view(), int64_t(segments.size()), 1, row.prefix, row.adapters});
  }
  TextPass pass{.x = decodeArena_.take(count, config_.hidden),
                .q = decodeArena_.take(count, config_.heads * config_.headDim),
                .positions = numbers(decodeArena_, places),
                .segments = segments};
  const View tokenIds = tokens(decodeArena_, ids);
  std::vector<HeadResult> results;
  device_.submit([&] {
    embed(pass.x, tokenIds);
    for (int64_t i = 0; i < config_.layers; ++i) layers_.forward(decodeArena_, i, pass);
    results = heads(pass.x, rows);
  });
  for (const HeadResult& result : results) download(result, rows, logits);
}

std::vector<Decoder::HeadResult> Decoder::heads(View x, std::span<const DecodeRow> rows) {
  using Head = DecodeRow::Head;
  const auto whole = [](Head head) { return head == Head::all || head == Head::best; };
  std::vector<HeadResult> results;
  for (size_t begin = 0, end; begin < rows.size(); begin = end) {
    end = begin + 1;
    const DecodeRow& row = rows[begin];
    if (row.head == Head::ids) {
      results.push_back(idsOf(decodeArena_, x.slice(int64_t(begin), 1), row.ids));
      results.back().first = begin;
    }
    if (!whole(row.head)) continue;
    while (end < rows.size() && whole(rows[end].head)) ++end;
    View logits = decodeArena_.take(int64_t(end - begin), config_.vocab);
    logitsOf(decodeArena_, logits, x.slice(int64_t(begin), int64_t(end - begin)));
    for (size_t i = begin; i < end; ++i) {
      HeadResult result{.first = i, .count = 1, .logits = logits.slice(int64_t(i - begin), 1), .ids = {}, .values = {}};
      if (rows[i].head == Head::best) {
        const int64_t k = std::min(int64_t(rows[i].best->size()), mostBest());
        View best = decodeArena_.take(1, k, DType::i32), values = decodeArena_.take(1, k);
        if (k == 1) device_.argmax(best, result.logits);
        else device_.topK(best, values, result.logits);
        result.ids = best, result.values = values;
      }
      results.push_back(result);
    }
  }
  return results;
}

void Decoder::download(const HeadResult& result, std::span<const DecodeRow> rows, float* logits) {
  const DecodeRow& row = rows[result.first];
  float* out = logits + int64_t(result.first) * config_.vocab;
  if (row.head == DecodeRow::Head::all) {
    device_.download(out, result.logits);
    return checkLogits({out, size_t(config_.vocab)});
  }
  std::vector<int32_t> best;
  if (row.head == DecodeRow::Head::best) {
    best.resize(size_t(result.ids.cols));
    device_.download(best.data(), result.ids);
    if (best[0] == kHoldsNan) refuseLogits();
  }
  const std::span<const int32_t> ids = row.head == DecodeRow::Head::best ? best : row.ids;
  std::vector<float> values(ids.size());
  if (row.head == DecodeRow::Head::ids) device_.download(values.data(), result.logits);
  else if (values.size() > 1) device_.download(values.data(), result.values);
  if (hasNan(values)) refuseLogits();
  for (size_t i = 0; i < ids.size(); ++i)
    if (ids[i] >= 0) out[ids[i]] = values[i];
  if (row.head != DecodeRow::Head::best) return;
  std::erase(best, -1);
  std::sort(best.begin(), best.end());
  *row.best = std::move(best);
}

}  // namespace pg
