#include "model/sequence.h"

namespace pg {

Sequence::Sequence(std::shared_ptr<Job> j, Model& model)
    : job(std::move(j)), kv(*model.kvPool), model_(model), sampler_(job->request.sampling), stops_(job->request.stop) {
  const Request& r = job->request;
  const int64_t perImage = model.visionConfig.tokens;
  if (!r.images.empty() && !model.vision)
    fail(Code::modelUnsupported, "This model file has no vision tensors, so it cannot take an image. Pass the vision GGUF as `vision` to loadModel");
  const int64_t pixelBytes = model.visionConfig.imageSize * model.visionConfig.imageSize * 3;
  for (size_t i = 0; i < r.images.size(); ++i) {
    const ImageSource& image = r.images[i];
    if (image.embedding.empty() ? int64_t(image.pixels.size()) != pixelBytes
                                : int64_t(image.embedding.size()) != perImage * model.textConfig.hidden)
      fail(Code::imageInvalid, "Image ", i, " does not fit this model: expected ", model.visionConfig.imageSize, " x ",
           model.visionConfig.imageSize, " RGB pixels or an embedding of [", perImage, ", ", model.textConfig.hidden, "]");
  }
  if (r.kind == Request::Kind::encodeImage) {
    if (r.images.size() != 1) fail(Code::invalidOption, "encodeImage takes exactly one image");
    return;
  }
  prompt = buildPrompt(*model.tokenizer, r.prompt, r.kind == Request::Kind::score ? &r.suffix : nullptr,
                       perImage * int64_t(r.images.size()), r.allowControlTokens);
  const int64_t room = model.info.contextSize - (r.kind == Request::Kind::generate ? 1 : 0);
  if (int64_t(prompt.ids.size()) > room)
    fail(Code::promptTooLong, "The prompt has ", prompt.ids.size(), " tokens (", prompt.imageTokens,
         " of them image tokens), but contextSize is ", model.info.contextSize, ". Shorten the prompt, pass fewer images or raise contextSize");
  if (r.constraint.kind != ConstraintSpec::Kind::none) constraint_.emplace(*model.tokenizer, r.constraint);
  if (r.sampling.repeatPenalty != 1)
    for (int32_t id : prompt.ids)
      if (id >= 0) history_.push_back(id);
}

std::optional<TokenEvent> Sequence::advance(std::span<const float> logits) {
  const Request& r = job->request;
  if (completionTokens_ == 0) {
    firstToken_ = Clock::now();
    timings.firstTokenMs = milliseconds(job->submitted);
  }
  TokenEvent event;
  const auto allowed = constraint_ ? constraint_->allowed() : std::span<const int32_t>();
  event.choice = sampler_.pick(logits, history_, allowed);
  const int32_t id = event.choice.id;
  if (model_.tokenizer->isEndOfGeneration(id) && !r.ignoreEos) {
    finishReason_ = "stop";
    return std::nullopt;
  }
  if (constraint_) constraint_->accept(id);
  if (r.sampling.repeatPenalty != 1) history_.push_back(id);
  lastToken_ = id;
  ++completionTokens_;
  event.tokenText = utf8_.push(model_.tokenizer->pieceBytes(id));
  event.text = stops_.push(event.tokenText);
  if (stops_.matched()) finishReason_ = "stop";
  else if (completionTokens_ >= r.maxTokens || int64_t(prompt.ids.size()) + completionTokens_ >= model_.info.contextSize) finishReason_ = "length";
  return event;
}

Event Sequence::end() {
  Event e;
  e.kind = Event::Kind::end;
  e.job = job->id;
  if (!stops_.matched()) e.text = stops_.push(utf8_.flush());
  if (!stops_.matched()) e.text += stops_.flush();
  e.finishReason = stops_.matched() ? "stop" : finishReason_;
  e.imageTokens = prompt.imageTokens;
  e.promptTokens = prompt.prefix - prompt.imageTokens;
  e.completionTokens = completionTokens_;
  timings.decodeMs = completionTokens_ > 0 ? milliseconds(firstToken_) : 0;
  e.timings = timings;
  return e;
}

}  // namespace pg
