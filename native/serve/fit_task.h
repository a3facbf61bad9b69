#pragma once
// Training as requests: a session holds the adapter that is trained; its examples and its optimizer steps are requests
// of their own, so that others have their turns between them.
#include <memory>

#include "serve/task.h"

namespace pg {

// Fails with invalidOption for a session that is not there.
std::unique_ptr<Task> makeFitTask(const Training& fit, Sequence& sequence, Model& model);

}  // namespace pg
