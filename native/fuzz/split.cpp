// Models in several files: parts with names, counts, numbers and tensors as the input says, opened by any of them.
#include <unistd.h>

#include <algorithm>

#include "format/gguf.h"
#include "fuzz.h"

namespace {

using pg::fuzz::put;
constexpr auto text = pg::fuzz::putText;

// The head of a GGUF with what `input` says of splits, and up to three tensors of a few names and of four bytes each.
std::string part(pg::fuzz::Input& input, uint64_t number, uint64_t count) {
  const uint8_t odd = input.byte();  // bits: what is not as it should be
  const uint64_t tensors = input.byte() % 4;
  std::string out = "GGUF";
  put(out, uint32_t(3)), put(out, tensors), put(out, uint64_t(odd & 1 ? 2 : 3));
  text(out, "split.no"), put(out, uint32_t(odd & 2 ? 5 : 4)), put(out, odd & 4 ? input.number() : uint32_t(number - 1));
  text(out, "split.count"), put(out, uint32_t(4)), put(out, odd & 8 ? input.number() : uint32_t(count));
  if (!(odd & 1))
    text(out, "split.tensors.count"), put(out, uint32_t(5)),
        put(out, odd & 16 ? int32_t(input.number()) : int32_t(count));
  for (uint64_t i = 0; i < tensors; ++i) {
    text(out, std::string(1, char('a' + input.byte() % 6)));
    put(out, uint32_t(1)), put(out, uint64_t(1)), put(out, uint32_t(0)), put(out, uint64_t(32 * i));
  }
  out.resize((out.size() + 31) / 32 * 32 + 32 * size_t(tensors), '\0');
  if (odd & 32) out.resize(std::min(out.size(), size_t(input.number() % 512)));
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace fs = std::filesystem;
  static const fs::path folder = fs::temp_directory_path() / ("paligemma-fuzz-split-" + std::to_string(getpid()));
  static const bool made = fs::create_directories(folder);
  (void)made;
  pg::fuzz::Input input(data, size);
  const uint64_t count = 1 + input.byte() % 4, opened = input.byte() % count;
  const uint8_t naming = input.byte();
  std::vector<fs::path> paths;
  for (uint64_t number = 1; number <= count; ++number) {
    char name[64];
    const char* form = naming & 1   ? "m-%llu-of-%llu.gguf"
                       : naming & 2 ? "-%05llu-of-%05llu"
                                    : "m-%05llu-of-%05llu.gguf";
    const auto shown = (naming & 4) && number == 2 ? 7ULL : (unsigned long long)number;
    std::snprintf(name, sizeof name, form, shown, (unsigned long long)count);
    std::string own = naming & 8 ? std::string(input.line().substr(0, 40)) + ".gguf" : name;
    std::replace(own.begin(), own.end(), '/', '_');
    paths.push_back(folder / own);
    if ((naming & 16) && number == count && number != opened + 1) continue;  // missing
    const std::string bytes = part(input, number, count);
    std::FILE* out = std::fopen(paths.back().c_str(), "wb");
    if (!out) continue;  // a name that no file can have
    std::fwrite(bytes.data(), 1, bytes.size(), out);
    std::fclose(out);
  }
  try {
    const auto file = pg::GgufFile::open(paths[opened].string());
    for (const auto& tensor : file->tensors()) {
      pg::fuzz::must(file->mapOf(file->view(tensor).data) != nullptr, "a tensor lies in one of the parts");
      file->checkFinite(tensor);
    }
    pg::fuzz::must(file->size() > 0, "the parts have a size");
    file->throwIfChanged(true);
  } catch (const pg::Error&) {}
  std::error_code ignored;
  for (const fs::path& path : paths) fs::remove(path, ignored);
  return 0;
}
