#include "serve/fit_task.h"

#include <algorithm>
#include <cmath>

namespace pg {
namespace {

class ExampleTask : public Task {
 public:
  ExampleTask(Trainer& trainer, const FitExample& example, Sequence& sequence, Model& model)
      : trainer_(trainer), example_(example), sequence_(sequence), model_(model) {}

  bool takesPixels() const override { return trainer_.lora().trainsVision(); }
  bool worksAlone() const override { return true; }
  bool step(EndEvent& end) override {
    if (!begun_) return begin(), false;
    if (!trainer_.step()) return false;
    double sum = 0;
    for (const float loss : trainer_.losses()) sum += double(loss);
    if (!std::isfinite(sum))
      fail(Code::modelInvalid, "The loss is not a number any more. Lower learningRate, or set clip");
    end.completionTokens = int64_t(trainer_.losses().size());
    end.values = {sum};
    return true;
  }
  bool passEnded(std::span<const float>, EndEvent&) override { return true; }

 private:
  void begin() {
    begun_ = true;
    TrainExample work{sequence_.prompt.ids, sequence_.prompt.prefix, {}, {}, example_.train, example_.dropout};
    for (const ImageSource& image : sequence_.job->request.images)
      if (takesPixels()) work.pixels.push_back(image.pixels.data());
    for (const auto& features : sequence_.images) work.features.push_back(model_.featureView(*features));
    trainer_.begin(std::move(work));
  }

  Trainer& trainer_;
  const FitExample& example_;
  Sequence& sequence_;
  Model& model_;
  bool begun_ = false;
};

void addTensors(EndEvent& end, TensorMap tensors, const std::string& suffix = {}) {
  for (auto& [name, tensor] : tensors)
    end.stages.push_back({name + suffix, tensor.shape[0], tensor.shape[1], std::move(tensor.data)});
}

// What takes no pass through the model.
class SessionTask : public Task {
 public:
  SessionTask(const Training& fit, Model& model) : fit_(fit), model_(model) {}

  bool endsAfterVision(EndEvent& end) override {
    std::visit([&](const auto& action) { run(action, end); }, fit_.action);
    return true;
  }
  bool passEnded(std::span<const float>, EndEvent&) override { return true; }

 private:
  Trainer& trainer() const { return *model_.trainers.at(fit_.session); }

  void run(const FitBegin& begin, EndEvent& end) {
    const TrainedNet net{*model_.device,      model_.weights,  model_.textConfig,
                         model_.visionConfig, *model_.decoder, model_.vision.get()};
    model_.trainers[fit_.session] = std::make_unique<Trainer>(net, begin.start, model_.info.contextSize);
    const Lora& lora = trainer().lora();
    end.values = {double(lora.parameters()), double(lora.trainsVision())};
  }
  void run(const FitExample&, EndEvent&) {}  // a task of its own
  void run(const FitUpdate& update, EndEvent& end) { end.values = {trainer().update(update.step)}; }
  void run(const FitRead& read, EndEvent& end) {
    addTensors(end, trainer().lora().tensors(read.moments));
    if (read.gradients) addTensors(end, trainer().lora().gradients(), ".gradient");
  }
  void run(const FitEnd&, EndEvent&) { model_.trainers.erase(fit_.session); }

  const Training& fit_;
  Model& model_;
};

}  // namespace

std::unique_ptr<Task> makeFitTask(const Training& fit, Sequence& sequence, Model& model) {
  const bool begins = std::holds_alternative<FitBegin>(fit.action), ends = std::holds_alternative<FitEnd>(fit.action);
  const auto trainer = model.trainers.find(fit.session);
  if ((trainer != model.trainers.end()) == begins && !ends)
    fail(Code::invalidOption, "Session ", fit.session, begins ? " is training already" : " is not training");
  if (const auto* example = std::get_if<FitExample>(&fit.action)) {
    for (const ImageSource& image : sequence.job->request.images)
      if (trainer->second->lora().trainsVision() && image.pixels.empty())
        fail(Code::invalidOption,
             "Expected pictures in the examples but received an ImageEmbedding: the adapter changes the vision tower, "
             "so that it needs the pixels");
    return std::make_unique<ExampleTask>(*trainer->second, *example, sequence, model);
  }
  return std::make_unique<SessionTask>(fit, model);
}

}  // namespace pg
