#pragma once
// Reference data for the tests: finds the folder, reads its JSON and safetensors files.
//
// The folder is $PALIGEMMA_SHARED, or `shared` beside the repository; a part of it travels in test/fixtures/golden.
// Tests whose data is in neither do nothing.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "temporary.h"

namespace pg::test {

// Where the repository lies, as the build knew it (main.cpp); a __FILE__ may be relative to anything.
std::filesystem::path repository();

// The folder `golden` with the whole set, or empty.
inline std::filesystem::path wholeSet() {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (const char* set = std::getenv("PALIGEMMA_SHARED"))
    if (fs::is_directory(fs::path(set) / "golden", ignored)) return fs::path(set) / "golden";
  for (const fs::path& candidate : {repository() / ".." / "shared" / "golden", fs::path("../shared/golden")})
    if (fs::is_directory(candidate, ignored)) return candidate.lexically_normal();
  return {};
}

// Path of a golden file ("gguf/meta.gguf"): from the whole set, else from the part in test/fixtures; empty where
// neither holds it and the test may be left out.
inline std::string golden(const std::string& name) {
  namespace fs = std::filesystem;
  const fs::path part = repository() / "test" / "fixtures" / "golden";
  std::error_code ignored;
  for (const fs::path& folder : {wholeSet(), part})
    if (!folder.empty() && fs::exists(folder / name, ignored)) return (folder / name).string();
  std::printf("skipped: no reference data for %s (set PALIGEMMA_SHARED)\n", name.c_str());
  return {};
}

inline std::string readFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Failure{path, "cannot be read"};
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// A JSON value. Objects keep their order out of the way in a map; numbers also keep their text.
struct Json {
  enum class Type { null, boolean, number, string, array, object } type = Type::null;
  bool boolean = false;
  double number = 0;
  std::string text;
  std::vector<Json> items;
  std::map<std::string, Json> fields;

  bool has(const std::string& key) const { return fields.count(key) != 0; }
  const Json& operator[](const std::string& key) const {
    const auto it = fields.find(key);
    if (it == fields.end()) throw Failure{"JSON", "no field " + key};
    return it->second;
  }
  const Json& operator[](size_t i) const {
    if (i >= items.size()) throw Failure{"JSON", "no element " + std::to_string(i)};
    return items[i];
  }
  size_t size() const { return items.size(); }
};

class JsonParser {
 public:
  explicit JsonParser(const std::string& text) : p_(text.c_str()), end_(p_ + text.size()) {}

  Json parse() {
    skip();
    Json j;
    if (*p_ == '{') {
      j.type = Json::Type::object;
      for (open('{'); !close('}'); comma('}')) {
        const std::string key = string();
        skip();
        expect(':');
        j.fields[key] = parse();
      }
    } else if (*p_ == '[') {
      j.type = Json::Type::array;
      for (open('['); !close(']'); comma(']')) j.items.push_back(parse());
    } else if (*p_ == '"') {
      j.type = Json::Type::string;
      j.text = string();
    } else if (word("true") || word("false")) {
      j.type = Json::Type::boolean;
      j.boolean = p_[-2] == 'u';
    } else if (word("null")) {
    } else if (word("NaN")) {
      j.type = Json::Type::number;
      j.number = NAN;
    } else {
      char* after = nullptr;
      j.type = Json::Type::number;
      j.number = std::strtod(p_, &after);
      if (after == p_) throw Failure{"JSON", "unexpected text: " + std::string(p_).substr(0, 20)};
      j.text.assign(p_, size_t(after - p_));
      p_ = after;
    }
    return j;
  }

