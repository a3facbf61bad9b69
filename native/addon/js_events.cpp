#include "addon/js_events.h"

#include <cmath>

namespace pg::js {

napi_value infoToJs(napi_env env, const ModelInfo& info) {
  const napi_value object = newObject(env);
  set(env, object, "architecture", info.architecture);
  set(env, object, "name", info.name);
  set(env, object, "quantization", info.quantization);
  set(env, object, "device", info.device);
  set(env, object, "isa", info.isa);
  if (!info.deviceNote.empty()) set(env, object, "deviceNote", info.deviceNote);
  set(env, object, "threads", info.threads);
  set(env, object, "imageSize", info.imageSize);
  set(env, object, "imageTokens", info.imageTokens);
  set(env, object, "textLayers", info.textLayers);
  set(env, object, "textHidden", info.textHidden);
  set(env, object, "visionLayers", info.visionLayers);
  set(env, object, "visionHidden", info.visionHidden);
  set(env, object, "vocab", info.vocab);
  set(env, object, "contextSize", info.contextSize);
  set(env, object, "parameters", info.parameters);
  set(env, object, "bytes", info.bytes);
  set(env, object, "hasVision", info.hasVision);
  set(env, object, "hasMaskDecoder", info.hasMaskDecoder);
  set(env, object, "hasRetrieval", info.hasRetrieval);
  set(env, object, "retrievalDims", info.retrievalDims);
  set(env, object, "retrievalFlavour", info.retrievalFlavour);
  set(env, object, "adapters", arrayOf(env, info.adapters.size(), [&](size_t i) {
        const AdapterInfo& adapter = info.adapters[i];
        const napi_value entry = newObject(env);
        set(env, entry, "name", adapter.name);
        set(env, entry, "scale", adapter.scale);
        set(env, entry, "rank", adapter.rank);
        set(env, entry, "targets", adapter.targets);
        set(env, entry, "parameters", adapter.parameters);
        return entry;
      }));
  set(env, object, "resizeFilter", info.resizeFilter);
  return object;
}

namespace {

napi_value tokenToJs(napi_env env, const TokenEvent& token, const Engine& engine, bool withLogProbs) {
  const napi_value object = newObject(env);
  set(env, object, "id", token.choice.id);
  set(env, object, "tokenText", token.tokenText);
  if (withLogProbs && !std::isnan(token.choice.logProb)) set(env, object, "logProb", token.choice.logProb);
  if (withLogProbs && !std::isnan(token.choice.nearLogProb)) set(env, object, "nearLogProb", token.choice.nearLogProb);
  if (!token.choice.top.empty()) {
    const auto& top = token.choice.top;
    set(env, object, "top", arrayOf(env, top.size(), [&](size_t i) {
          const napi_value entry = newObject(env);
          set(env, entry, "id", top[i].first);
          set(env, entry, "text", engine.tokenizer().decode(&top[i].first, 1));
          set(env, entry, "logProb", top[i].second);
          return entry;
        }));
  }
  return object;
}

napi_value usageToJs(napi_env env, const EndEvent& end) {
  const napi_value usage = newObject(env);
  set(env, usage, "imageTokens", end.imageTokens);
  set(env, usage, "promptTokens", end.promptTokens);
  set(env, usage, "completionTokens", end.completionTokens);
  return usage;
}

napi_value timingsToJs(napi_env env, const Timings& times) {
  const napi_value timings = newObject(env);
  set(env, timings, "queueMs", times.queueMs);
  set(env, timings, "visionMs", times.visionMs);
  set(env, timings, "prefillMs", times.prefillMs);
  set(env, timings, "firstTokenMs", times.firstTokenMs);
  set(env, timings, "decodeMs", times.decodeMs);
  return timings;
}

napi_value stageToJs(napi_env env, Stage&& stage) {
  const napi_value entry = newObject(env);
  set(env, entry, "name", stage.name);
  set(env, entry, "rows", stage.rows);
  set(env, entry, "cols", stage.cols);
  set(env, entry, "data", toJs(env, std::move(stage.data)));
  return entry;
}

// Fills the object of an event, one overload a kind.
struct EventWriter {
  napi_env env;
  napi_value object;
  const Engine& engine;
  bool withLogProbs;

  void operator()(ReadyEvent&&) const {
    set(env, object, "kind", "ready");
    set(env, object, "info", infoToJs(env, engine.info()));
  }
  void operator()(StoppedEvent&&) const { set(env, object, "kind", "stopped"); }
  void operator()(TokenEvent&& token) const {
    set(env, object, "kind", "token");
    set(env, object, "text", token.text);
    set(env, object, "token", tokenToJs(env, token, engine, withLogProbs));
  }
  void operator()(ErrorEvent&& error) const {
    set(env, object, "kind", "error");
    set(env, object, "code", codeName(error.code));
    set(env, object, "message", error.message);
  }
  void operator()(EndEvent&& end) const {
    set(env, object, "kind", "end");
    set(env, object, "text", end.text);
    set(env, object, "finishReason", finishReasonName(end.finishReason));
    set(env, object, "usage", usageToJs(env, end));
    set(env, object, "timings", timingsToJs(env, end.timings));
    if (!end.scored.empty())
      set(env, object, "scored",
          arrayOf(env, end.scored.size(), [&](size_t i) { return tokenToJs(env, end.scored[i], engine, true); }));
    if (!end.embedding.empty()) set(env, object, "embedding", toJs(env, std::move(end.embedding)));
    if (!end.values.empty())
      set(env, object, "values", arrayOf(env, end.values.size(), [&](size_t i) { return end.values[i]; }));
    if (!end.stages.empty())
      set(env, object, "stages",
          arrayOf(env, end.stages.size(), [&](size_t i) { return stageToJs(env, std::move(end.stages[i])); }));
  }
};

}  // namespace

napi_value kvUseToJs(napi_env env, const KvUse& use) {
  const napi_value object = newObject(env);
  set(env, object, "used", use.used);
  set(env, object, "most", use.most);
  set(env, object, "pageTokens", kPageTokens);
  return object;
}

napi_value eventToJs(napi_env env, Event&& event, const Engine& engine, bool withLogProbs) {
  const napi_value object = newObject(env);
  set(env, object, "job", event.job);
  std::visit([&](auto& what) { EventWriter{env, object, engine, withLogProbs}(std::move(what)); }, event.what);
  return object;
}

}  // namespace pg::js
