#pragma once
// What an observed model has seen of the inputs of its matrices.
#include <vector>

#include "device/input_observer.h"
#include "serve/event.h"
#include "model/weights.h"

namespace pg {

// One stage per matrix that was used: its tensor's name, rows seen, columns, and of each column the rows' number times
// the mean square. In that mean pictures and words count half each, however many rows they had: a picture has hundreds
// of tokens, words have a dozen, other columns matter to them, and the answer depends on both.
std::vector<Stage> importanceOf(const Weights& weights, const InputObserver& observer);

}  // namespace pg
