#include "serve/admission.h"

namespace pg {
namespace {

// Features of about 24 pictures at 224 px (PaliGemma 2 3B), or two at 896 px.
constexpr size_t kEmbeddingCacheBytes = size_t(64) << 20;

}  // namespace

AdmissionCaches::AdmissionCaches(int64_t maxPrefixPages) : embeddings(kEmbeddingCacheBytes), prefixes(maxPrefixPages) {}

Admission::Admission(std::shared_ptr<Job> job, Model& model, AdmissionCaches& caches)
    : model_(model), caches_(caches), sequence_(std::make_unique<Sequence>(std::move(job), model)) {
  task_ = makeTask(*sequence_, model);
  if (model_.observer) model_.observer->beginPass(0);
  sequence_->timings.queueMs = milliseconds(sequence_->job->submitted);
}

bool Admission::step() {
  Sequence& s = *sequence_;
  if (phase_ == Phase::vision) {
    // the same pictures and prompt as before need neither encoder nor prefill
    if (reusePrefix()) return passEnded();
    const auto start = Clock::now();
    const bool encoded = (task_ && task_->takesPixels()) || stepVision();
    s.timings.visionMs += milliseconds(start);
    s.job->cancel.throwIfSet();
    if (!encoded) return false;
    if (task_ && task_->endsAfterVision(end_)) return true;
    if (task_ && task_->worksAlone()) phase_ = Phase::alone;
    else beginPrefix();
    return false;
  }
  const auto start = Clock::now();
  if (phase_ == Phase::alone) {
    const bool done = task_->step(end_);
    s.timings.prefillMs += milliseconds(start);
    s.job->cancel.throwIfSet();
    return done;
  }
  if (task_) task_->beforeLayer();
  const bool finished = model_.decoder->stepPrefill();
  s.timings.prefillMs += milliseconds(start);
  s.job->cancel.throwIfSet();
  if (!finished) return false;
  if (model_.observer) model_.observer->beginPass(0);
  if (phase_ == Phase::prefix && endsWithLogits()) keepPrefix();
  return passEnded();
}

bool Admission::passEnded() {
  if (!task_) return true;
  phase_ = Phase::taskPass;
  return task_->passEnded(prefixLogits_, end_);
}

EndEvent Admission::takeEnd() {
  end_.finishReason = FinishReason::stop;
  end_.imageTokens = sequence_->prompt.imageTokens;
  end_.promptTokens = sequence_->prompt.prefix - sequence_->prompt.imageTokens;
  end_.timings = sequence_->timings;
  return std::move(end_);
}

bool Admission::stepVision() {
  const Request& r = job().request;
  if (encoding_) {
    if (!model_.vision->step()) return false;
    sequence_->job->cancel.throwIfSet();
    finishPicture();
  }
  for (; nextImage_ < r.images.size(); ++nextImage_) {
    const ImageSource& image = r.images[nextImage_];
    if (!image.embedding.empty()) {
      auto given = std::make_shared<Buffer>(model_.newFeatures());
      model_.device->upload(model_.featureView(*given), image.embedding.data());
      sequence_->images.push_back(std::move(given));
      continue;
    }
    const bool watched = task_ && task_->watchesVision();
    const EmbeddingCache::Features cached =
        watched ? nullptr : caches_.embeddings.find(image.pixels, sequence_->adapters.visionKey);
    if (!cached) {
      model_.vision->begin(image.pixels.data(), sequence_->adapters.set.get());
      encoding_ = true;
      return false;
    }
    sequence_->images.push_back(cached);
  }
  return true;
}

void Admission::finishPicture() {
  encoding_ = false;
  auto features = std::make_shared<Buffer>(model_.newFeatures());
  model_.vision->finish(model_.featureView(*features));
  if (task_) task_->pictureEncoded(*features);
  sequence_->images.push_back(features);
  caches_.embeddings.put(job().request.images[nextImage_].pixels, sequence_->adapters.visionKey, std::move(features));
  ++nextImage_;
}

bool Admission::reusePrefix() {
  if (encoding_ || nextImage_ > 0 || !endsWithLogits()) return false;
  const CachedPrefix* kept = caches_.prefixes.find(job(), sequence_->prompt, sequence_->adapters.key);
  if (!kept) return false;
  sequence_->kv = kept->kv.fork();
  prefixLogits_ = kept->logits;
  return true;
}

void Admission::beginPrefix() {
  Sequence& s = *sequence_;
  const auto start = Clock::now();
  if (model_.observer) model_.observer->beginPass(s.prompt.imageTokens);
  std::vector<ConstView> images;
  for (const auto& features : s.images) images.push_back(model_.featureView(*features));
  // those who watch or return every row need them all
  const bool lastOnly = endsWithLogits() && !model_.observer;
  model_.decoder->beginPrefill(s.kv, std::span(s.prompt.ids).first(size_t(s.prompt.prefix)), images, s.prompt.prefix,
                               s.adapters.set.get(), lastOnly ? PrefillRows::last : PrefillRows::all);
  s.images = {};
  phase_ = Phase::prefix;
  s.timings.prefillMs += milliseconds(start);
}

void Admission::keepPrefix() {
  Sequence& s = *sequence_;
  const auto start = Clock::now();
  prefixLogits_.resize(size_t(model_.textConfig.vocab));
  model_.decoder->prefillLogits(s.prompt.prefix - 1, 1, prefixLogits_.data());
  s.timings.prefillMs += milliseconds(start);
  caches_.prefixes.put({s.job,
                        {s.prompt.ids.begin(), s.prompt.ids.begin() + s.prompt.prefix},
                        s.adapters.key,
                        s.kv.fork(),
                        prefixLogits_});
}

}  // namespace pg
