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
  const Dropout dropout = lora_.set()->dropout(pair);
  const View kept = drops() ? arena.take(x.rows, x.cols) : View();
  if (kept) device_.dropout(kept, x, dropout);
  const ConstView seen = kept ? ConstView(kept) : x;
  const MatmulJob down{u, &pair.down};
  device_.matmul(seen, {&down, 1});
  device_.matmulGrad(du, dy, pair.up);
  device_.addOuter(gradients->b, dy, u, float(lora_.scale()));
  device_.addOuter(gradients->a, du, seen, 1);
  if (!dx) return;
  if (!kept) return device_.matmulGrad(dx, du, pair.down, true);
  device_.matmulGrad(kept, du, pair.down);
  device_.dropout(dx, kept, dropout, true);
}

size_t LinearGrad::scratchBytes(int64_t rows) const {
  return 2 * Arena::sizeOf(rows, lora_.largestRank()) + (drops() ? Arena::sizeOf(rows, lora_.set()->widestInput()) : 0);
}

}  // namespace pg
