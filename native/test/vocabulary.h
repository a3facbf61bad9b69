#pragma once
// Writes GGUF files that hold a tokenizer and nothing else.
#include <atomic>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "temporary.h"
#include "text/tokenizer.h"

namespace pg::test {

struct Vocabulary {
  struct Piece {
    std::string text;
    float score;
    int32_t type;  // 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
  };
  std::vector<Piece> pieces;
  std::string model = "llama";
  std::vector<std::pair<std::string, uint32_t>> ids{{"padding", 0}, {"eos", 1}, {"bos", 2}, {"unknown", 3}};
  std::string leaveOut;        // key without "tokenizer.ggml."
  size_t scoresMissing = 0;    // entries to leave out at the end

  // <pad> <eos> <bos> <unk>, user-defined newline runs and "▁▁", 256 bytes; merges follow with `add`.
  Vocabulary() {
    pieces = {{"<pad>", 0, 3},
              {"<eos>", 0, 3},
              {"<bos>", 0, 3},
              {"<unk>", 0, 2},
              {"\n", 0, 4},
              {"\n\n", 0, 4},
              {"\xe2\x96\x81\xe2\x96\x81", 0, 4}};
    for (int b = 0; b < 256; ++b) {
      char name[8];
      std::snprintf(name, sizeof name, "<0x%02X>", b);
      pieces.push_back({name, 0, 6});
    }
  }
  // Normal pieces in order of merging, best first; _ stands for U+2581.
  void add(const std::vector<std::string>& texts) {
    float score = 0;
    for (std::string text : texts) {
      for (size_t at; (at = text.find('_')) != std::string::npos;) text.replace(at, 1, "\xe2\x96\x81");
      pieces.push_back({text, score--, 1});
    }
  }
  void addLocations(int32_t type = 4) {
    char name[32];
    for (int i = 0; i < 1024; ++i) std::snprintf(name, sizeof name, "<loc%04d>", i), pieces.push_back({name, 0, type});
    for (int i = 0; i < 128; ++i) std::snprintf(name, sizeof name, "<seg%03d>", i), pieces.push_back({name, 0, type});
    pieces.push_back({"<image>", 0, 3});
  }

  Tokenizer open() const {
    const std::string path = write();
    auto file = GgufFile::open(path);
    std::error_code ignored;
    std::filesystem::remove(path, ignored);  // the map stays (Windows keeps the file instead)
    return Tokenizer(file);
  }

  std::string write() const {
    std::string keys;
    uint64_t count = 0;
    const auto put = [](std::string& to, const auto& value) {
      to.append(reinterpret_cast<const char*>(&value), sizeof value);
    };
    const auto text = [&](const std::string& s) { put(keys, uint64_t(s.size())), keys += s; };
    const auto key = [&](const std::string& name, uint32_t type) {
      if (name == leaveOut) return false;
      ++count;
      text("tokenizer.ggml." + name);
      put(keys, type);
      return true;
    };
    const auto array = [&](const std::string& name, uint32_t type, size_t n,
                           const std::function<void(size_t)>& element) {
      if (!key(name, 9)) return;
      put(keys, type), put(keys, uint64_t(n));
      for (size_t i = 0; i < n; ++i) element(i);
    };
    if (key("model", 8)) text(model);
    array("tokens", 8, pieces.size(), [&](size_t i) { text(pieces[i].text); });
    array("scores", 6, pieces.size() - scoresMissing, [&](size_t i) { put(keys, pieces[i].score); });
    array("token_type", 5, pieces.size(), [&](size_t i) { put(keys, pieces[i].type); });
    for (const auto& [name, id] : ids)
      if (key(name + "_token_id", 4)) put(keys, id);

    static std::atomic<int> number{0};
    const std::string path = temporaryPath("vocabulary-" + std::to_string(++number) + ".gguf");
    std::string header = "GGUF";
    put(header, uint32_t(3)), put(header, uint64_t(0)), put(header, count);
    std::ofstream(path, std::ios::binary) << header << keys;
    return path;
  }
};

}  // namespace pg::test
