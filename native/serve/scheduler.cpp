#include "serve/scheduler.h"

#include <algorithm>

#include "base/current_error.h"

namespace pg {

Scheduler::Scheduler(Model& model, int maxSequences, const std::atomic<bool>& stopping, std::function<void(Event)> post,
                     std::function<Clock::time_point()> now)
    : model_(model),
      maxSequences_(size_t(std::max(1, maxSequences))),
      stopping_(stopping),
      post_(std::move(post)),
      now_(std::move(now)),
      caches_(model.keptPrefixPages) {}

template <class Work>
bool Scheduler::guard(const Job& job, Work&& work) {
  try {
    work();
    return true;
  } catch (...) {
    postError(job, failure());
    return false;
  }
}

// Of files that changed come all sorts of errors; the change is what people need to know.
Error Scheduler::failure() const {
  Error error = currentError();
  if (error.code() != Code::modelInvalid && error.code() != Code::internal) return error;
  try {
    model_.throwIfChanged(true);
  } catch (const Error& change) {
    return change;
  }
  return error;
}

void Scheduler::postError(const Job& job, const Error& error) {
  if (error.code() == Code::aborted && stopping_)
    post_({job.id, ErrorEvent{Code::disposed, "The model was disposed while the request was running"}});
  else post_({job.id, ErrorEvent{error.code(), error.message()}});
}

size_t Scheduler::usedSlots() const {
  size_t slots = 0;
  for (const auto& s : running_) slots += s->job->request.slots();
  return slots;
}

// Of pictures and text, a token for four bytes: what matters is which of two is much shorter.
int64_t Scheduler::rowsOf(const Request& request) const {
  const std::string* suffix = request.suffix();
  return int64_t(request.images.size()) * model_.visionConfig.tokens +
         int64_t(request.prompt.size() + (suffix ? suffix->size() : 0)) / 4 + 1;
}

void Scheduler::enqueue(std::shared_ptr<Job> job) {
  const Request& request = job->request;
  const int64_t rows = rowsOf(request);
  // the steps of a training, and what is asked about requests so far, keep their place
  const bool inOrder = request.is<Training>() || request.is<AddAdapter>() || request.is<Importance>();
  auto place = queue_.end();
  for (; !inOrder && place != queue_.begin(); --place) {
    Waiting& before = *std::prev(place);
    if (before.rows < 2 * rows || before.yields < rows) break;
    before.yields -= rows;
  }
  queue_.insert(place, {std::move(job), rows, inOrder ? 0 : rows});
}

// In order: a request that needs many slots waits for them at the head, so it cannot starve. One that needs more than
// there are does not wait: admitNext() refuses it.
bool Scheduler::mayAdmit() const {
  if (queue_.empty()) return false;
  const size_t slots = queue_.front().job->request.slots();
  return slots > maxSequences_ || usedSlots() + slots <= maxSequences_;
}

void Scheduler::step() {
  dropCancelled();
  // As long as two tokens of those that run took: a layer alone would be a small part of a step of many streams, and
  // the last of many new requests would wait for ever.
  const auto start = now_();
  do {
    if (!admitting_ && mayAdmit()) admitNext();
    if (!admitting_) break;
    stepAdmission();
    if (admissionFirst()) return;
  } while (milliseconds(start, now_()) < 2 * decodeMs_);
  if (running_.empty()) return;
  const auto decodeStart = now_();
  decodeStep();
  decodeMs_ = milliseconds(decodeStart, now_());
}

bool Scheduler::admissionFirst() const {
  if (!admitting_ && !mayAdmit()) return false;
  if (running_.empty()) return true;
  return admitted_ <= maxSequences_ &&
         std::all_of(running_.begin(), running_.end(), [](const auto& s) { return s->job->request.throughput; });
}

void Scheduler::dropCancelled() {
  const auto dropped = [&](const Job& job) { return !guard(job, [&] { job.cancel.throwIfSet(); }); };
  std::erase_if(queue_, [&](const Waiting& waiting) { return dropped(*waiting.job); });
  std::erase_if(running_, [&](const auto& sequence) { return dropped(*sequence->job); });
  if (!admitting_) return;
  admitting_->drop(dropped);
  if (admitting_->abandoned()) admitting_.reset();
}

void Scheduler::admitNext() {
  const Waiting next = std::move(queue_.front());
  const std::shared_ptr<Job>& job = next.job;
  queue_.pop_front();
  ++admitted_;
  guard(*job, [&] {
    if (job->request.slots() > maxSequences_)
      fail(Code::invalidOption, "Expected beams <= maxSequences (", maxSequences_, ") but received ",
           job->request.slots(), ". Raise maxSequences in loadModel");
    model_.throwIfChanged(true);
    admitting_ = std::make_unique<Admission>(job, model_, caches_);
  });
  if (admitting_ && !next.alone) joinNext();
}

// As many as follow and may; their order stays.
void Scheduler::joinNext() {
  while (!queue_.empty() && !queue_.front().alone) {
    const std::shared_ptr<Job> job = queue_.front().job;
    if (usedSlots() + admitting_->slots() + job->request.slots() > maxSequences_ || !admitting_->mayJoin(job->request))
      return;
    queue_.pop_front();
    ++admitted_;
    guard(*job, [&] { admitting_->join(job); });
  }
}

// A layer of a group is computed for all of them, so no member's wish ends it in the middle.
void Scheduler::stepAdmission() {
  const bool together = admitting_->together();
  const Job& job = admitting_->job();
  bool finished = false;
  const auto work = [&] {
    finished = admitting_->step();
    model_.throwIfChanged(false);
  };
  if (together) {
    try {
      work();
    } catch (...) {
      return admitAlone();
    }
  } else {
    model_.device->setCancel(&job.cancel);
    const bool ok = guard(job, work);
    model_.device->setCancel(nullptr);
    if (!ok) return admitting_.reset();
  }
  if (!finished) return;
  finishAdmission();
  admitting_.reset();
}

void Scheduler::admitAlone() {
  std::vector<Admission::Member> members = admitting_->takeMembers();
  for (auto m = members.rbegin(); m != members.rend(); ++m)
    if (const std::shared_ptr<Job>& job = m->sequence->job; !m->gone)
      queue_.push_front({job, rowsOf(job->request), 0, true});
  admitting_.reset();
}

void Scheduler::finishAdmission() {
  if (!admitting_->generates()) return post_({admitting_->job().id, admitting_->takeEnd()});
  for (Admission::Member& member : admitting_->takeMembers()) {
    Sequence& s = *member.sequence;
    const auto begin = [&](std::vector<Event>& out) {
      s.job->cancel.throwIfSet();
      s.begin(member.logits, out);
    };
    if (!member.gone && deliver(s, begin)) running_.push_back(std::move(member.sequence));
  }
}

std::vector<size_t> Scheduler::collectRows(std::vector<DecodeRow>& rows) {
  std::vector<size_t> firstRow;
  size_t others = usedSlots();
  for (const auto& s : running_) {
    // everybody gets what it needs; what is left of a step goes to those that know more than one token
    others -= s->job->request.slots();
    firstRow.push_back(rows.size());
    s->appendRows(rows, size_t(std::max<int64_t>(1, model_.decoder->stepRows() - int64_t(rows.size() + others))));
    for (size_t row = firstRow.back(); row < rows.size(); ++row) rows[row].adapters = s->adapters.set.get();
  }
  firstRow.push_back(rows.size());
  return firstRow;
}

void Scheduler::decodeStep() {
  const size_t vocab = size_t(model_.textConfig.vocab);
  admitted_ = 0;
  // equal adapters side by side: each choice then takes one pass over its matrices
  std::stable_sort(running_.begin(), running_.end(), [](const auto& a, const auto& b) {
    return std::less<>()(a->adapters.set.get(), b->adapters.set.get());
  });
  std::vector<DecodeRow> rows;
  const std::vector<size_t> firstRow = collectRows(rows);
  try {
    logits_.resize(std::max(logits_.size(), vocab * rows.size()));
    model_.decoder->decode(rows, logits_.data());
    model_.throwIfChanged(false);  // before any of it leaves
  } catch (...) {
    // a failed step leaves no sequence in a state to go on from
    const Error error = failure();
    for (const auto& s : running_) postError(*s->job, error);
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
    if (ok || event.is<TokenEvent>()) post_(std::move(event));
  return ok && !s.finished();
}

}  // namespace pg
