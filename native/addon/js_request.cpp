#include <algorithm>
#include <type_traits>

#include "addon/js_args.h"

namespace pg::js {
namespace {

ImageSource imageSource(napi_env env, napi_value value, const std::string& name, const ModelInfo& info) {
  requireObject(env, value, name);
  const napi_value pixels = property(env, value, "pixels"), embedding = property(env, value, "embedding");
  const bool hasPixels = !isUndefined(env, pixels), hasEmbedding = !isUndefined(env, embedding);
  if (hasPixels == hasEmbedding) fail(Code::invalidOption, "Expected either pixels or embedding in ", name);
  ImageSource image;
  if (hasPixels) {
    const Bytes data = bytes(env, pixels, name + ".pixels");
    const size_t wanted = size_t(info.imageSize) * size_t(info.imageSize) * 3;
    if (data.size != wanted)
      fail(Code::imageInvalid, name, ".pixels holds ", data.size, " bytes; this model takes ", info.imageSize, " x ",
           info.imageSize, " RGB pixels, ", wanted, " bytes");
    image.pixels.assign(data.data, data.data + data.size);
  } else {
    const Floats data = floats(env, embedding, name + ".embedding");
    const size_t wanted = size_t(info.imageTokens) * size_t(info.textHidden);
    if (data.size != wanted)
      fail(Code::imageInvalid, name, ".embedding holds ", data.size, " values; this model takes [", info.imageTokens,
           ", ", info.textHidden, "], ", wanted, " values. Was it made by another model?");
    image.embedding.assign(data.data, data.data + data.size);
  }
  return image;
}

ConstraintSpec constraintSpec(napi_env env, napi_value value) {
  requireObject(env, value, "constraint");
  ConstraintSpec spec;
  constexpr ConstraintSpec::Kind kinds[] = {ConstraintSpec::Kind::detect, ConstraintSpec::Kind::segment,
                                            ConstraintSpec::Kind::choices, ConstraintSpec::Kind::regex,
                                            ConstraintSpec::Kind::schema};
  spec.kind = kinds[choice(env, property(env, value, "kind"), "constraint.kind",
                           {"detect", "segment", "choices", "regex", "schema"})];
  if (spec.kind == ConstraintSpec::Kind::choices) {
    spec.choices = strings(env, property(env, value, "choices"), "constraint.choices");
    return spec;
  }
  if (spec.kind == ConstraintSpec::Kind::regex || spec.kind == ConstraintSpec::Kind::schema) {
    spec.pattern = string(env, property(env, value, "pattern"), "constraint.pattern");
    return spec;
  }
  spec.labels = strings(env, property(env, value, "labels"), "constraint.labels");
  const napi_value maxObjects = property(env, value, "maxObjects");
  if (!isUndefined(env, maxObjects))
    spec.maxObjects = int32_t(integer(env, maxObjects, "constraint.maxObjects", 0, kInt32Max));
  return spec;
}

Generate generateTask(napi_env env, napi_value value) {
  Generate task;
  const auto take = [&](const char* name, const auto& use) { given(env, value, name, use); };
  Generate::each(task, [&]<class Number>(const char* name, Number& field, const OptionRange& range) {
    take(name, [&](napi_value v) {
      if constexpr (std::is_floating_point_v<Number>) field = Number(number(env, v, name, range.min, range.max));
      else field = Number(integer(env, v, name, int64_t(range.min), int64_t(range.max)));
    });
  });
  take("stop", [&](napi_value v) {
    task.stop = strings(env, v, "stop");
    for (size_t i = 0; i < task.stop.size(); ++i)
      if (task.stop[i].empty()) fail(Code::invalidOption, "Expected a non-empty string for ", at("stop", i));
  });
  take("ignoreEos", [&](napi_value v) { task.ignoreEos = boolean(env, v, "ignoreEos"); });
  take("constraint", [&](napi_value v) { task.constraint = constraintSpec(env, v); });
  take("scoredOnly", [&](napi_value v) { task.scoredOnly = boolean(env, v, "scoredOnly"); });
  return task;
}

Score scoreTask(napi_env env, napi_value value) {
  Score task;
  const auto take = [&](const char* name, const auto& use) { given(env, value, name, use); };
  take("suffix", [&](napi_value v) { task.suffix = string(env, v, "suffix"); });
  take("logProbs", [&](napi_value v) { task.logProbs = int32_t(integer(env, v, "logProbs", -1, 65536)); });
  take("logits", [&](napi_value v) { task.logits = boolean(env, v, "logits"); });
  return task;
}

Embed embedTask(napi_env env, napi_value value) {
  Embed task;
  given(env, value, "embed", [&](napi_value v) {
    requireObject(env, v, "embed");
    task.bosTokens = int32_t(integer(env, property(env, v, "bosTokens"), "embed.bosTokens", 0, 16));
    task.padTokens = int32_t(integer(env, property(env, v, "padTokens"), "embed.padTokens", 0, 1024));
    task.newline = boolean(env, property(env, v, "newline"), "embed.newline");
  });
  return task;
}

FitBegin fitBegin(napi_env env, napi_value value) {
  FitBegin begin;
  begin.start.scale = number(env, property(env, value, "scale"), "fit.scale", -1e6, 1e6);
  given(env, value, "tensors", [&](napi_value v) { begin.start.tensors = tensorMap(env, v, "fit.tensors"); });
  given(env, value, "targets", [&](napi_value v) { begin.start.targets = strings(env, v, "fit.targets"); });
  given(env, value, "rank", [&](napi_value v) { begin.start.rank = integer(env, v, "fit.rank", 1, 4096); });
  given(env, value, "seed",
        [&](napi_value v) { begin.start.seed = uint64_t(integer(env, v, "fit.seed", 0, kMaxSafeInteger)); });
  return begin;
}

Dropout fitDropout(napi_env env, napi_value value) {
  Dropout dropout;
  given(env, value, "dropout", [&](napi_value v) { dropout.rate = float(number(env, v, "fit.dropout", 0, 0.99)); });
  const auto part = [&](const char* name) {
    given(env, value, name, [&](napi_value v) {
      dropout = dropout.of(uint64_t(integer(env, v, std::string("fit.") + name, 0, kMaxSafeInteger)));
    });
  };
  part("seed"), part("number");
  return dropout;
}

FitUpdate fitUpdate(napi_env env, napi_value value) {
  const auto get = [&](const char* name) { return number(env, property(env, value, name), name, 0, 1e9); };
  return {{integer(env, property(env, value, "step"), "fit.step", 1, kMaxSafeInteger), get("rate"), get("decay"),
           get("clip")}};
}

Training fitTask(napi_env env, napi_value request) {
  const napi_value value = property(env, request, "fit");
  requireObject(env, value, "fit");
  Training fit;
  fit.session = uint32_t(integer(env, property(env, value, "session"), "fit.session", 0, UINT32_MAX));
  const auto flag = [&](const char* name) {
    bool set = false;
    given(env, value, name, [&](napi_value v) { set = boolean(env, v, std::string("fit.") + name); });
    return set;
  };
  switch (choice(env, property(env, value, "action"), "fit.action", {"begin", "example", "update", "read", "end"})) {
    case 0: fit.action = fitBegin(env, value); break;
    case 1:
      fit.action =
          FitExample{string(env, property(env, request, "suffix"), "suffix"), flag("train"), fitDropout(env, value)};
      break;
    case 2: fit.action = fitUpdate(env, value); break;
    case 3: fit.action = FitRead{flag("moments"), flag("gradients")}; break;
    default: fit.action = FitEnd{};
  }
  return fit;
}

void readTask(napi_env env, napi_value value, Request& request) {
  switch (choice(env, property(env, value, "kind"), "kind",
                 {"generate", "score", "encodeImage", "embed", "trace", "importance", "fit", "addAdapter"})) {
    case 0: request.task = generateTask(env, value); break;
    case 1: request.task = scoreTask(env, value); break;
    case 2: request.task = EncodeImage{}; break;
    case 3: request.task = embedTask(env, value); break;
    case 4: request.task = Trace{}; break;
    case 5: request.task = Importance{}; break;
    case 6: request.task = fitTask(env, value); break;
    default: request.task = AddAdapter{adapterSource(env, property(env, value, "adapter"), "adapter")};
  }
}

void readImages(napi_env env, napi_value value, Request& request, const ModelInfo& info) {
  const napi_value images = property(env, value, "images");
  const uint32_t count = arrayLength(env, images, "images");
  if (count > 0 && !info.hasVision)
    fail(Code::modelUnsupported, "This model has no vision part: load one that has, or give its file as `vision`");
  if (request.is<EncodeImage>() && count != 1)
    fail(Code::invalidOption, "Expected one image for images but received ", count);
  // before any pixel is copied: a long list of references to one picture must not become gigabytes
  if (count > 0 && info.contextSize > 0 && int64_t(count) > info.contextSize / std::max<int64_t>(info.imageTokens, 1))
    fail(Code::promptTooLong, count, " images of ", info.imageTokens, " tokens do not fit into the context of ",
         info.contextSize, " tokens: give fewer images or raise contextSize");
  for (uint32_t i = 0; i < count; ++i)
    request.images.push_back(imageSource(env, element(env, images, i), at("images", i), info));
}

std::vector<AdapterUse> adapterUses(napi_env env, napi_value value) {
  const uint32_t count = arrayLength(env, value, "adapters");
  std::vector<AdapterUse> uses;
  for (uint32_t i = 0; i < count; ++i) {
    const HandleScope scope(env);
    const napi_value entry = element(env, value, i);
    const std::string name = at("adapters", i);
    requireObject(env, entry, name);
    uses.push_back({integer(env, property(env, entry, "index"), name + ".index", 0, kInt32Max),
                    float(number(env, property(env, entry, "scale"), name + ".scale", -1e6, 1e6))});
  }
  return uses;
}

}  // namespace

Request request(napi_env env, napi_value value, const ModelInfo& info) {
  requireObject(env, value, "request");
  Request request;
  readTask(env, value, request);
  readImages(env, value, request, info);
  request.prompt = string(env, property(env, value, "prompt"), "prompt");
  given(env, value, "allowControlTokens",
        [&](napi_value v) { request.allowControlTokens = boolean(env, v, "allowControlTokens"); });
  given(env, value, "throughput", [&](napi_value v) { request.throughput = boolean(env, v, "throughput"); });
  given(env, value, "adapters", [&](napi_value v) { request.adapters = adapterUses(env, v); });
  return request;
}

}  // namespace pg::js
