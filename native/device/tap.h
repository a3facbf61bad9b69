#pragma once
// Sees what a device is asked to do, before it does it: for measuring, tracing and tests. Devices without one pay a
// comparison an op.
#include <span>

#include "device/view.h"

namespace pg {

class Device;
struct Linear;

class Tap {
 public:
  virtual ~Tap() = default;
  virtual void allocate(size_t /*bytes*/) {}
  // An op by its name in Device, and what it will write.
  virtual void op(const char* /*name*/, ConstView /*out*/) {}
  // Rows of x are about to enter these matrices; the outputs may take x's place.
  virtual void products(Device&, ConstView /*x*/, std::span<const Linear* const>) {}
};

}  // namespace pg
