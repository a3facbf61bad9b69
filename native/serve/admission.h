#pragma once
// One request on its way from its pictures to its first logits, a layer at a time.
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
  // Checks and tokenizes the request; throws what Sequence does.
  Admission(std::shared_ptr<Job> job, Model& model, AdmissionCaches& caches);

  // About a layer of vision or prefill. True when there is nothing left to do: then either takeSequence() generates
  // from prefixLogits(), or, where the request generates nothing, takeEnd() closes it.
  bool step();
  const Job& job() const { return *sequence_->job; }
  bool generates() const { return !task_; }
  std::unique_ptr<Sequence> takeSequence() { return std::move(sequence_); }
  std::span<const float> prefixLogits() const { return prefixLogits_; }  // [vocab]
  EndEvent takeEnd();

 private:
  bool stepVision();  // true when all pictures are encoded
  void finishPicture();
  bool reusePrefix();  // true when the same prefix was kept
  void beginPrefix();
  void keepPrefix();
  bool passEnded();
  // Whether of the prefix only the logits after its last token count.
  bool endsWithLogits() const { return !task_ || task_->mayReusePrefix(); }

  Model& model_;
  AdmissionCaches& caches_;
  std::unique_ptr<Sequence> sequence_;
  std::unique_ptr<Task> task_;  // none: the request generates
  EndEvent end_;                // of task_
  enum class Phase { vision, prefix, taskPass, alone } phase_ = Phase::vision;
  size_t nextImage_ = 0;
  bool encoding_ = false;  // a picture is in the encoder
  std::vector<float> prefixLogits_;
};

}  // namespace pg
