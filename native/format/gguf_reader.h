#pragma once
// Reads a GGUF's head byte by byte; whoever asks for more than there is gets an error that says where and what.
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "base/error.h"

namespace pg {

class GgufReader {
 public:
  GgufReader(const std::string& path, const uint8_t* data, uint64_t size) : path_(path), data_(data), size_(size) {}

  uint64_t position() const { return position_; }
  uint64_t left() const { return size_ - position_; }
  const uint8_t* here() const { return data_ + position_; }

  template <class... Parts>
  [[noreturn]] void invalid(const Parts&... parts) const {
    fail(Code::modelInvalid, path_, ": ", parts...);
  }

  // The next `bytes` bytes hold `what` (message parts), or the file is too short.
  template <class... What>
  const uint8_t* take(uint64_t bytes, const What&... what) {
    if (bytes > left())
      invalid("the file ends at byte ", size_, " inside ", what..., ", which needs ", bytes, " bytes from byte ",
              position_, ": ", bytes - left(),
              " bytes are missing, so the download is incomplete or the file is damaged");
    const uint8_t* p = here();
    position_ += bytes;
    return p;
  }

  template <class T, class... What>
  T number(const What&... what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what...), sizeof value);
    return value;
  }

  template <class... What>
  std::string_view string(const What&... what) {
    const uint64_t at = position_;
    const auto length = number<uint64_t>("the length of ", what...);
    if (length > left())
      invalid(what..., " (at byte ", at, ") claims ", length, " bytes but only ", left(),
              " are left: the download is incomplete or the file is damaged");
    return {reinterpret_cast<const char*>(take(length, what...)), size_t(length)};
  }

 private:
  const std::string& path_;
  const uint8_t* data_;
  uint64_t size_;
  uint64_t position_ = 0;
};

}  // namespace pg
