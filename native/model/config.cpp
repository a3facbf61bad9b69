#include "model/config.h"

#include <cmath>

namespace pg {
namespace {

// Typed reads that name file and key when something is missing or absurd.
class Keys {
 public:
  explicit Keys(const GgufFile& file, std::string prefix) : file_(file), prefix_(std::move(prefix)) {}

  int64_t size(const std::string& name, int64_t most = 1 << 20) const {
    const auto value = file_.integer(prefix_ + name);
    if (!value) fail(Code::modelInvalid, file_.path(), ": metadata key ", prefix_, name, " is missing");
    return checked(name, *value, most);
  }
  int64_t size(const std::string& name, int64_t fallback, int64_t most) const {
    const auto value = file_.integer(prefix_ + name);
    return value ? checked(name, *value, most) : fallback;
  }
  // Within what float32 holds and what keeps products with activations finite.
  float within(const std::string& name, float fallback, double least, double most) const {
    const auto value = file_.number(prefix_ + name);
    if (value && !(*value >= least && *value <= most))
      fail(Code::modelInvalid, file_.path(), ": metadata key ", prefix_, name, " is ", *value, ", expected ", least,
           "..", most);
    return value ? float(*value) : fallback;
  }
  // 0 switches a cap off.
  float softcap(const std::string& name, float fallback) const {
    return file_.number(prefix_ + name) == 0.0 ? 0 : within(name, fallback, 1e-3, 1e9);
  }
  void check(bool ok, const std::string& name, const std::string& what) const {
    if (!ok) fail(Code::modelInvalid, file_.path(), ": metadata key ", prefix_, name, " ", what);
  }

