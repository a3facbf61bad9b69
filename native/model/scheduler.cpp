#include "model/scheduler.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace pg {
namespace {

// Features of about 24 pictures at 224 px (PaliGemma 2 3B), or two at 896 px.
constexpr size_t kEmbeddingCacheBytes = size_t(64) << 20;

}  // namespace

Scheduler::Scheduler(Model& model, int maxSequences, const std::atomic<bool>& stopping, std::function<void(Event)> post)
    : model_(model), maxSequences_(size_t(std::max(1, maxSequences))), stopping_(stopping), post_(std::move(post)),
      embeddings_(kEmbeddingCacheBytes) {}

template <class Work> bool Scheduler::guard(const Job& job, Work&& work) {
  try {
    work();
    return true;
  } catch (const Error& e) {
    postError(job, e.code(), e.message());
  } catch (const std::bad_alloc&) {
    postError(job, Code::outOfMemory, "Out of memory. Close other programs or lower contextSize, maxSequences or the number of images");
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

void Scheduler::postEnd(Sequence& sequence, Event event) {
  event.kind = Event::Kind::end;
  event.job = sequence.job->id;
  post_(std::move(event));
}

void Scheduler::step() {
  dropCancelled();
  if (!admitting_ && !queue_.empty() && running_.size() < maxSequences_) admitNext();
  if (admitting_) {
    const std::shared_ptr<Job> job = admitting_->job;
    model_.device->setCancel(&job->cancel);
    const bool ok = guard(*job, [&] { stepAdmission(); });
    model_.device->setCancel(nullptr);
    if (!ok) admitting_.reset();
  }
  if (!running_.empty()) decodeStep();
}

void Scheduler::dropCancelled() {
  const auto dropped = [&](const Job& job) {
    return !guard(job, [&] { job.cancel.throwIfSet(); });
  };
  std::erase_if(queue_, [&](const auto& job) { return dropped(*job); });
  std::erase_if(running_, [&](const auto& sequence) { return dropped(*sequence->job); });
  if (admitting_ && dropped(*admitting_->job)) admitting_.reset();
}

void Scheduler::admitNext() {
  std::shared_ptr<Job> job = std::move(queue_.front());
  queue_.pop_front();
  guard(*job, [&] {
    admitting_ = std::make_unique<Sequence>(job, model_);
    admitting_->timings.queueMs = milliseconds(job->submitted);
    nextImage_ = 0;
    encoding_ = prefilling_ = false;
    stages_.clear();
  });
}

void Scheduler::stepAdmission() {
  Sequence& s = *admitting_;
  if (!prefilling_) {
    const auto start = Clock::now();
    const bool encoded = stepVision();
    s.timings.visionMs += milliseconds(start);
    s.job->cancel.throwIfSet();
    if (!encoded) return;
    if (s.job->request.kind == Request::Kind::encodeImage) {
      Event event;
      event.imageTokens = model_.visionConfig.tokens;
      event.finishReason = "stop";
      event.timings = s.timings;
      event.embedding = std::move(s.imageRows);
      postEnd(s, std::move(event));
      admitting_.reset();
      return;
    }
    const auto prefillStart = Clock::now();
    model_.decoder->beginPrefill(s.kv, s.prompt.ids, s.imageRows.data(), s.prompt.prefix);
    s.imageRows = {};
    prefilling_ = true;
    s.timings.prefillMs += milliseconds(prefillStart);
    return;
  }
  const auto start = Clock::now();
  if (s.job->request.kind == Request::Kind::trace) {
    Stage stage{"hidden", int64_t(s.prompt.ids.size()), model_.textConfig.hidden, {}};
    stage.data.resize(size_t(stage.rows * stage.cols));
    model_.decoder->prefillStates(stage.data.data());
    stages_.push_back(std::move(stage));
  }
  const bool finished = model_.decoder->stepPrefill();
  s.timings.prefillMs += milliseconds(start);
  s.job->cancel.throwIfSet();
  if (finished) finishPrefill();
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
    embeddings_.put(r.images[nextImage_].pixels, std::move(features));
    ++nextImage_;
  }
  while (nextImage_ < r.images.size()) {
    const ImageSource& image = r.images[nextImage_];
    const EmbeddingCache::Features cached =
        image.embedding.empty() && r.kind != Request::Kind::trace ? embeddings_.find(image.pixels) : nullptr;
    if (!cached && image.embedding.empty()) {
      model_.vision->begin(image.pixels.data());
      encoding_ = true;
      return false;
    }
    const std::vector<float>& rows = cached ? *cached : image.embedding;
    s.imageRows.insert(s.imageRows.end(), rows.begin(), rows.end());
    ++nextImage_;
  }
  return true;
}

void Scheduler::finishPrefill() {
  Sequence& s = *admitting_;
  if (s.job->request.kind == Request::Kind::score) return finishScore();
  if (s.job->request.kind == Request::Kind::trace) return finishTrace();
  const auto start = Clock::now();
  logits_.resize(std::max(logits_.size(), size_t(model_.textConfig.vocab)));
  model_.decoder->prefillLogits(int64_t(s.prompt.ids.size()) - 1, 1, logits_.data());
  s.timings.prefillMs += milliseconds(start);
  if (deliver(s, {logits_.data(), size_t(model_.textConfig.vocab)})) running_.push_back(std::move(admitting_));
  admitting_.reset();
}

// Row i of the prefill predicts token i + 1, so the suffix starts at the prefix's last row.
void Scheduler::finishScore() {
  Sequence& s = *admitting_;
  const int64_t vocab = model_.textConfig.vocab, last = int64_t(s.prompt.ids.size()) - 1;
  Event event;
  Utf8Stream utf8;
  SamplingOptions options = s.job->request.sampling;
  options.logProbs = std::max(options.logProbs, 0);
  logits_.resize(std::max(logits_.size(), size_t(vocab * Decoder::kLogitRows)));
  for (int64_t row = s.prompt.prefix - 1; row < last; row += Decoder::kLogitRows) {
    const int64_t rows = std::min(Decoder::kLogitRows, last - row);
    model_.decoder->prefillLogits(row, rows, logits_.data());
    s.job->cancel.throwIfSet();
    for (int64_t i = 0; i < rows; ++i) {
      const std::span<const float> logits(logits_.data() + i * vocab, size_t(vocab));
      TokenEvent token;
      // The sampler knows the best alternatives; the token itself is given.
      token.choice = Sampler(options).pick(logits, {});
      token.choice.id = s.prompt.ids[size_t(row + i + 1)];
      token.choice.logProb = logProbOf(logits, token.choice.id);
      token.tokenText = utf8.push(model_.tokenizer->pieceBytes(token.choice.id));
      event.scored.push_back(std::move(token));
    }
  }
  event.finishReason = "stop";
  event.imageTokens = s.prompt.imageTokens;
  event.promptTokens = s.prompt.prefix - s.prompt.imageTokens;
  event.completionTokens = int64_t(event.scored.size());
  event.timings = s.timings;
  postEnd(s, std::move(event));
  admitting_.reset();
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
    model_.decoder->prefillLogits(row, std::min(Decoder::kLogitRows, tokens - row), logits.data.data() + row * logits.cols);
  stages_.push_back(std::move(logits));
  Event event;
  event.finishReason = "stop";
  event.imageTokens = s.prompt.imageTokens;
  event.promptTokens = tokens - s.prompt.imageTokens;
  event.timings = s.timings;
  event.stages = std::move(stages_);
  postEnd(s, std::move(event));
  admitting_.reset();
}

void Scheduler::decodeStep() {
  const size_t vocab = size_t(model_.textConfig.vocab);
  logits_.resize(std::max(logits_.size(), vocab * running_.size()));
  std::vector<DecodeRow> rows;
  for (const auto& s : running_) rows.push_back({&s->kv, s->lastToken(), s->nextPosition(), s->prompt.prefix});
  try {
    model_.decoder->decode(rows, logits_.data());
  } catch (const std::exception& e) {
    // a failed step leaves no sequence in a state to go on from
    const auto* error = dynamic_cast<const Error*>(&e);
    for (const auto& s : running_) postError(*s->job, error ? error->code() : Code::outOfMemory, e.what());
    running_.clear();
    return;
  }
  std::vector<std::unique_ptr<Sequence>> going;
  for (size_t i = 0; i < running_.size(); ++i)
    if (deliver(*running_[i], {logits_.data() + i * vocab, vocab})) going.push_back(std::move(running_[i]));
  running_ = std::move(going);
}

bool Scheduler::deliver(Sequence& s, std::span<const float> logits) {
  return guard(*s.job, [&] {
    if (auto token = s.advance(logits)) {
      Event event;
      event.kind = Event::Kind::token;
      event.job = s.job->id;
      event.token = std::move(*token);
      post_(std::move(event));
    }
    if (s.finished()) post_(s.end());
  }) && !s.finished();
}

}  // namespace pg
