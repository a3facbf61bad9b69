#include "train/trainer.h"

#include <algorithm>

#include "base/math.h"

namespace pg {
namespace {

constexpr uint64_t kTextPart = ~uint64_t(0);  // pictures are the others, by their number

}  // namespace

Trainer::Trainer(const TrainedNet& net, const LoraStart& start, int64_t context, size_t tapeBytes)
    : net_(net),
      lora_(net.device, net.weights, start),
      linear_(net.device, lora_),
      loss_(net.device, net.text, net.weights.text, net.decoder.finalSoftcap()),
      text_(net.device, linear_, net.text, net.weights.text),
      vision_(net.device, linear_, net.vision, net.weights.vision),
      tapeBytes_(tapeBytes),
      layout_{net.text.layers, net.text.kvHeads, net.text.headDim, DType::f32},
      pool_(net.device, layout_, ceilDiv(context, kPageTokens)),
      kv_(pool_),
      tapes_(net.device),
      scratch_(net.device) {
  const auto trains = [&](const TextLayer& w) {
    const Linear* all[] = {&w.q, &w.k, &w.v, &w.out, &w.gate, &w.up, &w.down};
    return std::any_of(std::begin(all), std::end(all), [&](const Linear* linear) { return linear_.trains(*linear); });
  };
  while (firstText_ < net.text.layers && !trains(net.weights.text.layers[size_t(firstText_)])) ++firstText_;
  while (firstVision_ < net.vision.layers && !vision_.trains(firstVision_)) ++firstVision_;
  if (lora_.trainsVision()) firstText_ = 0;
}

void Trainer::begin(TrainExample example) {
  if (example.train && example.prefix >= int64_t(example.ids.size()))
    fail(Code::internal, "An example without a suffix");
  example_ = std::move(example);
  losses_.clear();
  image_ = 0;
  layer_ = 0;
  visionInputs_.clear();
  features_.clear();
  dropFor(kTextPart);
  reserve();
  if (lora_.trainsVision() && !example_.pixels.empty()) {
    phase_ = Phase::vision;
    beginVision(0);
  } else {
    beginText();
  }
}

// Each part of an example drops values of its own, the same in the forward pass and on the way back.
void Trainer::dropFor(uint64_t part) { lora_.setDropout(example_.train ? example_.dropout.of(part) : Dropout()); }

void Trainer::beginVision(size_t image) {
  dropFor(image);
  net_.encoder->begin(example_.pixels[image], lora_.set().get());
}

// Memory for everything that lives as long as the example.
void Trainer::reserve() {
  const int64_t tokens = length(), suffix = tokens + 1 - example_.prefix;
  const size_t input = Arena::sizeOf(tokens, net_.text.hidden), whole = text_.tapeBytes(tokens);
  const bool train = example_.train;
  const bool sees = train && lora_.trainsVision() && !example_.pixels.empty();
  const int64_t layers = train ? net_.text.layers - firstText_ : 0;
  const int64_t fit = int64_t(tapeBytes_ / whole);
  firstKept_ = net_.text.layers - std::min(layers, std::max<int64_t>(fit, 0));
  const int64_t keptLayers = net_.text.layers - firstKept_, wholes = keptLayers < layers ? keptLayers + 1 : keptLayers;

  const int64_t visionLayers = net_.vision.layers - firstVision_;
  const size_t visionInput = sees ? Arena::sizeOf(net_.vision.tokens, net_.vision.hidden) : 0;
  const size_t visionBytes =
      sees ? visionInput * (example_.pixels.size() * size_t(visionLayers + 1) + 1) + vision_.tapeBytes() : 0;
  scratch_.reset();
  scratch_.reserve(std::max(
      {train ? text_.scratchBytes(tokens) : 0, loss_.scratchBytes(suffix), sees ? vision_.scratchBytes() : 0}));
  tapes_.reset();
  tapes_.reserve((train ? input : 0) + size_t(layers) * input + size_t(wholes) * whole + visionBytes);

  layerTapes_.assign(size_t(net_.text.layers), {});
  repeated_ = {};
  if (!train) return;
  d_ = tapes_.take(tokens, net_.text.hidden);
  if (keptLayers < layers) repeated_ = text_.wholeTape(tapes_, tokens);
  for (int64_t i = firstText_; i < net_.text.layers; ++i) {
    LayerTape& tape = layerTapes_[size_t(i)];
    if (i >= firstKept_) tape = text_.wholeTape(tapes_, tokens);
    tape.attention = tapes_.take(tokens, net_.text.hidden);
  }
  if (!sees) return;
  const auto take = [&] { return tapes_.take(net_.vision.tokens, net_.vision.hidden); };
  visionTape_ = vision_.wholeTape(tapes_);
  dVision_ = take();
  for (size_t i = 0; i < example_.pixels.size(); ++i) {
    std::vector<View>& inputs = visionInputs_.emplace_back();
    for (int64_t layer = 0; layer <= visionLayers; ++layer) inputs.push_back(take());
  }
}

bool Trainer::step() {
  switch (phase_) {
    case Phase::vision: return stepVision(), false;
    case Phase::text: return stepText();
    case Phase::backward: return stepBackward();
    case Phase::visionBackward: return stepVisionBackward();
  }
  return true;
}

void Trainer::stepVision() {
  LayerTape tape;
  View beforeNorm;
  if (!visionInputs_.empty()) {
    if (layer_ >= firstVision_) tape.attention = visionInputs_[image_][size_t(layer_ - firstVision_)];
    beforeNorm = visionInputs_[image_].back();
  }
  ++layer_;
  if (!net_.encoder->step(tape, beforeNorm)) return;
  const int64_t rows = net_.vision.tokens, cols = net_.text.hidden;
  Buffer& features = features_.emplace_back(net_.device.allocate(size_t(rows * cols) * sizeof(float)));
  net_.encoder->finish(features.view(DType::f32, rows, cols));
  example_.features.push_back(features.view(DType::f32, rows, cols));
  layer_ = 0;
  if (++image_ < example_.pixels.size()) beginVision(image_);
  else beginText();
}

void Trainer::beginText() {
  dropFor(kTextPart);
  kv_ = KvSequence(pool_);
  net_.decoder.beginPrefill(kv_, std::span(example_.ids).first(size_t(length())), example_.features, example_.prefix,
                            lora_.set().get());
  phase_ = Phase::text;
  layer_ = 0;
}

bool Trainer::stepText() {
  const bool last = net_.decoder.stepPrefill(layerTapes_[size_t(layer_++)]);
  if (!last) return false;
  const int64_t first = example_.prefix - 1, rows = length() - first;
  const auto targets = std::span(example_.ids).subspan(size_t(example_.prefix));
  View d;
  if (example_.train) {
    const std::vector<float> zeros(size_t(d_.rows * d_.cols));
    net_.device.upload(d_, zeros.data());
    d = d_.slice(first, rows);
  }
  losses_ = loss_(scratch_, d, net_.decoder.prefillRows().slice(first, rows), targets);
  if (!example_.train) return true;
  phase_ = Phase::backward;
  layer_ = net_.text.layers;
  return false;
}

bool Trainer::stepBackward() {
  --layer_;
  LayerTape tape = layerTapes_[size_t(layer_)];
  if (layer_ < firstKept_) {
    const View entered = tape.attention;
    tape = repeated_;
    tape.attention = entered;
    LayerTape wanted = tape;
    net_.decoder.repeatLayer(layer_, wanted);
  }
  const bool through = layer_ > firstText_ || lora_.trainsVision();
  text_(scratch_, layer_, d_, {net_.decoder.prefillPositions(), net_.decoder.mask(layer_, example_.prefix)}, tape,
        through);
  if (layer_ > firstText_) return false;
  if (visionInputs_.empty()) return finish();
  phase_ = Phase::visionBackward;
  image_ = 0;
  layer_ = net_.vision.layers;
  return false;
}

bool Trainer::stepVisionBackward() {
  const std::vector<View>& inputs = visionInputs_[image_];
  const int64_t tokens = net_.vision.tokens;
  dropFor(image_);
  if (layer_ == net_.vision.layers) {
    vision_.projector(scratch_, dVision_, d_.slice(int64_t(image_) * tokens, tokens), inputs.back());
  } else {
    LayerTape tape = visionTape_;
    tape.attention = inputs[size_t(layer_ - firstVision_)];
    net_.encoder->repeatLayer(layer_, tape);
    vision_.layer(scratch_, layer_, dVision_, tape, layer_ > firstVision_);
  }
  if (layer_-- > firstVision_) return false;
  layer_ = net_.vision.layers;
  return ++image_ == visionInputs_.size() && finish();
}

bool Trainer::finish() {
  tokens_ += int64_t(losses_.size());
  return true;
}

ConstView Trainer::featureGradient() const {
  return d_.slice(0, net_.vision.tokens * int64_t(example_.features.size()));
}

double Trainer::update(const AdamStep& step) {
  if (tokens_ == 0) fail(Code::invalidOption, "No example was given to this step");
  const double norm = lora_.step(step, 1 / double(tokens_));
  tokens_ = 0;
  return norm;
}

}  // namespace pg
