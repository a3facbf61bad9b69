#include "serve/scheduler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "serve/importance.h"

namespace pg {
namespace {

// Features of about 24 pictures at 224 px (PaliGemma 2 3B), or two at 896 px.
constexpr size_t kEmbeddingCacheBytes = size_t(64) << 20;

}  // namespace

Scheduler::Scheduler(Model& model, int maxSequences, const std::atomic<bool>& stopping, std::function<void(Event)> post,
                     std::function<Clock::time_point()> now)
    : model_(model),
      maxSequences_(size_t(std::max(1, maxSequences))),
      stopping_(stopping),
      post_(std::move(post)),
      now_(std::move(now)),
      embeddings_(kEmbeddingCacheBytes),
      prefixes_(model.keptPrefixPages) {}

template <class Work>
bool Scheduler::guard(const Job& job, Work&& work) {
  try {
    work();
    return true;
  } catch (const Error& e) {
    postError(job, e.code(), e.message());
  } catch (const std::bad_alloc&) {
    postError(job, Code::outOfMemory,
              "Out of memory. Close other programs or lower contextSize, maxSequences or the number of images");
  } catch (const std::exception& e) {
    postError(job, Code::internal, e.what());
  }
  return false;
}

void Scheduler::postError(const Job& job, Code code, const std::string& message) {
  Event event;
  event.kind = Event::Kind::error;
  event.job = job.id;
  const bool disposed = code == Code::aborted && stopping_;
  event.code = disposed ? Code::disposed : code;
  event.message = disposed ? "The model was disposed while the request was running" : message;
  post_(std::move(event));
}

// The closing event of a request that ends with its admission.
void Scheduler::endAdmission(Event event) {
  event.kind = Event::Kind::end;
  event.job = admitting_->job->id;
  event.finishReason = "stop";
  event.imageTokens = admitting_->prompt.imageTokens;
  event.promptTokens = admitting_->prompt.prefix - admitting_->prompt.imageTokens;
  event.timings = admitting_->timings;
  post_(std::move(event));
  admitting_.reset();
}

size_t Scheduler::usedSlots() const {
  size_t slots = 0;
  for (const auto& s : running_) slots += s->job->request.slots();
  return slots;
}

// In order: a request that needs many slots waits for them at the head, so it cannot starve. One that needs more than
// there are does not wait: admitNext() refuses it.
bool Scheduler::mayAdmit() const {
  if (queue_.empty()) return false;
  const size_t slots = queue_.front()->request.slots();
  return slots > maxSequences_ || usedSlots() + slots <= maxSequences_;
}

void Scheduler::step() {
  dropCancelled();
  // As long as a token of those that run took: a layer alone would be a small part of a step of many streams, and the
  // last of many new requests would wait for ever.
  const auto start = now_();
  do {
    if (!admitting_ && mayAdmit()) admitNext();
    if (!admitting_) break;
    const std::shared_ptr<Job> job = admitting_->job;
    model_.device->setCancel(&job->cancel);
    const bool ok = guard(*job, [&] { stepAdmission(); });
    model_.device->setCancel(nullptr);
    if (!ok) admitting_.reset();
  } while (!running_.empty() && milliseconds(start, now_()) < decodeMs_);
  if (running_.empty()) return;
  const auto decodeStart = now_();
  decodeStep();
  decodeMs_ = milliseconds(decodeStart, now_());
}

void Scheduler::dropCancelled() {
  const auto dropped = [&](const Job& job) { return !guard(job, [&] { job.cancel.throwIfSet(); }); };
  std::erase_if(queue_, [&](const auto& job) { return dropped(*job); });
  std::erase_if(running_, [&](const auto& sequence) { return dropped(*sequence->job); });
  if (admitting_ && dropped(*admitting_->job)) admitting_.reset();
}

void Scheduler::admitNext() {
  std::shared_ptr<Job> job = std::move(queue_.front());
  queue_.pop_front();
  guard(*job, [&] {
    if (job->request.slots() > maxSequences_)
      fail(Code::invalidOption, "Expected beams <= maxSequences (", maxSequences_, ") but received ",
           job->request.beams, ". Raise maxSequences in loadModel");
    admitting_ = std::make_unique<Sequence>(job, model_);
    if (model_.observer) model_.observer->beginPass(0);
    admitting_->timings.queueMs = milliseconds(job->submitted);
    nextImage_ = 0;
    encoding_ = false;
    phase_ = Phase::vision;
    stages_.clear();
  });
}

void Scheduler::stepAdmission() {
  Sequence& s = *admitting_;
  if (phase_ == Phase::vision) {
    // the same pictures and prompt as before need neither encoder nor prefill
    if (reusePrefix()) return finishPrefix();
    const auto start = Clock::now();
    const bool encoded = stepVision();
    s.timings.visionMs += milliseconds(start);
    s.job->cancel.throwIfSet();
    if (!encoded) return;
    if (s.job->request.kind == Request::Kind::encodeImage) {
      s.prompt.imageTokens = s.prompt.prefix = model_.visionConfig.tokens;
      Event event;
      event.embedding = std::move(s.imageRows);
      return endAdmission(std::move(event));
    }
    if (s.job->request.kind == Request::Kind::importance) {
      Event event;
      event.stages = importanceOf(model_.weights, *model_.observer);
      return endAdmission(std::move(event));
    }
    return beginPrefix();
  }
  const auto start = Clock::now();
  if (s.job->request.kind == Request::Kind::trace) traceHidden();
  const bool finished = model_.decoder->stepPrefill();
  s.timings.prefillMs += milliseconds(start);
  s.job->cancel.throwIfSet();
  if (!finished) return;
  if (model_.observer) model_.observer->beginPass(0);
  if (s.job->request.kind == Request::Kind::trace) return finishTrace();
  if (s.job->request.kind == Request::Kind::embed) return finishEmbed();
  if (phase_ == Phase::suffix) return finishScore();
  const auto headStart = Clock::now();
  prefixLogits_.resize(size_t(model_.textConfig.vocab));
  model_.decoder->prefillLogits(s.prompt.prefix - 1, 1, prefixLogits_.data());
  s.timings.prefillMs += milliseconds(headStart);
  prefixes_.put({s.job,
                 {s.prompt.ids.begin(), s.prompt.ids.begin() + s.prompt.prefix},
                 s.adapters.key,
                 s.kv.fork(),
                 prefixLogits_});
  finishPrefix();
}

void Scheduler::beginPrefix() {
  Sequence& s = *admitting_;
  const auto start = Clock::now();
  if (model_.observer) model_.observer->beginPass(s.prompt.imageTokens);
  model_.decoder->beginPrefill(s.kv, std::span(s.prompt.ids).first(size_t(s.prompt.prefix)), s.imageRows.data(),
                               s.prompt.prefix, s.adapters.set.get());
  s.imageRows = {};
  phase_ = Phase::prefix;
  s.timings.prefillMs += milliseconds(start);
}

bool Scheduler::reusePrefix() {
  Sequence& s = *admitting_;
  const Request::Kind kind = s.job->request.kind;
  if (encoding_ || nextImage_ > 0 || (kind != Request::Kind::generate && kind != Request::Kind::score)) return false;
  const CachedPrefix* kept = prefixes_.find(*s.job, s.prompt, s.adapters.key);
  if (!kept) return false;
  s.kv = kept->kv.fork();
  prefixLogits_ = kept->logits;
  return true;
}

void Scheduler::finishPrefix() {
  Sequence& s = *admitting_;
  if (s.job->request.kind == Request::Kind::score) {
    // The suffix is a pass of its own, kept prefix or not, so that both give the same bits. Its last token predicts
    // nothing that is asked for.
    const auto suffix = std::span(s.prompt.ids).subspan(size_t(s.prompt.prefix));
    if (suffix.size() == 1) return finishScore();
    model_.decoder->beginPrefill(s.kv, suffix.first(suffix.size() - 1), nullptr, s.prompt.prefix, s.adapters.set.get());
    phase_ = Phase::suffix;
    return;
  }
  if (deliver(s, [&](std::vector<Event>& out) { s.begin(prefixLogits_, out); }))
    running_.push_back(std::move(admitting_));
  admitting_.reset();
}

bool Scheduler::stepVision() {
  Sequence& s = *admitting_;
  const Request& r = s.job->request;
  const size_t imageValues = size_t(model_.visionConfig.tokens * model_.textConfig.hidden);
  if (encoding_) {
    if (!model_.vision->step()) return false;
    s.job->cancel.throwIfSet();
    encoding_ = false;
    auto features = std::make_shared<std::vector<float>>(imageValues);
    if (r.kind == Request::Kind::trace) {
      Stage stage{"vision", model_.visionConfig.tokens, model_.visionConfig.hidden, {}};
      stage.data.resize(size_t(stage.rows * stage.cols));
      model_.vision->lastHidden(stage.data.data());
      stages_.push_back(std::move(stage));
    }
    model_.vision->finish(features->data());
    if (r.kind == Request::Kind::trace)
      stages_.push_back({"projector", model_.visionConfig.tokens, model_.textConfig.hidden, *features});
    s.imageRows.insert(s.imageRows.end(), features->begin(), features->end());
    embeddings_.put(r.images[nextImage_].pixels, s.adapters.visionKey, std::move(features));
    ++nextImage_;
  }
  while (nextImage_ < r.images.size()) {
    const ImageSource& image = r.images[nextImage_];
    const EmbeddingCache::Features cached = image.embedding.empty() && r.kind != Request::Kind::trace
                                                ? embeddings_.find(image.pixels, s.adapters.visionKey)
                                                : nullptr;
    if (!cached && image.embedding.empty()) {
      model_.vision->begin(image.pixels.data(), s.adapters.set.get());
      encoding_ = true;
      return false;
    }
    const std::vector<float>& rows = cached ? *cached : image.embedding;
    s.imageRows.insert(s.imageRows.end(), rows.begin(), rows.end());
    ++nextImage_;
  }
  return true;
}

// The logits after the prefix predict the suffix's first token, row i of the suffix's pass its token i + 1.
void Scheduler::finishScore() {
  Sequence& s = *admitting_;
  const int64_t vocab = model_.textConfig.vocab;
  const auto suffix = std::span(s.prompt.ids).subspan(size_t(s.prompt.prefix));
  Event event;
  Utf8Stream utf8;
  SamplingOptions options = s.job->request.sampling;
  options.logProbs = std::max(options.logProbs, 0);
  if (s.job->request.logits) {
    event.stages.push_back({"logits", int64_t(suffix.size()), vocab, {}});
    event.stages[0].data.reserve(suffix.size() * size_t(vocab));
  }
  const auto score = [&](int32_t id, std::span<const float> logits) {
    if (s.job->request.logits) event.stages[0].data.insert(event.stages[0].data.end(), logits.begin(), logits.end());
    TokenEvent token;
    token.choice = Sampler(options).pick(logits, {});  // for the best alternatives; the token itself is given
    token.choice.id = id;
    token.choice.logProb = logProbOf(logits, id);
    token.tokenText = utf8.push(model_.tokenizer->pieceBytes(id));
    event.scored.push_back(std::move(token));
  };
  score(suffix[0], prefixLogits_);
  std::vector<float> logits(size_t(vocab * Decoder::kLogitRows));
  const int64_t rows = int64_t(suffix.size()) - 1;
  for (int64_t row = 0; row < rows; row += Decoder::kLogitRows) {
    const int64_t count = std::min(Decoder::kLogitRows, rows - row);
    model_.decoder->prefillLogits(row, count, logits.data());
    s.job->cancel.throwIfSet();
    for (int64_t i = 0; i < count; ++i) score(suffix[size_t(row + i + 1)], {logits.data() + i * vocab, size_t(vocab)});
  }
  event.completionTokens = int64_t(event.scored.size());
  endAdmission(std::move(event));
}

void Scheduler::finishEmbed() {
  const int64_t dims = model_.info.retrievalDims;
  Event event;
  event.embedding.resize(admitting_->prompt.ids.size() * size_t(dims));
  model_.decoder->prefillProjection(model_.weights.retrieval, event.embedding.data());
  for (size_t row = 0; row < event.embedding.size(); row += size_t(dims)) {
    const std::span values(event.embedding.data() + row, size_t(dims));
    double squares = 0;
    for (float x : values) squares += double(x) * x;
    const float scale = float(1 / std::max(std::sqrt(squares), 1e-12));
    for (float& x : values) x *= scale;
  }
  endAdmission(std::move(event));
}

void Scheduler::traceHidden() {
  Stage stage{"hidden", int64_t(admitting_->prompt.ids.size()), model_.textConfig.hidden, {}};
  stage.data.resize(size_t(stage.rows * stage.cols));
  model_.decoder->prefillStates(stage.data.data());
  stages_.push_back(std::move(stage));
}

void Scheduler::finishTrace() {
  Sequence& s = *admitting_;
  const int64_t tokens = int64_t(s.prompt.ids.size());
  Stage hidden{"hidden", tokens, model_.textConfig.hidden, {}};
  hidden.data.resize(size_t(tokens * hidden.cols));
  model_.decoder->prefillFinalStates(hidden.data.data());
  stages_.push_back(std::move(hidden));
  Stage logits{"logits", tokens, model_.textConfig.vocab, {}};
  logits.data.resize(size_t(tokens * logits.cols));
  for (int64_t row = 0; row < tokens; row += Decoder::kLogitRows)
    model_.decoder->prefillLogits(row, std::min(Decoder::kLogitRows, tokens - row),
                                  logits.data.data() + row * logits.cols);
  stages_.push_back(std::move(logits));
  Event event;
  event.stages = std::move(stages_);
  endAdmission(std::move(event));
}

void Scheduler::decodeStep() {
  const size_t vocab = size_t(model_.textConfig.vocab);
  // equal adapters side by side: each choice then takes one pass over its matrices
  std::stable_sort(running_.begin(), running_.end(), [](const auto& a, const auto& b) {
    return std::less<>()(a->adapters.set.get(), b->adapters.set.get());
  });
  std::vector<DecodeRow> rows;
  std::vector<size_t> firstRow;
  size_t others = usedSlots();
  for (const auto& s : running_) {
    // everybody gets what it needs; what is left of a step goes to those that know more than one token
    others -= s->job->request.slots();
    firstRow.push_back(rows.size());
    s->appendRows(rows, size_t(std::max<int64_t>(1, Decoder::kStepRows - int64_t(rows.size() + others))));
    for (size_t row = firstRow.back(); row < rows.size(); ++row) rows[row].adapters = s->adapters.set.get();
  }
  firstRow.push_back(rows.size());
  try {
    logits_.resize(std::max(logits_.size(), vocab * rows.size()));
    model_.decoder->decode(rows, logits_.data());
  } catch (const std::exception& e) {
    // a failed step leaves no sequence in a state to go on from
    const auto* error = dynamic_cast<const Error*>(&e);
    for (const auto& s : running_) postError(*s->job, error ? error->code() : Code::outOfMemory, e.what());
    running_.clear();
    return;
  }
  std::vector<std::unique_ptr<Sequence>> going;
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& s = *running_[i];
    const std::span<const float> logits(logits_.data() + firstRow[i] * vocab, (firstRow[i + 1] - firstRow[i]) * vocab);
    if (deliver(s, [&](std::vector<Event>& out) { s.advance(logits, out); })) going.push_back(std::move(running_[i]));
  }
  running_ = std::move(going);
}

template <class Work>
bool Scheduler::deliver(Sequence& s, Work&& work) {
  std::vector<Event> events;
  const bool ok = guard(*s.job, [&] { work(events); });
  for (Event& event : events)
    if (ok || event.kind == Event::Kind::token) post_(std::move(event));
  return ok && !s.finished();
}

}  // namespace pg
