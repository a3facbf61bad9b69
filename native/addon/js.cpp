#include "addon/js.h"

namespace pg::js {

napi_value newError(napi_env env, Code code, const std::string& message) noexcept {
  napi_value name, text, error;
  if (napi_create_string_utf8(env, codeName(code), NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_string_utf8(env, message.data(), message.size(), &text) != napi_ok ||
      napi_create_error(env, name, text, &error) != napi_ok)
    return nullptr;
  return error;
}

}  // namespace pg::js
