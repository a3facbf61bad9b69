#include "serve/task.h"

#include <algorithm>
#include <cmath>

#include "base/finite.h"
#include "device/refusals.h"
#include "serve/fit_task.h"
#include "serve/importance.h"

namespace pg {
namespace {

// Vectors that leave here go through no later product, which would have looked at what it is given.
void checkFinite(std::span<const float> values) {
  if (!allFinite(values)) refuseSpoiled();
}

class EncodeImageTask : public Task {
 public:
  EncodeImageTask(Sequence& sequence, Model& model) : sequence_(sequence), model_(model) {}

  bool endsAfterVision(EndEvent& end) override {
    sequence_.prompt.imageTokens = sequence_.prompt.prefix = model_.visionConfig.tokens;
    end.embedding = model_.hostFeatures(*sequence_.images[0]);
    checkFinite(end.embedding);
    return true;
  }
  bool passEnded(std::span<const float>, EndEvent&) override { return true; }

 private:
  Sequence& sequence_;
  Model& model_;
};

class ImportanceTask : public Task {
 public:
  explicit ImportanceTask(Model& model) : model_(model) {}

  bool endsAfterVision(EndEvent& end) override {
    end.stages = importanceOf(model_.weights, *model_.observer);
    return true;
  }
  bool passEnded(std::span<const float>, EndEvent&) override { return true; }

 private:
  Model& model_;
};

class EmbedTask : public Task {
 public:
  EmbedTask(Sequence& sequence, Model& model) : sequence_(sequence), model_(model) {}

  bool passEnded(std::span<const float>, EndEvent& end) override {
    const int64_t dims = model_.info.retrievalDims;
    end.embedding.resize(sequence_.prompt.ids.size() * size_t(dims));
    model_.decoder->prefillProjection(model_.weights.retrieval, end.embedding.data());
    checkFinite(end.embedding);
    for (size_t row = 0; row < end.embedding.size(); row += size_t(dims))
      normalise({end.embedding.data() + row, size_t(dims)});
    return true;
  }

 private:
  static void normalise(std::span<float> values) {
    double squares = 0;
    for (float x : values) squares += double(x) * x;
    const float scale = float(1 / std::max(std::sqrt(squares), 1e-12));
    for (float& x : values) x *= scale;
  }

  Sequence& sequence_;
  Model& model_;
};

class TraceTask : public Task {
 public:
  TraceTask(Sequence& sequence, Model& model) : sequence_(sequence), model_(model) {}

  bool watchesVision() const override { return true; }
  void pictureEncoded(const Buffer& features) override {
    add("vision", model_.visionConfig.tokens, model_.visionConfig.hidden,
        [&](float* out) { model_.vision->lastHidden(out); });
    add("projector", model_.visionConfig.tokens, model_.textConfig.hidden,
        [&](float* out) { model_.device->download(out, model_.featureView(features)); });
  }
  void beforeLayer() override {
    add("hidden", tokens(), model_.textConfig.hidden, [&](float* out) { model_.decoder->prefillStates(out); });
  }
  bool passEnded(std::span<const float>, EndEvent& end) override {
    const int64_t vocab = model_.textConfig.vocab;
    add("hidden", tokens(), model_.textConfig.hidden, [&](float* out) { model_.decoder->prefillFinalStates(out); });
    add("logits", tokens(), vocab, [&](float* out) {
      const int64_t most = model_.decoder->stepRows();
      for (int64_t row = 0; row < tokens(); row += most)
        model_.decoder->prefillLogits(row, std::min(most, tokens() - row), out + row * vocab);
    });
    end.stages = std::move(stages_);
    return true;
  }

 private:
  int64_t tokens() const { return int64_t(sequence_.prompt.ids.size()); }
  template <class Fill>
  void add(const char* name, int64_t rows, int64_t cols, const Fill& fill) {
    Stage stage{name, rows, cols, std::vector<float>(size_t(rows * cols))};
    fill(stage.data.data());
    stages_.push_back(std::move(stage));
  }

  Sequence& sequence_;
  Model& model_;
  std::vector<Stage> stages_;
};

// The suffix is a pass of its own, kept prefix or not, so that both give the same bits.
class ScoreTask : public Task {
 public:
  ScoreTask(Sequence& sequence, Model& model)
      : sequence_(sequence), model_(model), score_(*sequence.job->request.get<Score>()) {
    options_.logProbs = std::max(score_.logProbs, 0);
  }

