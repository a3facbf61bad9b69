#pragma once
// What requests that generate nothing do with a pass through the model: score a text, hand out features, embeddings or
// every stage. Admission calls a task at the points where it may want something; generating needs none.
#include <memory>
#include <span>

#include "serve/event.h"
#include "serve/sequence.h"

namespace pg {

class Task {
 public:
  virtual ~Task() = default;

  // True where the pictures' features are all that is asked for: `end` is complete, no prefill follows.
  virtual bool endsAfterVision(EndEvent&) { return false; }
  // True where only the logits after the prefix count, so that a kept prefix of the same request does as well.
  virtual bool mayReusePrefix() const { return false; }
  // Whether pictures have to pass the encoder even if their features are known.
  virtual bool watchesVision() const { return false; }
  // Whether pictures stay pixels: the task encodes them itself.
  virtual bool takesPixels() const { return false; }
  // Whether step() does what follows the pictures, about a layer at a time, until it says that `end` is complete.
  virtual bool worksAlone() const { return false; }
  virtual bool step(EndEvent& /* end */) { return true; }
  virtual void pictureEncoded(const Buffer& /* features */) {}
  virtual void beforeLayer() {}
  // A pass has ended: the prefix, with the logits [vocab] after its last token where mayReusePrefix(), or what
  // `beginPass` was asked for. True where `end` is complete; else the task has begun another prefill.
  virtual bool passEnded(std::span<const float> prefixLogits, EndEvent& end) = 0;
};

// nullptr for requests that generate. `sequence` and `model` must outlive it.
std::unique_ptr<Task> makeTask(Sequence& sequence, Model& model);

}  // namespace pg
