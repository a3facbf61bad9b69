#pragma once
// What a caller asks of a loaded model: a common part, and one struct for each kind of work. std::visit over `task`
// makes the compiler list the places that a new kind needs.
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "model/adapters.h"
#include "serve/sampling/sampler.h"
#include "text/constraint.h"
#include "train/lora.h"

namespace pg {

// One picture of a request: exactly one of the two is filled.
struct ImageSource {
  std::vector<uint8_t> pixels;    // [imageSize, imageSize, 3] RGB8, already resized
  std::vector<float> embedding;   // [imageTokens, textHidden], an earlier encodeImage

  bool operator==(const ImageSource&) const = default;
};

// Text after pictures and prompt.
struct Generate {
  int64_t maxTokens = 256;
  SamplingOptions sampling;
  std::vector<std::string> stop;   // texts before which the output ends
  bool ignoreEos = false;
  ConstraintSpec constraint;
  bool scoredOnly = false;   // log-probabilities only of tokens that the constraint counts (Constraint::scored)
  int32_t beams = 1;         // > 1: beam search, greedy only; as many sequences of maxSequences are taken
  double lengthPenalty = 1;  // a hypothesis scores log-probability / length^lengthPenalty

  // The numbers among them, as SamplingOptions::each.
  template <class Options, class Visit>
  static void each(Options& options, const Visit& visit) {
    SamplingOptions::each(options.sampling, visit);
    visit("maxTokens", options.maxTokens, OptionRange{1, double(std::numeric_limits<int32_t>::max())});
    visit("beams", options.beams, OptionRange{1, 64});
    visit("lengthPenalty", options.lengthPenalty, OptionRange{-10, 10});
  }
};

// The log-probabilities of a given text.
struct Score {
  std::string suffix;     // <eos> follows it
  int32_t logProbs = 0;   // of each token also the n best
  bool logits = false;    // also the stage "logits", one row per suffix token; at most kMostLogitRows
};

// Rows of logits that one request may return: 263 MB of PaliGemma's vocabulary.
inline constexpr int64_t kMostLogitRows = 256;

// The features of one picture, for later requests.
struct EncodeImage {};

// One vector of each token, by the retrieval head: pictures, <bos> * bosTokens, the prompt, <pad> * padTokens, a
// newline or none.
struct Embed {
  int32_t bosTokens = 1, padTokens = 0;
  bool newline = false;
};

// One prefill that returns every stage's values, for comparison with a reference.
struct Trace {};

// Nothing runs: what LoadOptions::importance has gathered since the load.
struct Importance {};

// Training, see fit_task.h. A session's number is its caller's choice.
struct FitBegin {
  LoraStart start;
};

// Forward and, where it trains, backward: the gradients' sums grow. Its loss and, as completionTokens, how many tokens
// that is the sum over.
struct FitExample {
  std::string suffix;   // <eos> follows it
  bool train = true;
  Dropout dropout;      // where it trains
};

// An optimizer step over the examples since the last one.
struct FitUpdate {
  AdamStep step;
};

// The adapter as it is: stages.
struct FitRead {
  bool moments = false, gradients = false;
};

struct FitEnd {};

struct Training {
  uint32_t session = 0;
  std::variant<FitBegin, FitExample, FitUpdate, FitRead, FitEnd> action;

  const std::string* suffix() const {
    const auto* example = std::get_if<FitExample>(&action);
    return example ? &example->suffix : nullptr;
  }
};

// One more adapter for requests to choose: its index in `values`.
struct AddAdapter {
  AdapterSource source;
};

struct Request {
  std::vector<ImageSource> images;
  std::string prompt;
  bool allowControlTokens = false;
  std::optional<std::vector<AdapterUse>> adapters;  // none given: all, with the scales they were loaded with
  bool throughput = false;  // its tokens are not waited for one by one, only its end together with others'
  std::variant<Generate, Score, EncodeImage, Embed, Trace, Importance, Training, AddAdapter> task;

  template <class Task>
  bool is() const {
    return std::holds_alternative<Task>(task);
  }
  template <class Task>
  const Task* get() const {
    return std::get_if<Task>(&task);
  }
  // Only where the kind is known.
  Generate& generate() { return std::get<Generate>(task); }
  const Generate& generate() const { return std::get<Generate>(task); }

  // The text that follows the prompt, with <eos>; nullptr: none.
  const std::string* suffix() const {
    if (const Training* fit = get<Training>()) return fit->suffix();
    const Score* score = get<Score>();
    return score ? &score->suffix : nullptr;
  }
  // Whether it has a prompt for the model at all.
  bool hasPrompt() const {
    const Training* fit = get<Training>();
    return !is<EncodeImage>() && !is<Importance>() && !is<AddAdapter>() && (!fit || fit->suffix());
  }

  // Sequences of maxSequences that it takes.
  size_t slots() const {
    const Generate* g = get<Generate>();
    return g && g->beams > 1 ? size_t(g->beams) : 1;
  }
};

}  // namespace pg
