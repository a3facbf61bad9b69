#include "model/sequence.h"

namespace pg {

Sequence::Sequence(std::shared_ptr<Job> j, Model& model)
    : job(std::move(j)), kv(*model.kvPool), model_(model), sampler_(job->request.sampling), stops_(job->request.stop) {
  const Request& r = job->request;
  adapters = model.adapters->choose(r.adapters ? &*r.adapters : nullptr);
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
  if (r.kind == Request::Kind::importance) {
    if (!model.observer) fail(Code::invalidOption, "The model was not loaded with importance");
    return;
  }
  prompt = buildPrompt(*model.tokenizer, r.prompt, r.kind == Request::Kind::score ? &r.suffix : nullptr,
                       perImage * int64_t(r.images.size()), r.allowControlTokens);
  const int64_t room = model.info.contextSize - (r.kind == Request::Kind::generate ? 1 : 0);
  if (int64_t(prompt.ids.size()) > room)
    fail(Code::promptTooLong, "The prompt has ", prompt.ids.size(), " tokens (", prompt.imageTokens,
         " of them image tokens), but contextSize is ", model.info.contextSize, ". Shorten the prompt, pass fewer images or raise contextSize");
  if (const int64_t suffix = int64_t(prompt.ids.size()) - prompt.prefix; r.logits && suffix > kMostLogitRows)
    fail(Code::promptTooLong, "The suffix has ", suffix, " tokens with its end, but logits of at most ", kMostLogitRows, " can be returned. Shorten it");
  if (r.constraint.kind != ConstraintSpec::Kind::none) constraint_.emplace(*model.tokenizer, r.constraint);
  if (r.beams > 1) {
    if (r.constraint.kind != ConstraintSpec::Kind::none) fail(Code::invalidOption, "Expected beams 1 with a constraint but received ", r.beams);
    if (r.sampling.temperature > 0) fail(Code::invalidOption, "Expected temperature 0 with beams ", r.beams, " but received ", r.sampling.temperature);
    const int64_t most = std::min(r.maxTokens, model.info.contextSize - int64_t(prompt.ids.size()));
    beams_.emplace(r.beams, r.lengthPenalty, most, [&tokenizer = *model.tokenizer, ignore = r.ignoreEos](int32_t id) {
      return !ignore && tokenizer.isEndOfGeneration(id);
    });
  }
  if (r.sampling.repeatPenalty != 1)
    for (int32_t id : prompt.ids)
      if (id >= 0) history_.push_back(id);
}

void Sequence::begin(std::span<const float> logits, std::vector<Event>& out) {
  firstToken_ = Clock::now();
  timings.firstTokenMs = milliseconds(job->submitted);
  if (!beams_) return advance(logits, out);
  beams_->start(kv, logits);
  finishBeams(out);
}

void Sequence::appendRows(std::vector<DecodeRow>& rows) {
  const int64_t first = int64_t(prompt.ids.size());
  if (beams_) beams_->appendRows(rows, first, prompt.prefix);
  else rows.push_back({&kv, lastToken_, first + completionTokens_ - 1, prompt.prefix});
}

void Sequence::advance(std::span<const float> logits, std::vector<Event>& out) {
  const Request& r = job->request;
  if (beams_) {
    beams_->advance(logits, int64_t(model_.textConfig.vocab));
    return finishBeams(out);
  }
  const auto allowed = constraint_ ? constraint_->allowed() : std::span<const int32_t>();
  TokenChoice choice = sampler_.pick(logits, history_, allowed);
  if (model_.tokenizer->isEndOfGeneration(choice.id) && !r.ignoreEos) {
    finishReason_ = "stop";
  } else {
    if (constraint_) constraint_->accept(choice.id);
    if (r.sampling.repeatPenalty != 1) history_.push_back(choice.id);
    emit(std::move(choice), out);
  }
  if (finished()) end(out);
}

// A hypothesis is known only at the end: all its tokens come at once.
void Sequence::finishBeams(std::vector<Event>& out) {
  if (!beams_->finished()) return;
  const BeamSearch::Result& best = beams_->best();
  for (const TokenChoice& token : best.tokens) {
    if (finished()) break;   // a stop string
    emit(token, out);
  }
  if (!finished() || (best.ended && finishReason_ == "length")) finishReason_ = best.ended ? "stop" : "length";
  end(out);
}

void Sequence::emit(TokenChoice choice, std::vector<Event>& out) {
  lastToken_ = choice.id;
  ++completionTokens_;
  Event event;
  event.kind = Event::Kind::token;
  event.job = job->id;
  event.token.tokenText = utf8_.push(model_.tokenizer->pieceBytes(choice.id));
  event.token.text = stops_.push(event.token.tokenText);
  event.token.choice = std::move(choice);
  out.push_back(std::move(event));
  if (stops_.matched()) finishReason_ = "stop";
  else if (completionTokens_ >= job->request.maxTokens || int64_t(prompt.ids.size()) + completionTokens_ >= model_.info.contextSize) finishReason_ = "length";
}

void Sequence::end(std::vector<Event>& out) {
  Event e;
  e.kind = Event::Kind::end;
  e.job = job->id;
  if (!stops_.matched()) e.text = stops_.push(utf8_.flush());
  if (!stops_.matched()) e.text += stops_.flush();
  e.finishReason = stops_.matched() ? "stop" : finishReason_;
  e.imageTokens = prompt.imageTokens;
  e.promptTokens = prompt.prefix - prompt.imageTokens;
  e.completionTokens = completionTokens_;
  timings.decodeMs = milliseconds(firstToken_);
  e.timings = timings;
  out.push_back(std::move(e));
}

}  // namespace pg
