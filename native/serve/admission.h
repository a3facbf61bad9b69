#pragma once
// Requests on their way from their pictures to their first logits, a layer at a time: one, or a group of those that are
// for throughput, whose pictures and prompts pass together and so share what a product costs whatever its rows.
#include <functional>
#include <memory>
#include <vector>

#include "serve/cache/embedding_cache.h"
#include "serve/cache/prefix_cache.h"
#include "serve/sequence.h"
#include "serve/task.h"

namespace pg {

// What requests leave for others that ask the same again.
struct AdmissionCaches {
  explicit AdmissionCaches(int64_t maxPrefixPages);
  EmbeddingCache embeddings;
  PrefixCache prefixes;
};

class Admission {
 public:
  struct Member {
    std::unique_ptr<Sequence> sequence;
    std::vector<float> logits;  // [vocab], after the prefix
    bool ready = false;  // its prefix and logits are there: such a one was kept
    bool gone = false;  // it has ended; a pass under way still writes to its cache
    int64_t row = 0;  // its first one of the prefill

    bool waits() const { return !ready && !gone; }
  };

  // Checks and tokenizes the request; throws what Sequence does.
  Admission(std::shared_ptr<Job> job, Model& model, AdmissionCaches& caches);

  // Before the first step: whether one more may pass together with those that are here. All get the bits that they get
  // alone. One that asks what another one asks may not: that one's prefix will be kept for it.
  bool mayJoin(const Request& request) const;
  void join(std::shared_ptr<Job> job);  // throws what Sequence does; then nothing has changed

  // About a layer of vision or prefill. True when there is nothing left to do: then either takeMembers() generate from
  // their logits, or, where the one request generates nothing, takeEnd() closes it. Throws the error of the one
  // request; of a group it may be any member's, so that they have to be admitted one by one.
  bool step();
  // Those who have ended leave. A member that leaves costs the others nothing.
  void drop(const std::function<bool(const Job&)>& ended);
  bool abandoned() const;  // by all
  bool together() const { return members_.size() > 1; }
  size_t slots() const;
  const Job& job() const { return *members_.front().sequence->job; }  // the first
  bool generates() const { return !task_; }
  std::vector<Member> takeMembers() { return std::move(members_); }
  EndEvent takeEnd();

 private:
  struct Encoding {
    Sequence* sequence;
    size_t image;
    const std::vector<uint8_t>& pixels() const { return sequence->job->request.images[image].pixels; }
  };

  void add(std::shared_ptr<Job> job);
  bool reusePrefix(Member& member);  // true when the same prefix was kept
  bool stepVision();  // true when all pictures are encoded
  void takePicture(Sequence& sequence, size_t image);
  bool encodesWith(const Encoding& picture) const;
  void finishPictures();
  void beginPrefix();
  void keepPrefix(Member& member);
  bool passEnded();
  void throwIfCancelled() const;
  void spend(double Timings::* on, Clock::time_point since);
  Sequence& lead() const { return *members_.front().sequence; }
  // Whether of the prefix only the logits after its last token count.
  bool endsWithLogits() const { return !task_ || task_->mayReusePrefix(); }

  Model& model_;
  AdmissionCaches& caches_;
  std::vector<Member> members_;
  std::unique_ptr<Task> task_;  // of the one request; none: all generate
  EndEvent end_;  // of task_
  enum class Phase { vision, prefix, taskPass, alone } phase_ = Phase::vision;
  std::vector<Encoding> encoding_;  // pictures in the encoder
};

}  // namespace pg
