#pragma once
// The facade the addon sees: one engine per loaded model, one thread that loads it and runs its requests.
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/config.h"
#include "image/mask_decoder.h"
#include "serve/sampler.h"
#include "text/tokenizer.h"

namespace pg {

using HostTensor = MaskDecoder::Tensor;
using TensorMap = std::map<std::string, HostTensor, std::less<>>;

// A LoRA adapter: a GGUF file, or tensors "<name>.weight.lora_a" [rank, in] and ".lora_b" [out, rank], the latter
// already multiplied by alpha / rank.
struct AdapterSource {
  std::string name;                  // how messages call it
  std::string path;                  // GGUF; empty: `tensors`
  TensorMap tensors;
  float scale = 1;                   // of requests that choose none
};

struct AdapterUse {
  int64_t index = 0;                 // in LoadOptions::adapters
  float scale = 1;
};

struct AdapterInfo {
  std::string name;
  float scale = 1;
  int64_t rank = 0, targets = 0, parameters = 0;  // largest rank, matrices changed
};

struct LoadOptions {
  std::string path;
  std::string visionPath;            // empty: vision tensors are in `path`
  std::string maskDecoderPath;       // GGUF with mask tensors; empty: those of `path`, if any
  MaskDecoder::Lookup maskTensors;   // or a source of tensors (an npz read by the caller)
  std::string device = "auto";       // auto, cpu (cuda and metal fail with deviceUnavailable where not built)
  int threads = 0;                   // 0 = defaultThreads()
  int64_t contextSize = 0;           // tokens per sequence; 0 = what the model was trained for
  int maxSequences = 4;
  DType kvCacheType = DType::f16;    // f16, q8_0, f32
  AttentionWindow attentionWindow = AttentionWindow::none;
  bool finalSoftcap = true;          // false: logits are never capped
  std::vector<AdapterSource> adapters;
  bool importance = false;           // true: inputs of all matrices are observed, for requests of kind importance
};

struct ModelInfo {
  std::string architecture;          // "gemma", "gemma2"
  std::string name;                  // general.name or empty
  std::string quantization;          // the type most weight bytes have, "Q4_K"
  std::string device = "cpu", isa;   // "avx512vnni"
  int threads = 0;
  int64_t imageSize = 0, imageTokens = 0;  // px, tokens a picture becomes; 0 without vision
  int64_t textLayers = 0, textHidden = 0, visionLayers = 0, visionHidden = 0;
  int64_t vocab = 0, contextSize = 0, parameters = 0, bytes = 0;
  bool hasVision = false, hasMaskDecoder = false;
  bool hasRetrieval = false;
  int64_t retrievalDims = 0;         // width of an embedding of embed requests
  std::string retrievalFlavour;      // whose prompts the checkpoint wants, as the file says, or empty
  std::vector<AdapterInfo> adapters;
  std::string resizeFilter = "bicubic";    // the recipe the file states
};

// One picture of a request: exactly one of the two is filled.
struct ImageSource {
  std::vector<uint8_t> pixels;       // [imageSize, imageSize, 3] RGB8, already resized
  std::vector<float> embedding;      // [imageTokens, textHidden], an earlier encodeImage
};

struct ConstraintSpec {
  enum class Kind { none, detect, segment, choices, regex } kind = Kind::none;
  std::vector<std::string> labels;   // what a name may be; empty = any text without control or location tokens
  int32_t maxObjects = 0;            // 0 = no limit
  std::vector<std::string> choices;  // the whole texts to choose from
  std::string pattern;               // what the whole text matches; syntax: regex.h
};

// The tokens of an embed request: pictures, <bos> * bosTokens, the prompt, <pad> * padTokens, a newline or none.
struct EmbedLayout {
  int32_t bosTokens = 1, padTokens = 0;
  bool newline = false;
};

struct Request {
  // trace: one prefill that returns every stage's values, for comparison with a reference
  // importance: nothing runs; what LoadOptions::importance has gathered since the load
  enum class Kind { generate, score, encodeImage, trace, importance, embed } kind = Kind::generate;
  std::vector<ImageSource> images;
  std::string prompt, suffix;        // suffix: score only
  bool allowControlTokens = false;
  int64_t maxTokens = 256;
  SamplingOptions sampling;
  std::vector<std::string> stop;
  bool ignoreEos = false;
  bool logits = false;  // score: also the stage "logits", one row per suffix token; at most kMostLogitRows
  ConstraintSpec constraint;
  EmbedLayout embed;
  int32_t beams = 1;  // > 1: beam search, greedy only; as many sequences of maxSequences are taken
  double lengthPenalty = 1;  // a hypothesis scores log-probability / length^lengthPenalty
  std::optional<std::vector<AdapterUse>> adapters;  // none given: all, with the scales they were loaded with
  bool scoredOnly = false;  // log-probabilities only of tokens that the constraint counts (Constraint::scored)

  size_t slots() const { return size_t(beams > 1 ? beams : 1); }  // sequences of maxSequences that it takes
};

// Rows of logits that one request may return: 263 MB of PaliGemma's vocabulary.
inline constexpr int64_t kMostLogitRows = 256;

struct Timings {  // milliseconds
  double visionMs = 0, prefillMs = 0, firstTokenMs = 0, decodeMs = 0, queueMs = 0;
};

struct TokenEvent {
  TokenChoice choice;
  std::string text;  // what may be shown now: complete characters, held back while a stop string may be forming
  std::string tokenText;  // the characters this token completed
};

// One intermediate result: "vision" and "projector" per picture, "hidden" per layer (0 = input, the last one after the
// final norm), "logits" of every position. Importance: one per matrix, see importance.h.
struct Stage {
  std::string name;
  int64_t rows = 0, cols = 0;
  std::vector<float> data;
};

struct Event {
  enum class Kind { ready, token, end, error, stopped } kind = Kind::token;
  uint32_t job = 0;  // 0: the engine itself (ready, a failed load, stopped)
  TokenEvent token;  // kind token
  // kind end
  std::string text;  // what was still held back
  std::string finishReason;  // "stop", "length"
  int64_t imageTokens = 0, promptTokens = 0, completionTokens = 0;
  Timings timings;
  std::vector<TokenEvent> scored;  // score: one per suffix token, then eos
  std::vector<float>
      embedding;  // encodeImage: [imageTokens, textHidden]; embed: [all tokens, retrievalDims], rows of length 1
  std::vector<Stage> stages;  // trace, importance, score with logits
  // kind error
  Code code = Code::internal;
  std::string message;
};

class Engine {
 public:
  // Returns at once; `post` is called on the engine's thread: first ready or an error with job 0.
  Engine(LoadOptions options, std::function<void(Event)> post);
  ~Engine();  // stop()

  uint32_t submit(Request request);  // its job number, from 1; after a stop the job ends with ERR_DISPOSED
  void cancel(uint32_t job);  // its end is an error event with Code::aborted; unknown jobs are ignored
  void requestStop();  // returns at once; every job ends with ERR_DISPOSED, then a stopped event
  void stop();  // requestStop and join; idempotent, never on the engine's own thread

  // Valid after ready, from any thread, until the engine is destroyed.
  const ModelInfo& info() const;
  const Tokenizer& tokenizer() const;
  const MaskDecoder* maskDecoder() const;  // nullptr where the model has none

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pg
