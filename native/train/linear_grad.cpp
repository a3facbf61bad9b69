#include "train/linear_grad.h"

namespace pg {

void LinearGrad::operator()(Arena& arena, View dx, ConstView dy, ConstView x, const Linear& linear, bool add) const {
  if (dx) device_.matmulGrad(dx, dy, linear, add);
  const Lora::Gradients* gradients = lora_.find(&linear);
  if (!gradients) return;
  const AdapterSet::Product& pair = *lora_.set()->find(&linear);   // its B holds the scale
  const int64_t rank = pair.down.out();
  Arena::Scope scope(arena);
  const View u = arena.take(x.rows, rank), du = arena.take(x.rows, rank);
  const MatmulJob down{u, &pair.down};
  device_.matmul(x, {&down, 1});
  device_.matmulGrad(du, dy, pair.up);
  device_.addOuter(gradients->b, dy, u, float(lora_.scale()));
  device_.addOuter(gradients->a, du, x, 1);
  if (dx) device_.matmulGrad(dx, du, pair.down, true);
}

}  // namespace pg
