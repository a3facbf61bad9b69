#include "base/current_error.h"

#include <new>
#include <stdexcept>

namespace pg {

Error currentError() noexcept {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return {Code::outOfMemory,
            "Not enough memory for this. Close other programs, lower contextSize or maxSequences, or ask for less at "
            "once"};
  } catch (const std::length_error&) {
    return {Code::outOfMemory, "Not enough memory: a size is beyond what this machine can address"};
  } catch (const std::exception& error) {
    return {Code::internal, error.what()};
  } catch (...) {
    return {Code::internal, "Unknown native exception"};
  }
}

}  // namespace pg
