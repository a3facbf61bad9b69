#pragma once
// Engine events as the objects lib/native.ts describes (NativeEvent, NativeModelInfo).
#include "addon/js.h"
#include "serve/engine.h"

namespace pg::js {

napi_value infoToJs(napi_env env, const ModelInfo& info);
napi_value kvUseToJs(napi_env env, const KvUse& use);

// `info` and `tokenizer` are used by the events that need them (ready; tokens with alternatives).
// `withLogProbs`: whether the job asked for them; scores always carry theirs.
napi_value eventToJs(napi_env env, Event&& event, const Engine& engine, bool withLogProbs);

}  // namespace pg::js
