// Any bytes as a GGUF: its head, its metadata, and all values of its tensors.
#include "format/gguf.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string path = pg::fuzz::written(data, size);
  try {
    const auto file = pg::GgufFile::open(path);
    for (const auto& [key, value] : file->metadata()) {
      const auto* array = std::get_if<pg::GgufArray>(&value.value);
      if (!array) continue;
      if (array->elementType == pg::GgufType::string) array->strings();
      else if (array->elementType == pg::GgufType::array) array->arrays();
      else
        for (uint64_t i = 0; i < array->count; ++i) array->number(i);
    }
    for (const auto& tensor : file->tensors()) file->checkFinite(tensor);
  } catch (const pg::Error&) {
    return 0;
  }
  return 0;
}
