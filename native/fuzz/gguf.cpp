// Any bytes as a GGUF: its head, its metadata, and all values of its tensors.
#include "format/gguf.h"
#include "fuzz.h"

namespace {

// A look-up by the wrong type is refused, by the right one it answers.
template <class LookUp>
void tried(LookUp&& lookUp) {
  try {
    lookUp();
  } catch (const pg::Error&) {}
}

void lookUp(const pg::GgufFile& file, std::string_view key) {
  tried([&] { file.integer(key); });
  tried([&] { file.number(key); });
  tried([&] { file.boolean(key); });
  tried([&] { file.string(key); });
  tried([&] { file.array(key); });
}

// As each kind of element, right or not.
void readAll(const pg::GgufArray& array) {
  tried([&] { array.strings(); });
  tried([&] { array.arrays(); });
  for (uint64_t i = 0; i < array.count && i < 4; ++i) tried([&] { array.integer(i); }), tried([&] { array.number(i); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string path = pg::fuzz::written(data, size);
  try {
    const auto file = pg::GgufFile::open(path);
    for (const auto& [key, value] : file->metadata()) {
      lookUp(*file, key);
      const auto* array = std::get_if<pg::GgufArray>(&value.value);
      if (!array) continue;
      readAll(*array);
      if (array->elementType == pg::GgufType::string) array->strings();
      else if (array->elementType == pg::GgufType::array) array->arrays();
      else
        for (uint64_t i = 0; i < array->count; ++i) array->number(i);
    }
    lookUp(*file, "no such key");
    for (const auto& tensor : file->tensors()) {
      pg::fuzz::must(file->findTensor(tensor.name) == &tensor, "a tensor is found by its name");
      pg::fuzz::must(file->view(tensor).rows == tensor.rows(), "a view has the tensor's rows");
      file->checkFinite(tensor);
    }
  } catch (const pg::Error&) {
    return 0;
  }
  return 0;
}