 private:
  void skip() {
    while (p_ < end_ && std::strchr(" \t\r\n", *p_)) ++p_;
  }
  void expect(char c) {
    if (*p_ != c) throw Failure{"JSON", std::string("expected ") + c};
    ++p_;
  }
  void open(char c) {
    expect(c);
    skip();
  }
  bool close(char c) {
    if (*p_ != c) return false;
    ++p_;
    return true;
  }
  void comma(char closing) {
    skip();
    if (*p_ == closing) return;
    expect(',');
    skip();
  }
  bool word(const char* w) {
    if (std::strncmp(p_, w, std::strlen(w)) != 0) return false;
    p_ += std::strlen(w);
    return true;
  }
  uint32_t hex4() {
    const uint32_t code = uint32_t(std::strtoul(std::string(p_, p_ + 4).c_str(), nullptr, 16));
    p_ += 4;
    return code;
  }
  std::string string() {
    expect('"');
    std::string out;
    while (p_ < end_ && *p_ != '"') {
      if (*p_ != '\\') {
        out += *p_++;
        continue;
      }
      ++p_;
      const char c = *p_++;
      if (c != 'u') {
        out += c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c == 'b' ? '\b' : c == 'f' ? '\f' : c;
        continue;
      }
      uint32_t code = hex4();
      if (code >= 0xd800 && code < 0xdc00 && p_[0] == '\\' && p_[1] == 'u') {
        p_ += 2;
        code = 0x10000 + ((code - 0xd800) << 10) + (hex4() - 0xdc00);
      }
      if (code < 0x80) out += char(code);
      else if (code < 0x800) out += {char(0xc0 | code >> 6), char(0x80 | (code & 63))};
      else if (code < 0x10000)
        out += {char(0xe0 | code >> 12), char(0x80 | (code >> 6 & 63)), char(0x80 | (code & 63))};
      else
        out += {char(0xf0 | code >> 18), char(0x80 | (code >> 12 & 63)), char(0x80 | (code >> 6 & 63)),
                char(0x80 | (code & 63))};
    }
    expect('"');
    return out;
  }

  const char* p_;
  const char* end_;
};

inline Json readJson(const std::string& path) { return JsonParser(readFile(path)).parse(); }

// A safetensors file in memory.
class Safetensors {
 public:
  struct Tensor {
    std::string dtype;            // "F32", "I64", ...
    std::vector<int64_t> shape;   // outermost first
    const uint8_t* data;
    size_t bytes;
    int64_t elements() const {
      int64_t n = 1;
      for (int64_t d : shape) n *= d;
      return n;
    }
    // The values as T; the caller knows that dtype is T. Copied, because the file need not be aligned.
    template <class T>
    std::vector<T> values() const {
      if (bytes % sizeof(T)) throw Failure{"safetensors", dtype + " read as another type"};
      std::vector<T> v(bytes / sizeof(T));
      if (bytes) std::memcpy(v.data(), data, bytes);
      return v;
    }
    std::vector<float> floats() const {
      if (dtype != "F32") throw Failure{"safetensors", dtype + " read as F32"};
      return values<float>();
    }
  };

  explicit Safetensors(const std::string& path) : bytes_(readFile(path)) {
    uint64_t header = 0;
    if (bytes_.size() < 8) throw Failure{path, "too short"};
    std::memcpy(&header, bytes_.data(), 8);
    if (header > bytes_.size() - 8) throw Failure{path, "too short for its header"};
    const Json index = JsonParser(bytes_.substr(8, header)).parse();
    for (const auto& [name, entry] : index.fields) {
      if (name == "__metadata__") continue;
      Tensor t;
      t.dtype = entry["dtype"].text;
      for (const Json& d : entry["shape"].items) t.shape.push_back(int64_t(d.number));
      const auto begin = size_t(entry["data_offsets"][0].number), end = size_t(entry["data_offsets"][1].number);
      if (begin > end || end > bytes_.size() - 8 - header) throw Failure{path, name + " ends outside the file"};
      t.data = reinterpret_cast<const uint8_t*>(bytes_.data()) + 8 + header + begin;
      t.bytes = end - begin;
      tensors_[name] = t;
    }
  }
  Safetensors(const Safetensors&) = delete;
  Safetensors& operator=(const Safetensors&) = delete;

  bool has(const std::string& name) const { return tensors_.count(name) != 0; }
  const Tensor& operator[](const std::string& name) const {
    const auto it = tensors_.find(name);
    if (it == tensors_.end()) throw Failure{"safetensors", "no tensor " + name};
    return it->second;
  }
  const std::map<std::string, Tensor>& all() const { return tensors_; }

 private:
  std::string bytes_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace pg::test
