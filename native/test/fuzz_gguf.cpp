// libFuzzer entry: clang++ -std=c++20 -g -fsanitize=fuzzer,address,undefined -Inative native/test/fuzz_gguf.cpp
//   native/base/mapped_file.cpp
//   native/format/{gguf,quantize,quantize_blocks,quantize_k,quantize_iq4,dequantize,dequantize_iq}.cpp
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/error.h"
#include "format/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string path =
      (std::filesystem::temp_directory_path() / ("fuzz-gguf-" + std::to_string(reinterpret_cast<uintptr_t>(&data))))
          .string();
  std::FILE* out = std::fopen(path.c_str(), "wb");
  if (!out || std::fwrite(data, 1, size, out) != size || std::fclose(out) != 0) std::abort();
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
    // rejecting is fine; crashing or reading outside the map is not
  }
  return 0;
}
