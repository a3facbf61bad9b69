#include "serve/load/model.h"

#include <algorithm>
#include <map>

#include "base/math.h"
#include "serve/load/load_plan.h"
#include "serve/load/make_device.h"

namespace pg {
namespace {

// The type that most bytes of the text matrices have.
std::string mainType(const GgufFile& file) {
  std::map<DType, uint64_t> bytes;
  for (const GgufTensor& t : file.tensors())
    if (t.dims >= 2 && t.name.substr(0, 4) == "blk.") bytes[t.type] += t.bytes;
  DType best = DType::f32;
  for (const auto& [type, n] : bytes)
    if (n > bytes[best]) best = type;
  return dtypeName(best);
}

void count(const GgufFile& file, ModelInfo& info) {
  for (const GgufTensor& t : file.tensors()) {
    if (t.name.substr(0, 5) != "mask.") info.parameters += t.elements();
    info.bytes += int64_t(t.bytes);
  }
}

}  // namespace

std::unique_ptr<Model> Model::load(const LoadOptions& options) {
  ChosenDevice chosen = chooseDevice(options);
  const bool mayGiveWay = options.device == "auto" && chosen.device->name() != std::string("cpu");
  try {
    auto model = std::make_unique<Model>(options, std::move(chosen.device));
    model->info.deviceNote = chosen.note;
    return model;
  } catch (const Error& error) {
    if (!mayGiveWay || (error.code() != Code::outOfMemory && error.code() != Code::deviceLost)) throw;
    auto model = std::make_unique<Model>(options, makeCpu(options.threads));
    model->info.deviceNote = error.message();
    return model;
  }
}

Model::Model(const LoadOptions& options, std::unique_ptr<Device> on) : device(std::move(on)) {
  if (options.importance) {
    observer = std::make_unique<InputObserver>();
    device->setTap(observer.get());
  }
  const auto text = GgufFile::open(options.path, options.weights);
  const auto visionFile = options.visionPath.empty() ? text : GgufFile::open(options.visionPath, options.weights);
  const auto read = [&] {
    readNets(options, text, visionFile);
    readVocabulary(options, text);
    readMaskDecoder(options, text, visionFile);
    return true;
  };
  text->whole([&] { return visionFile->whole(read); });
  text_ = text;
  visionFile_ = visionFile;
  decoder = std::make_unique<Decoder>(*device, textConfig, weights.text, options.attentionWindow, options.finalSoftcap);
  makeCaches(options);
  describe(*text);
}

void Model::throwIfChanged(bool atPath) const {
  text_->throwIfChanged(atPath);
  if (visionFile_ != text_) visionFile_->throwIfChanged(atPath);
}

void Model::readNets(const LoadOptions& options, const File& text, const File& visionFile) {
  textConfig = readTextConfig(*text);
  weights.readText(text, textConfig);
  count(*text, info);
  if (visionFile != text) count(*visionFile, info);

  if (!options.visionPath.empty() || hasVision(*visionFile)) {
    visionConfig = readVisionConfig(*visionFile, textConfig.hidden);
    weights.readVision(visionFile, visionConfig, textConfig.hidden);
    vision = std::make_unique<VisionEncoder>(*device, visionConfig, weights.vision);
  }
  weights.place(*device);

  adapters = std::make_unique<Adapters>(*device);
  for (const AdapterSource& source : options.adapters) adapters->load(source, weights, textConfig.architecture);
  info.adapters = adapters->info();
}

void Model::readVocabulary(const LoadOptions& options, const File& text) {
  tokenizer = std::make_unique<Tokenizer>(text, options.tokens);
  constraints = std::make_unique<ConstraintFactory>(*tokenizer);
  if (tokenizer->size() > textConfig.vocab)
    fail(Code::modelInvalid, options.path, ": tokenizer.ggml.tokens has ", tokenizer->size(),
         " entries but token_embd.weight only ", textConfig.vocab, " rows");
  for (const auto& [what, id] : {std::pair{"bos", tokenizer->bos()}, std::pair{"eos", tokenizer->eos()},
                                 std::pair{"newline", tokenizer->newline()}})
    if (id < 0 || id >= textConfig.vocab)
      fail(Code::modelInvalid, options.path, ": the vocabulary has no ", what, " token");
}

void Model::readMaskDecoder(const LoadOptions& options, const File& text, const File& visionFile) {
  if (options.maskTensors) {
    maskDecoder = std::make_unique<MaskDecoder>(options.maskTensors);
  } else if (!options.maskDecoderPath.empty()) {
    maskDecoder = std::make_unique<MaskDecoder>(MaskDecoder::fromGguf(*GgufFile::open(options.maskDecoderPath)));
  } else {
    for (const auto& file : {text, visionFile})
      if (!maskDecoder && MaskDecoder::has(*file))
        maskDecoder = std::make_unique<MaskDecoder>(MaskDecoder::fromGguf(*file));
  }
}

void Model::makeCaches(const LoadOptions& options) {
  const int64_t context = options.contextSize > 0 ? options.contextSize : textConfig.context;
  if (context < visionConfig.tokens + 2)
    fail(Code::invalidOption, "Expected contextSize >= ", visionConfig.tokens + 2, " (a picture alone takes ",
         visionConfig.tokens, " tokens) but received ", context);
  const KvLayout layout{textConfig.layers, textConfig.kvHeads, textConfig.headDim, options.kvCacheType};
  if (textConfig.headDim % dtypeInfo(layout.type)->block)
    fail(Code::invalidOption, "kvCacheType q8_0 needs a head size that is a multiple of 32, but this model's is ",
         textConfig.headDim);
  const int64_t pagesPerSequence = ceilDiv(context, kPageTokens);
  // kept prefixes come on top: they never take a page that a running sequence needs
  keptPrefixPages = kKeptPrefixes * ceilDiv(visionConfig.tokens + kPromptTokens, kPageTokens);
  kvPool =
      std::make_unique<KvPool>(*device, layout, pagesPerSequence * std::max(1, options.maxSequences) + keptPrefixPages);
  info.contextSize = context;
}

void Model::describe(const GgufFile& text) {
  info.architecture = textConfig.architecture;
  info.name = std::string(text.string("general.name").value_or(""));
  info.quantization = mainType(text);
  info.device = device->name();
  info.isa = device->isa();
  info.threads = device->threads();
  info.imageSize = visionConfig.imageSize;
  info.imageTokens = visionConfig.tokens;
  info.textLayers = textConfig.layers;
  info.textHidden = textConfig.hidden;
  info.visionLayers = visionConfig.layers;
  info.visionHidden = visionConfig.hidden;
  info.vocab = textConfig.vocab;
  info.hasVision = vision != nullptr;
  info.hasRetrieval = bool(weights.retrieval.weight);
  info.retrievalDims = info.hasRetrieval ? weights.retrieval.out() : 0;
  info.retrievalFlavour = std::string(text.string("paligemma.retrieval.flavour").value_or(""));
  info.hasMaskDecoder = maskDecoder != nullptr;
  info.resizeFilter = visionConfig.resizeFilter;
}

}  // namespace pg
