#include "serve/admission.h"

#include <algorithm>

namespace pg {
namespace {

// Features of about 24 pictures at 224 px (PaliGemma 2 3B), or two at 896 px.
constexpr size_t kEmbeddingCacheBytes = size_t(64) << 20;

// A longer text need not be tokenized to know that it has too many rows to pass together with others.
constexpr size_t kMostJoiningBytes = 4096;

bool joins(const Request& request) { return request.throughput && request.is<Generate>(); }

}  // namespace

AdmissionCaches::AdmissionCaches(int64_t maxPrefixPages) : embeddings(kEmbeddingCacheBytes), prefixes(maxPrefixPages) {}

Admission::Admission(std::shared_ptr<Job> job, Model& model, AdmissionCaches& caches) : model_(model), caches_(caches) {
  add(std::move(job));
  task_ = makeTask(lead(), model);
  if (model_.observer) model_.observer->beginPass(0);
  members_.front().ready = reusePrefix(members_.front());
}

void Admission::add(std::shared_ptr<Job> job) {
  Member member{.sequence = std::make_unique<Sequence>(std::move(job), model_), .logits = {}};
  member.sequence->timings.queueMs = milliseconds(member.sequence->job->submitted);
  members_.push_back(std::move(member));
}

void Admission::join(std::shared_ptr<Job> job) {
  add(std::move(job));
  members_.back().ready = reusePrefix(members_.back());
}

bool Admission::mayJoin(const Request& request) const {
  // whoever watches is told of one request at a time; a kept prefix need not wait for others
  if (!joins(request) || !joins(job().request) || model_.observer || members_.front().ready) return false;
  if (request.prompt.size() > kMostJoiningBytes) return false;
  const Prompt prompt =
      buildPrompt(*model_.tokenizer, request.prompt, nullptr,
                  model_.visionConfig.tokens * int64_t(request.images.size()), request.allowControlTokens);
  int64_t rows = prompt.prefix;
  if (!model_.decoder->mayJoin(rows)) return false;
  for (const Member& m : members_) {
    const Sequence& s = *m.sequence;
    if (!model_.decoder->mayJoin(s.prompt.prefix)) return false;
    if (s.prompt.ids == prompt.ids && s.job->request.images == request.images) return false;
    rows += s.prompt.prefix;
  }
  return rows <= model_.decoder->jointRows();
}

bool Admission::reusePrefix(Member& member) {
  if (!endsWithLogits()) return false;
  Sequence& s = *member.sequence;
  const CachedPrefix* kept = caches_.prefixes.find(*s.job, s.prompt, s.adapters.key);
  if (!kept) return false;
  s.kv = kept->kv.fork();
  member.logits = kept->logits;
  return true;
}

bool Admission::step() {
  // the same pictures and prompt as before need neither encoder nor prefill
  if (phase_ == Phase::vision && std::none_of(members_.begin(), members_.end(), [](auto& m) { return m.waits(); }))
    return passEnded();
  const auto start = Clock::now();
  if (phase_ == Phase::vision) {
    const bool encoded = (task_ && task_->takesPixels()) || stepVision();
    spend(&Timings::visionMs, start);
    throwIfCancelled();
    if (!encoded) return false;
    if (task_ && task_->endsAfterVision(end_)) return true;
    if (task_ && task_->worksAlone()) phase_ = Phase::alone;
    else beginPrefix();
    return false;
  }
  if (phase_ == Phase::alone) {
    const bool done = task_->step(end_);
    spend(&Timings::prefillMs, start);
    throwIfCancelled();
    return done;
  }
  if (task_) task_->beforeLayer();
  const bool finished = model_.decoder->stepPrefill();
  spend(&Timings::prefillMs, start);
  throwIfCancelled();
  if (!finished) return false;
  if (model_.observer) model_.observer->beginPass(0);
  if (phase_ == Phase::prefix && endsWithLogits())
    for (Member& m : members_)
      if (m.waits()) keepPrefix(m);
  return passEnded();
}

// Of a group each member is told of all the time that its pictures and prompt were on their way, the others' among it.
void Admission::spend(double Timings::* on, Clock::time_point since) {
  const double spent = milliseconds(since);
  for (const Member& m : members_) m.sequence->timings.*on += spent;
}

// A cancelled member of a group leaves it by drop().
void Admission::throwIfCancelled() const {
  if (!together()) job().cancel.throwIfSet();
}

void Admission::drop(const std::function<bool(const Job&)>& ended) {
  for (Member& m : members_) m.gone = m.gone || ended(*m.sequence->job);
}

bool Admission::abandoned() const {
  return std::all_of(members_.begin(), members_.end(), [](const Member& m) { return m.gone; });
}

size_t Admission::slots() const {
  size_t slots = 0;
  for (const Member& m : members_) slots += m.sequence->job->request.slots();
  return slots;
}

bool Admission::passEnded() {
  if (!task_) return true;
  phase_ = Phase::taskPass;
  return task_->passEnded(members_.front().logits, end_);
}

EndEvent Admission::takeEnd() {
  const Sequence& s = lead();
  end_.finishReason = FinishReason::stop;
  end_.imageTokens = s.prompt.imageTokens;
  end_.promptTokens = s.prompt.prefix - s.prompt.imageTokens;
  end_.timings = s.timings;
  return std::move(end_);
}

bool Admission::stepVision() {
  if (!encoding_.empty()) {
    if (!model_.vision->step()) return false;
    throwIfCancelled();
    finishPictures();
  }
  for (const Member& m : members_) {
    if (!m.waits()) continue;
    Sequence& s = *m.sequence;
    s.images.resize(s.job->request.images.size());
    for (size_t i = 0; i < s.images.size(); ++i)
      if (!s.images[i]) takePicture(s, i);
  }
  if (encoding_.empty()) return true;
  std::vector<const uint8_t*> pictures;
  for (const Encoding& picture : encoding_) pictures.push_back(picture.pixels().data());
  model_.vision->begin(pictures, encoding_.front().sequence->adapters.set.get());
  return false;
}

// Its features where they are known, else a place in the encoder's next pass where there is one.
void Admission::takePicture(Sequence& s, size_t image) {
  const Encoding picture{&s, image};
  if (const auto& embedding = s.job->request.images[image].embedding; !embedding.empty()) {
    auto given = std::make_shared<Buffer>(model_.newFeatures());
    model_.device->upload(model_.featureView(*given), embedding.data());
    s.images[image] = std::move(given);
    return;
  }
  if (!encodesWith(picture)) return;
  const bool watched = task_ && task_->watchesVision();
  if (!watched) s.images[image] = caches_.embeddings.find(picture.pixels(), s.adapters.visionKey);
  if (!s.images[image]) encoding_.push_back(picture);
}

// Equal ones are encoded once: the next round finds the features of the first.
bool Admission::encodesWith(const Encoding& picture) const {
  if (encoding_.empty()) return true;
  const int64_t most = joins(job().request) ? model_.vision->mostPictures() : 1;
  return int64_t(encoding_.size()) < most &&
         picture.sequence->adapters.visionKey == encoding_.front().sequence->adapters.visionKey &&
         std::none_of(
             encoding_.begin(), encoding_.end(),
             [&](const Encoding& other) { return other.pixels() == picture.pixels(); });
}

void Admission::finishPictures() {
  for (size_t i = 0; i < encoding_.size(); ++i) {
    const Encoding& picture = encoding_[i];
    auto features = std::make_shared<Buffer>(model_.newFeatures());
    model_.vision->finish(model_.featureView(*features), int64_t(i));
    if (task_) task_->pictureEncoded(*features);
    picture.sequence->images[picture.image] = features;
    caches_.embeddings.put(picture.pixels(), picture.sequence->adapters.visionKey, std::move(features));
  }
  encoding_.clear();
}

void Admission::beginPrefix() {
  const auto start = Clock::now();
  if (model_.observer) model_.observer->beginPass(lead().prompt.imageTokens);
  std::vector<std::vector<ConstView>> images(members_.size());
  std::vector<PrefillPart> parts;
  int64_t row = 0;
  for (size_t i = 0; i < members_.size(); ++i) {
    if (!members_[i].waits()) continue;
    Sequence& s = *members_[i].sequence;
    for (const auto& features : s.images) images[i].push_back(model_.featureView(*features));
    parts.push_back({&s.kv, std::span(s.prompt.ids).first(size_t(s.prompt.prefix)), images[i], s.prompt.prefix,
                     s.adapters.set.get()});
    members_[i].row = row;
    row += s.prompt.prefix;
  }
  // those who watch or return every row need them all
  const bool lastOnly = endsWithLogits() && !model_.observer;
  model_.decoder->beginPrefill(parts, lastOnly ? PrefillRows::last : PrefillRows::all);
  for (const Member& m : members_) m.sequence->images = {};
  phase_ = Phase::prefix;
  spend(&Timings::prefillMs, start);
}

void Admission::keepPrefix(Member& member) {
  Sequence& s = *member.sequence;
  const auto start = Clock::now();
  member.logits.resize(size_t(model_.textConfig.vocab));
  model_.decoder->prefillLogits(member.row + s.prompt.prefix - 1, 1, member.logits.data());
  spend(&Timings::prefillMs, start);
  caches_.prefixes.put({s.job,
                        {s.prompt.ids.begin(), s.prompt.ids.begin() + s.prompt.prefix},
                        s.adapters.key,
                        s.kv.fork(),
                        member.logits});
}

}  // namespace pg
