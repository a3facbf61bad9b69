#include "train/suffix_loss.h"

#include <algorithm>

namespace pg {
namespace {

constexpr int64_t kRows = 32;   // 33 MB of PaliGemma's logits

}  // namespace

size_t SuffixLoss::scratchBytes(int64_t rows) const {
  const int64_t most = std::min(rows, kRows);
  return 2 * Arena::sizeOf(most, config_.hidden) + Arena::sizeOf(most, config_.vocab) + Arena::sizeOf(most, 1) +
         Arena::sizeOf(most, 1, DType::i32);
}

std::vector<float> SuffixLoss::operator()(Arena& arena, View d, ConstView x, std::span<const int32_t> targets) const {
  std::vector<float> losses(targets.size());
  for (int64_t row = 0; row < x.rows; row += kRows) {
    const int64_t rows = std::min(kRows, x.rows - row);
    Arena::Scope scope(arena);
    const View normed = arena.take(rows, x.cols), dNormed = arena.take(rows, x.cols);
    const View logits = arena.take(rows, config_.vocab), losses32 = arena.take(rows, 1);
    const View ids = arena.take(rows, 1, DType::i32);
    const ConstView part = x.slice(row, rows);
    device_.upload(ids, targets.data() + row);
    device_.submit([&] {
      device_.rmsNorm(normed, part, weights_.outputNorm.weight, config_.normEps);
      const MatmulJob head{logits, &weights_.embedding};
      device_.matmul(normed, {&head, 1});
      if (softcap_ > 0) device_.softcap(logits, softcap_);
      device_.softmaxLoss(losses32, logits, ids, softcap_);
      if (!d) return;
      device_.matmulGrad(dNormed, logits, weights_.embedding);
      device_.rmsNormGrad(d.slice(row, rows), dNormed, part, weights_.outputNorm.weight, config_.normEps);
    });
    device_.download(losses.data() + row, losses32);
  }
  return losses;
}

}  // namespace pg
