#include "serve/sequence.h"

#include "base/object_tokens.h"

namespace pg {
namespace {

const Generate kNoGenerate;
constexpr int32_t kNearLocations =
    16;   // 1/64 of the picture: the best calibrated width on the demo model (docs/constraints.md)

}  // namespace

Sequence::Sequence(std::shared_ptr<Job> j, Model& model)
    : job(std::move(j)),
      kv(*model.kvPool),
      model_(model),
      generate_(job->request.is<Generate>() ? job->request.generate() : kNoGenerate),
      sampler_(generate_.sampling),
      stops_(generate_.stop) {
  const Request& r = job->request;
  if (!r.is<Training>())
    adapters = model.adapters->choose(r.adapters ? &*r.adapters : nullptr);   // training has its own
  checkImages();
  if (r.is<Importance>() && !model.observer) fail(Code::invalidOption, "The model was not loaded with importance");
  if (!r.hasPrompt()) return;
  const int64_t imageTokens = model.visionConfig.tokens * int64_t(r.images.size());
  if (const Embed* embed = r.get<Embed>()) {
    if (!model.info.hasRetrieval)
      fail(Code::modelUnsupported,
           "This model has no retrieval head (tensor retrieval.proj.weight). Load a converted ColPali checkpoint");
    prompt = buildEmbedPrompt(*model.tokenizer, r.prompt, *embed, imageTokens);
  } else {
    prompt = buildPrompt(*model.tokenizer, r.prompt, r.suffix(), imageTokens, r.allowControlTokens);
  }
  checkLength();
  if (generate_.constraint.kind != ConstraintSpec::Kind::none)
    constraint_ = model.constraints->make(generate_.constraint);
  if (generate_.beams > 1) startBeams();
  if (generate_.sampling.repeatPenalty != 1)
    for (int32_t id : prompt.ids)
      if (id >= 0) history_.push_back(id);
}

void Sequence::checkImages() const {
  const Request& r = job->request;
  const int64_t perImage = model_.visionConfig.tokens, size = model_.visionConfig.imageSize;
  if (!r.images.empty() && !model_.vision)
    fail(Code::modelUnsupported,
         "This model file has no vision tensors, so it cannot take an image. Pass the vision GGUF as `vision` to "
         "loadModel");
  for (size_t i = 0; i < r.images.size(); ++i) {
    const ImageSource& image = r.images[i];
    if (image.embedding.empty() ? int64_t(image.pixels.size()) != size * size * 3
                                : int64_t(image.embedding.size()) != perImage * model_.textConfig.hidden)
      fail(Code::imageInvalid, "Image ", i, " does not fit this model: expected ", size, " x ", size,
           " RGB pixels or an embedding of [", perImage, ", ", model_.textConfig.hidden, "]");
  }
  if (r.is<EncodeImage>() && r.images.size() != 1) fail(Code::invalidOption, "encodeImage takes exactly one image");
}

void Sequence::checkLength() const {
  const int64_t room = model_.info.contextSize - (job->request.is<Generate>() ? 1 : 0);
  if (int64_t(prompt.ids.size()) > room)
    fail(Code::promptTooLong, "The prompt has ", prompt.ids.size(), " tokens (", prompt.imageTokens,
         " of them image tokens), but contextSize is ", model_.info.contextSize,
         ". Shorten the prompt, pass fewer images or raise contextSize");
  const Score* score = job->request.get<Score>();
  if (const int64_t suffix = int64_t(prompt.ids.size()) - prompt.prefix;
      score && score->logits && suffix > kMostLogitRows)
    fail(Code::promptTooLong, "The suffix has ", suffix, " tokens with its end, but logits of at most ", kMostLogitRows,
         " can be returned. Shorten it");
}

void Sequence::startBeams() {
  if (generate_.constraint.kind != ConstraintSpec::Kind::none)
    fail(Code::invalidOption, "Expected beams 1 with a constraint but received ", generate_.beams,
         "; detect and segment have one unless constrain is false (--no-constrain)");
  if (generate_.sampling.temperature > 0)
    fail(Code::invalidOption, "Expected temperature 0 with beams ", generate_.beams, " but received ",
         generate_.sampling.temperature);
  const int64_t most = std::min(generate_.maxTokens, model_.info.contextSize - int64_t(prompt.ids.size()));
  beams_.emplace(generate_.beams, generate_.lengthPenalty, most,
                 [&tokenizer = *model_.tokenizer, ignore = generate_.ignoreEos](int32_t id) {
                   return !ignore && tokenizer.isEndOfGeneration(id);
                 });
}

void Sequence::begin(std::span<const float> logits, std::vector<Event>& out) {
  firstToken_ = Clock::now();
  timings.firstTokenMs = milliseconds(job->submitted);
  if (!beams_) {
    take(logits, out);
    return takeKnown(out);
  }
  beams_->start(kv, logits);
  finishBeams(out);
}

void Sequence::appendRows(std::vector<DecodeRow>& rows, size_t budget) {
  const int64_t first = int64_t(prompt.ids.size());
  if (beams_) return beams_->appendRows(rows, first, prompt.prefix);
  const auto append = [&](int32_t id, DecodeRow::Head head) {
    rows.push_back({&kv, id, first + cached_++, prompt.prefix, nullptr, head});
  };
  const size_t count = std::min(budget, unfed_.size());
  for (size_t i = 0; i < count; ++i) append(unfed_[i], DecodeRow::Head::none);
  unfed_.erase(unfed_.begin(), unfed_.begin() + ptrdiff_t(count));
  wanted_ = unfed_.empty();
  if (wanted_ == 0) return;
  rows.back().head = nextHead();
  if (rows.back().head == DecodeRow::Head::ids) rows.back().ids = constraint_->allowed();
  chosen_ = rows.back().head == DecodeRow::Head::best;
  if (chosen_) {
    best_.resize(sampler_.needed());
    rows.back().best = &best_;
  }
  if (!constraint_ || quiet()) return;
  for (const int32_t id : constraint_->forced()) {
    if (count + ahead_ == budget || id == model_.tokenizer->eos() || full(completionTokens_ + int64_t(ahead_) + 1))
      break;
    append(id, DecodeRow::Head::all);
    ++ahead_;
    ++wanted_;
  }
}

void Sequence::advance(std::span<const float> logits, std::vector<Event>& out) {
  const size_t vocab = size_t(model_.textConfig.vocab);
  if (beams_) {
    beams_->advance(logits, int64_t(vocab));
    return finishBeams(out);
  }
  for (size_t i = logits.size() / vocab - wanted_; i < logits.size() / vocab && !finished(); ++i)
    take(logits.subspan(i * vocab, vocab), out);
  if (wanted_ > 0) takeKnown(out);
}

bool Sequence::full(int64_t tokens) const {
  return tokens >= generate_.maxTokens || int64_t(prompt.ids.size()) + tokens >= model_.info.contextSize;
}

DecodeRow::Head Sequence::nextHead() const {
  if (!constraint_) {
    const size_t needed = sampler_.needed();
    return needed > 0 && int64_t(needed) <= model_.decoder->mostBest() ? DecodeRow::Head::best : DecodeRow::Head::all;
  }
  if (!quiet()) return DecodeRow::Head::all;
  const auto allowed = constraint_->allowed();
  if (allowed.size() == 1) return DecodeRow::Head::none;
  return model_.decoder->fewIds(allowed) ? DecodeRow::Head::ids : DecodeRow::Head::all;
}

// Tokens without an alternative, whose log-probability nobody wants, come without a step of their own.
void Sequence::takeKnown(std::vector<Event>& out) {
  while (!finished() && nextHead() == DecodeRow::Head::none) take({}, out);
}

void Sequence::take(std::span<const float> logits, std::vector<Event>& out) {
  if (chosen_ && best_.empty()) Sampler::failUnusable(logits.size());
  const auto allowed = constraint_ ? constraint_->allowed()
                       : chosen_   ? std::span<const int32_t>(best_)
                                   : std::span<const int32_t>();
  chosen_ = false;
  TokenChoice choice = sampler_.pick(logits, history_, allowed, quiet());
  const int32_t firstLoc = model_.tokenizer->firstLoc(), location = choice.id - firstLoc;
  if (!quiet() && firstLoc >= 0 && location >= 0 && location < kLocations)
    choice.nearLogProb =
        nearLogProbOf(logits, choice.id, choice.logProb, firstLoc, firstLoc + kLocations - 1, kNearLocations);
  if (model_.tokenizer->isEndOfGeneration(choice.id) && !generate_.ignoreEos) {
    finishReason_ = FinishReason::stop;
  } else {
    if (constraint_) constraint_->accept(choice.id);
    if (generate_.sampling.repeatPenalty != 1) history_.push_back(choice.id);
    if (ahead_ > 0) --ahead_;
    else unfed_.push_back(choice.id);
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
  if (!finished() || (best.ended && finishReason_ == FinishReason::length))
    finishReason_ = best.ended ? FinishReason::stop : FinishReason::length;
  end(out);
}

void Sequence::emit(TokenChoice choice, std::vector<Event>& out) {
  ++completionTokens_;
  TokenEvent token;
  token.tokenText = utf8_.push(model_.tokenizer->pieceBytes(choice.id));
  token.text = stops_.push(token.tokenText);
  token.choice = std::move(choice);
  out.push_back({job->id, std::move(token)});
  if (stops_.matched()) finishReason_ = FinishReason::stop;
  else if (full(completionTokens_)) finishReason_ = FinishReason::length;
}

void Sequence::end(std::vector<Event>& out) {
  EndEvent end;
  if (!stops_.matched()) end.text = stops_.push(utf8_.flush());
  if (!stops_.matched()) end.text += stops_.flush();
  end.finishReason = stops_.matched() ? FinishReason::stop : finishReason_;
  end.imageTokens = prompt.imageTokens;
  end.promptTokens = prompt.prefix - prompt.imageTokens;
  end.completionTokens = completionTokens_;
  timings.decodeMs = milliseconds(firstToken_);
  end.timings = timings;
  out.push_back({job->id, std::move(end)});
}

}  // namespace pg
