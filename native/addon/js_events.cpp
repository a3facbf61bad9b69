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

}  // namespace

napi_value eventToJs(napi_env env, Event&& event, const Engine& engine, bool withLogProbs) {
  const napi_value object = newObject(env);
  set(env, object, "job", event.job);
  switch (event.kind) {
    case Event::Kind::ready:
      set(env, object, "kind", "ready");
      set(env, object, "info", infoToJs(env, engine.info()));
      break;
    case Event::Kind::stopped: set(env, object, "kind", "stopped"); break;
    case Event::Kind::token:
      set(env, object, "kind", "token");
      set(env, object, "text", event.token.text);
      set(env, object, "token", tokenToJs(env, event.token, engine, withLogProbs));
      break;
    case Event::Kind::end: {
      set(env, object, "kind", "end");
      set(env, object, "text", event.text);
      set(env, object, "finishReason", event.finishReason);
      const napi_value usage = newObject(env);
      set(env, usage, "imageTokens", event.imageTokens);
      set(env, usage, "promptTokens", event.promptTokens);
      set(env, usage, "completionTokens", event.completionTokens);
      set(env, object, "usage", usage);
      const napi_value timings = newObject(env);
      set(env, timings, "queueMs", event.timings.queueMs);
      set(env, timings, "visionMs", event.timings.visionMs);
      set(env, timings, "prefillMs", event.timings.prefillMs);
      set(env, timings, "firstTokenMs", event.timings.firstTokenMs);
      set(env, timings, "decodeMs", event.timings.decodeMs);
      set(env, object, "timings", timings);
      if (!event.scored.empty())
        set(env, object, "scored",
            arrayOf(env, event.scored.size(), [&](size_t i) { return tokenToJs(env, event.scored[i], engine, true); }));
      if (!event.embedding.empty()) set(env, object, "embedding", toJs(env, std::move(event.embedding)));
      if (!event.stages.empty())
        set(env, object, "stages", arrayOf(env, event.stages.size(), [&](size_t i) {
              Stage& stage = event.stages[i];
              const napi_value entry = newObject(env);
              set(env, entry, "name", stage.name);
              set(env, entry, "rows", stage.rows);
              set(env, entry, "cols", stage.cols);
              set(env, entry, "data", toJs(env, std::move(stage.data)));
              return entry;
            }));
      break;
    }
    case Event::Kind::error:
      set(env, object, "kind", "error");
      set(env, object, "code", codeName(event.code));
      set(env, object, "message", event.message);
      break;
  }
  return object;
}

}  // namespace pg::js
