#pragma once
// The one exception of the engine: a stable code for programs and a message for people.
#include <exception>
#include <sstream>
#include <string>
#include <utility>

namespace pg {

// Mirrored by ErrorCode in lib/base/errors.ts; codeName() gives the spelling users see.
enum class Code {
  modelNotFound,
  modelInvalid,
  modelUnsupported,
  imageInvalid,
  imageTooLarge,
  promptTooLong,
  invalidOption,
  outOfMemory,
  deviceUnavailable,
  modelChanged,
  disposed,
  aborted,   // never reaches a user as an error: the caller's own AbortSignal reason is thrown instead
  internal,  // a mistake of ours
};

inline const char* codeName(Code code) {
  switch (code) {
    case Code::modelNotFound: return "ERR_MODEL_NOT_FOUND";
    case Code::modelInvalid: return "ERR_MODEL_INVALID";
    case Code::modelUnsupported: return "ERR_MODEL_UNSUPPORTED";
    case Code::imageInvalid: return "ERR_IMAGE_INVALID";
    case Code::imageTooLarge: return "ERR_IMAGE_TOO_LARGE";
    case Code::promptTooLong: return "ERR_PROMPT_TOO_LONG";
    case Code::invalidOption: return "ERR_INVALID_OPTION";
    case Code::outOfMemory: return "ERR_OUT_OF_MEMORY";
    case Code::deviceUnavailable: return "ERR_DEVICE_UNAVAILABLE";
    case Code::modelChanged: return "ERR_MODEL_CHANGED";
    case Code::disposed: return "ERR_DISPOSED";
    case Code::aborted: return "ERR_ABORTED";
    case Code::internal: return "ERR_INTERNAL";
  }
  return "ERR_INTERNAL";
}

class Error : public std::exception {
 public:
  Error(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  Code code() const noexcept { return code_; }
  const std::string& message() const noexcept { return message_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  Code code_;
  std::string message_;
};

// fail(Code::modelInvalid, path, ": tensor ", name, " ends at byte ", end, " of ", size)
template <class... Parts>
[[noreturn]] void fail(Code code, const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw Error(code, text.str());
}

}  // namespace pg