  bool mayReusePrefix() const override { return true; }
  bool passEnded(std::span<const float> prefixLogits, EndEvent& end) override {
    const auto suffix = std::span(sequence_.prompt.ids).subspan(size_t(sequence_.prompt.prefix));
    if (!suffixRuns_) {
      begin(suffix, prefixLogits);
      // the last token predicts nothing that is asked for
      if (suffix.size() > 1) {
        model_.decoder->beginPrefill(sequence_.kv, suffix.first(suffix.size() - 1), {}, sequence_.prompt.prefix,
                                     sequence_.adapters.set.get());
        suffixRuns_ = true;
        return false;
      }
    }
    const int64_t vocab = model_.textConfig.vocab, rows = int64_t(suffix.size()) - 1;
    const int64_t most = model_.decoder->stepRows();
    std::vector<float> logits(size_t(vocab * most));
    for (int64_t row = 0; row < rows; row += most) {
      const int64_t count = std::min(most, rows - row);
      model_.decoder->prefillLogits(row, count, logits.data());
      sequence_.job->cancel.throwIfSet();
      for (int64_t i = 0; i < count; ++i) add(suffix[size_t(row + i + 1)], {logits.data() + i * vocab, size_t(vocab)});
    }
    end.completionTokens = int64_t(scored_.size());
    end.scored = std::move(scored_);
    end.stages = std::move(stages_);
    return true;
  }

 private:
  // The logits after the prefix predict the suffix's first token, row i of the suffix's pass its token i + 1.
  void begin(std::span<const int32_t> suffix, std::span<const float> prefixLogits) {
    if (score_.logits) {
      stages_.push_back({"logits", int64_t(suffix.size()), model_.textConfig.vocab, {}});
      stages_[0].data.reserve(suffix.size() * size_t(model_.textConfig.vocab));
    }
    add(suffix[0], prefixLogits);
  }
  void add(int32_t id, std::span<const float> logits) {
    if (score_.logits) stages_[0].data.insert(stages_[0].data.end(), logits.begin(), logits.end());
    TokenEvent token;
    token.choice = Sampler(options_).pick(logits, {});  // for the best alternatives; the token itself is given
    token.choice.id = id;
    token.choice.logProb = logProbOf(logits, id);
    token.tokenText = utf8_.push(model_.tokenizer->pieceBytes(id));
    scored_.push_back(std::move(token));
  }

  Sequence& sequence_;
  Model& model_;
  const Score& score_;
  SamplingOptions options_;
  bool suffixRuns_ = false;
  Utf8Stream utf8_;
  std::vector<TokenEvent> scored_;
  std::vector<Stage> stages_;
};

class AddAdapterTask : public Task {
 public:
  AddAdapterTask(const AddAdapter& added, Model& model) : added_(added), model_(model) {}

  bool endsAfterVision(EndEvent& end) override {
    const size_t index = model_.adapters->load(added_.source, model_.weights, model_.textConfig.architecture);
    end.values = {double(index)};
    return true;
  }
  bool passEnded(std::span<const float>, EndEvent&) override { return true; }

 private:
  const AddAdapter& added_;
  Model& model_;
};

struct MakeTask {
  Sequence& sequence;
  Model& model;

  std::unique_ptr<Task> operator()(const Generate&) const { return nullptr; }
  std::unique_ptr<Task> operator()(const Score&) const { return std::make_unique<ScoreTask>(sequence, model); }
  std::unique_ptr<Task> operator()(const EncodeImage&) const {
    return std::make_unique<EncodeImageTask>(sequence, model);
  }
  std::unique_ptr<Task> operator()(const Embed&) const { return std::make_unique<EmbedTask>(sequence, model); }
  std::unique_ptr<Task> operator()(const Trace&) const { return std::make_unique<TraceTask>(sequence, model); }
  std::unique_ptr<Task> operator()(const Importance&) const { return std::make_unique<ImportanceTask>(model); }
  std::unique_ptr<Task> operator()(const Training& fit) const { return makeFitTask(fit, sequence, model); }
  std::unique_ptr<Task> operator()(const AddAdapter& added) const {
    return std::make_unique<AddAdapterTask>(added, model);
  }
};

}  // namespace

std::unique_ptr<Task> makeTask(Sequence& sequence, Model& model) {
  return std::visit(MakeTask{sequence, model}, sequence.job->request.task);
}

}  // namespace pg
