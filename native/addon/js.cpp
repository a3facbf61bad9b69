#include "addon/js.h"

#include <stdexcept>

namespace pg::js {

napi_value newError(napi_env env, Code code, const std::string& message) noexcept {
  napi_value name, text, error;
  if (napi_create_string_utf8(env, codeName(code), NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_string_utf8(env, message.data(), message.size(), &text) != napi_ok ||
      napi_create_error(env, name, text, &error) != napi_ok)
    return nullptr;
  return error;
}

Error currentError() noexcept {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return {Code::outOfMemory, "Not enough memory for this. Close other programs, or ask for less at once"};
  } catch (const std::length_error&) {
    return {Code::outOfMemory, "Not enough memory: a size is beyond what this machine can address"};
  } catch (const std::exception& error) {
    return {Code::internal, error.what()};
  } catch (...) {
    return {Code::internal, "Unknown native exception"};
  }
}

}  // namespace pg::js