 private:
  int64_t checked(const std::string& name, int64_t value, int64_t most) const {
    if (value < 1 || value > most)
      fail(Code::modelInvalid, file_.path(), ": metadata key ", prefix_, name, " is ", value, ", expected 1..", most);
    return value;
  }
  const GgufFile& file_;
  std::string prefix_;
};

constexpr int64_t kMostLayers = 1024;
constexpr int64_t kMostTokens = int64_t(1) << 24;
constexpr double kLeastEps = 1e-12;
constexpr float kMostPixelValue = 1e6f;  // of what goes into the tower; the usual values are -1..1

// Rotary positions of Gemma are plain: what scales them is refused, not ignored.
void checkRope(const GgufFile& file, const std::string& prefix, int64_t headDim) {
  const auto refuse = [&](const std::string& name, const auto& value) {
    fail(Code::modelUnsupported, file.path(), ": metadata key ", prefix, name, " is ", value,
         ", but PaliGemma uses plain rotary positions over the whole head");
  };
  if (const auto type = file.string(prefix + "rope.scaling.type"); type && *type != "none" && !type->empty())
    if (*type != "linear" || file.number(prefix + "rope.scaling.factor").value_or(1) != 1)
      refuse("rope.scaling.type", *type);
  if (const auto scale = file.number(prefix + "rope.scale_linear"); scale && *scale != 1)
    refuse("rope.scale_linear", *scale);
  if (const auto dims = file.integer(prefix + "rope.dimension_count"); dims && *dims != headDim)
    refuse("rope.dimension_count", *dims);
}

}  // namespace

TextConfig readTextConfig(const GgufFile& file) {
  const auto architecture = file.string("general.architecture");
  if (!architecture) fail(Code::modelInvalid, file.path(), ": metadata key general.architecture is missing");
  if (*architecture == "clip")
    fail(Code::modelUnsupported, file.path(),
         " is a vision file (architecture clip). Pass it as `vision` and the text GGUF as `model`");
  if (*architecture != "gemma" && *architecture != "gemma2")
    fail(Code::modelUnsupported, file.path(), ": architecture \"", *architecture,
         "\" is not PaliGemma's (gemma, gemma2)");

  TextConfig c;
  c.architecture = *architecture;
  const bool gemma2 = c.architecture == "gemma2";
  const Keys keys(file, c.architecture + ".");
  c.hidden = keys.size("embedding_length");
  c.ffn = keys.size("feed_forward_length");
  c.layers = keys.size("block_count", kMostLayers);
  c.heads = keys.size("attention.head_count", 4096);
  c.kvHeads = keys.size("attention.head_count_kv", c.heads, 4096);
  keys.check(c.heads % c.kvHeads == 0, "attention.head_count_kv", "does not divide attention.head_count");
  c.headDim = keys.size("attention.key_length", 256, 4096);
  keys.check(c.headDim % 2 == 0, "attention.key_length", "is odd");
  keys.check(keys.size("attention.value_length", c.headDim, 4096) == c.headDim, "attention.value_length",
             "differs from attention.key_length");
  checkRope(file, c.architecture + ".", c.headDim);
  c.context = keys.size("context_length", 8192, kMostTokens);
  c.normEps = keys.within("attention.layer_norm_rms_epsilon", 1e-6f, kLeastEps, 1);
  c.ropeTheta = keys.within("rope.freq_base", 10000, 1, 1e12);
  // llama.cpp has no key for query_pre_attn_scalar: it knows the 27B model by its 46 layers.
  const float scalar = gemma2 && c.layers == 46 ? float(c.hidden) / float(c.heads) : float(c.headDim);
  c.attentionScale = 1.0f / std::sqrt(keys.within("attention.query_pre_attn_scalar", scalar, 1e-3, 1e9));
  if (gemma2) {
    c.postNorms = true;
    c.attentionSoftcap = keys.softcap("attn_logit_softcapping", 50);
    c.finalSoftcap = keys.softcap("final_logit_softcapping", 30);
    c.slidingWindow = file.integer("gemma2.attention.sliding_window").value_or(4096);
    keys.check(c.slidingWindow >= 0 && c.slidingWindow <= kMostTokens, "attention.sliding_window",
               "is outside of 0.." + std::to_string(kMostTokens));
  }
  const GgufTensor* embedding = file.findTensor("token_embd.weight");
  if (!embedding) fail(Code::modelInvalid, file.path(), ": tensor token_embd.weight is missing");
  c.vocab = embedding->rows();
  return c;
}

bool hasVision(const GgufFile& file) { return file.findTensor("v.patch_embd.weight") != nullptr; }

VisionConfig readVisionConfig(const GgufFile& file, int64_t textHidden) {
  if (!hasVision(file))
    fail(Code::modelInvalid, file.path(), ": tensor v.patch_embd.weight is missing: not a vision file");
  if (const auto projector = file.string("clip.projector_type");
      projector && *projector != "paligemma" && *projector != "mlp")
    fail(Code::modelUnsupported, file.path(), ": clip.projector_type \"", *projector, "\" is not PaliGemma's");
  VisionConfig c;
  const Keys keys(file, "clip.vision.");
  c.imageSize = keys.size("image_size", 1 << 14);
  c.patch = keys.size("patch_size", 1024);
  keys.check(c.imageSize % c.patch == 0, "image_size", "is no multiple of patch_size");
  c.tokens = (c.imageSize / c.patch) * (c.imageSize / c.patch);
  keys.check(c.tokens <= 1 << 16, "image_size", "makes more than 65536 image tokens");
  c.hidden = keys.size("embedding_length");
  c.ffn = keys.size("feed_forward_length");
  c.layers = keys.size("block_count", kMostLayers);
  c.heads = keys.size("attention.head_count", 4096);
  keys.check(c.hidden % c.heads == 0, "attention.head_count", "does not divide embedding_length");
  keys.check(keys.size("projection_dim", textHidden, 1 << 20) == textHidden, "projection_dim",
             "differs from the text model's width " + std::to_string(textHidden));
  c.normEps = keys.within("attention.layer_norm_epsilon", 1e-6f, kLeastEps, 1);
  for (const auto& [name, values] : {std::pair{"image_mean", c.mean}, std::pair{"image_std", c.std}}) {
    const GgufArray* array = file.array(std::string("clip.vision.") + name);
    if (!array) continue;
    keys.check(array->count == 3, name, "has not 3 values");
    for (int i = 0; i < 3; ++i) values[i] = float(array->number(uint64_t(i)));
  }
  for (int i = 0; i < 3; ++i) {
    keys.check(c.std[i] > 0 && std::isfinite(c.std[i]), "image_std", "holds a value that is not > 0 and finite");
    const float low = -c.mean[i] / c.std[i], high = (1 - c.mean[i]) / c.std[i];
    keys.check(std::fabs(low) <= kMostPixelValue && std::fabs(high) <= kMostPixelValue, "image_mean",
               "and image_std give pixel values beyond every scale");
  }
  if (const auto filter = file.string("paligemma.image.resize")) {
    if (*filter != "bicubic" && *filter != "bilinear")
      fail(Code::modelUnsupported, file.path(), ": paligemma.image.resize \"", *filter,
           "\" is not known (bicubic, bilinear)");
    c.resizeFilter = *filter;
  }
  return c;
}

}  // namespace pg
