#pragma once
// What the fuzz targets share. Each is a libFuzzer entry: `npm run fuzz` builds and runs them, docs/reliability.md says
// what they found. Refusing an input with an Error is right; crashing, hanging or breaking a property is not.
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/error.h"

namespace pg::fuzz {

// A file of this process alone, gone when it ends.
inline const std::string& ownFile() {
  static const struct Own {
    const std::string path =
        (std::filesystem::temp_directory_path() / ("paligemma-fuzz-" + std::to_string(getpid()))).string();
    ~Own() { std::remove(path.c_str()); }
  } own;
  return own.path;
}

// That file with these bytes, written anew each time.
inline std::string written(const uint8_t* data, size_t size) {
  const std::string& path = ownFile();
  std::FILE* out = std::fopen(path.c_str(), "wb");
  if (!out || std::fwrite(data, 1, size, out) != size || std::fclose(out) != 0) std::abort();
  return path;
}

// Parts of a file that a target makes: a number as it lies in memory, and a text behind its length.
template <class T>
void put(std::string& to, T value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}
inline void putText(std::string& to, std::string_view value) { put(to, uint64_t(value.size())), to += value; }

// A property that must hold whatever came in.
inline void must(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

// Numbers and texts from the input; zeros and nothing at its end.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(reinterpret_cast<const char*>(data), size) {}

  uint8_t byte() {
    if (rest_.empty()) return 0;
    const uint8_t value = uint8_t(rest_.front());
    rest_.remove_prefix(1);
    return value;
  }
  uint32_t number() {
    uint32_t value = 0;
    for (int i = 0; i < 4; ++i) value = value << 8 | byte();
    return value;
  }
  // Up to a line feed.
  std::string_view line() {
    const size_t end = rest_.find('\n');
    const std::string_view text = rest_.substr(0, end);
    rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
    return text;
  }
  std::string_view rest() const { return rest_; }
  bool empty() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

}  // namespace pg::fuzz
