#pragma once
// The one exception of the engine: a stable code for programs and a message for people.
#include <exception>
#include <sstream>
#include <string>
#include <utility>

namespace pg {

// The codes that the engine uses, with the spelling that users see; lib/base/errors.ts has these and its own.
// aborted never reaches a user: the caller gets the reason of its own AbortSignal. internal is a mistake of ours.
#define PG_ERROR_CODES(X)                        \
  X(modelNotFound, "ERR_MODEL_NOT_FOUND")        \
  X(modelInvalid, "ERR_MODEL_INVALID")           \
  X(modelUnsupported, "ERR_MODEL_UNSUPPORTED")   \
  X(imageInvalid, "ERR_IMAGE_INVALID")           \
  X(imageTooLarge, "ERR_IMAGE_TOO_LARGE")        \
  X(promptTooLong, "ERR_PROMPT_TOO_LONG")        \
  X(invalidOption, "ERR_INVALID_OPTION")         \
  X(outOfMemory, "ERR_OUT_OF_MEMORY")            \
  X(deviceUnavailable, "ERR_DEVICE_UNAVAILABLE") \
  X(deviceLost, "ERR_DEVICE_LOST")               \
  X(modelChanged, "ERR_MODEL_CHANGED")           \
  X(disposed, "ERR_DISPOSED")                    \
  X(aborted, "ERR_ABORTED")                      \
  X(internal, "ERR_INTERNAL")

enum class Code {
#define PG_NAME(name, spelling) name,
  PG_ERROR_CODES(PG_NAME)
#undef PG_NAME
};

inline const char* codeName(Code code) {
  switch (code) {
#define PG_CASE(name, spelling) \
  case Code::name: return spelling;
    PG_ERROR_CODES(PG_CASE)
#undef PG_CASE
  }
  return codeName(Code::internal);
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
