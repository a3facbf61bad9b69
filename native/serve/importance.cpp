#include "serve/importance.h"

namespace pg {

std::vector<Stage> importanceOf(const Weights& weights, const InputObserver& observer) {
  std::vector<Stage> stages;
  weights.eachMatrix([&](const std::string& name, const Linear& linear) {
    const InputObserver::Inputs* inputs = observer.inputs(linear);
    if (!inputs) return;
    const InputObserver::Kind kinds[] = {inputs->pictures, inputs->words};
    const int64_t rows = kinds[0].rows + kinds[1].rows;
    const int count = (kinds[0].rows > 0) + (kinds[1].rows > 0);
    std::vector<float> squares(size_t(linear.in()));
    for (size_t c = 0; c < squares.size(); ++c) {
      double mean = 0;
      for (const auto& kind : kinds)
        if (kind.rows > 0) mean += kind.squares[c] / double(kind.rows) / count;
      squares[c] = float(mean * double(rows));
    }
    stages.push_back({name + ".weight", rows, int64_t(squares.size()), std::move(squares)});
  });
  return stages;
}

}  // namespace pg
