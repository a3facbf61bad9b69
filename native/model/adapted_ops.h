#pragma once
// The matrix ops of the forward pass with what adapters add to them: base product first, then B (A x) for those rows
// whose request has one. Rows without adapters get exactly what Device gives them.
#include <span>
#include <vector>

#include "device/arena.h"
#include "model/adapters.h"

namespace pg {

// Consecutive rows that share a choice of adapters; set is null for none.
struct AdapterRows {
  const AdapterSet* set;
  int64_t row, rows;
};

class AdaptedOps {
 public:
  explicit AdaptedOps(Device& device) : device_(device), arena_(device) {}

  // As Device's. `groups` cover all rows of x, in order; empty: no adapters at all.
  void matmul(ConstView x, std::span<const MatmulJob> jobs, std::span<const AdapterRows> groups);
  // All rows with the same choice; nullptr for none.
  void matmul(ConstView x, std::span<const MatmulJob> jobs, const AdapterSet* adapters) {
    const AdapterRows all{adapters, 0, x.rows};
    matmul(x, jobs, std::span(&all, adapters ? size_t(1) : size_t(0)));
  }
  void geglu(View out, ConstView x, const Linear& gate, const Linear& up, std::span<const AdapterRows> groups);

 private:
  void reserve(std::span<const AdapterRows> groups);
  void addUpdates(ConstView x, std::span<const MatmulJob> jobs, std::span<const AdapterRows> groups);

  Device& device_;
  Arena arena_;     // A x
  Buffer wide_;     // the up branch of a gated feed-forward
};

}  // namespace pg
