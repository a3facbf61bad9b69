#pragma once
#include "base/error.h"

namespace pg {

// The exception being handled, as an Error: the one place that gives codes to what is not ours. Only in a catch block.
Error currentError() noexcept;

}  // namespace pg
