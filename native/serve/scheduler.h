#pragma once
// Runs many requests on one model. First come, first admitted, but a short request does not wait for long ones that
// came just before it. A new request's vision and prefill go layer by layer between the decode steps of those that
// already run, in turns, so their streams keep flowing; where all that run are for throughput, before their next step.
// Requests for throughput that follow one another are admitted as a group.
#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "serve/admission.h"

namespace pg {

class Scheduler {
 public:
  // `stopping` tells a cancelled job's reason: the engine's end or its caller's wish. `now`: the clock by which
  // admission and decoding take turns.
  Scheduler(Model& model, int maxSequences, const std::atomic<bool>& stopping, std::function<void(Event)> post,
            std::function<Clock::time_point()> now = Clock::now);

  // Behind what came before, but for requests of at least twice its rows. Each lets pass as many rows as its own, no
  // more: so what is overtaken loses no more than its own time.
  void enqueue(std::shared_ptr<Job> job);
  bool busy() const { return admitting_ || !queue_.empty() || !running_.empty(); }
  // Layers of vision or prefill of the request being admitted, for as long as two tokens take; then one token of all
  // that run. So admission gets two thirds of the time, and a running stream waits three times as long as alone and a
  // layer of those that are admitted. A layer alone where nobody waits for a token.
  void step();

 private:
  struct Waiting {
    std::shared_ptr<Job> job;
    int64_t rows;  // of its prefill, about
    int64_t yields;  // how many rows of shorter ones may still go first
    bool alone = false;  // a group that it was in has failed: whose error that is will show
  };

  int64_t rowsOf(const Request& request) const;
  void dropCancelled();
  // Whether what is being or may be admitted goes before the next token of those that run: they are all for throughput,
  // and a step of many rows costs hardly more than one of few. After as many requests as there are slots they have a
  // token all the same: requests that end with their admission could come for ever.
  bool admissionFirst() const;
  void admitNext();
  void joinNext();
  void admitAlone();  // those of a group, one by one
  void stepAdmission();
  void finishAdmission();
  void decodeStep();
  // Rows of one decode step, and of each running sequence the first of them; the last entry is the number of rows.
  std::vector<size_t> collectRows(std::vector<DecodeRow>& rows);
  // Runs the sequence's begin or advance and posts its events; true while it goes on.
  template <class Work>
  bool deliver(Sequence& sequence, Work&& work);
  size_t usedSlots() const;
  bool mayAdmit() const;
  Error failure() const;  // the one being handled
  void postError(const Job& job, const Error& error);
  // Runs `work` for one job; an error ends that job alone. False after an error.
  template <class Work>
  bool guard(const Job& job, Work&& work);

  Model& model_;
  size_t maxSequences_;
  const std::atomic<bool>& stopping_;
  std::function<void(Event)> post_;
  std::function<Clock::time_point()> now_;
  AdmissionCaches caches_;

  std::deque<Waiting> queue_;
  std::unique_ptr<Admission> admitting_;
  std::vector<std::unique_ptr<Sequence>> running_;
  size_t admitted_ = 0;  // since the last decode step
  double decodeMs_ = 0;  // of the last decode step
  std::vector<float> logits_;  // of a decode step
};

}  // namespace pg
