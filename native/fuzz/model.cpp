// A whole model with some of its bytes changed and perhaps its end cut off: loading, and a text through its tokenizer.
#include <fstream>
#include <iterator>
#include <vector>

#include "fuzz.h"
#include "serve/load/model.h"
#include "tiny_gguf.h"

namespace {

std::vector<uint8_t> tinyModel() {
  const std::string path = pg::test::TinyModel().write(pg::fuzz::written(nullptr, 0));
  std::ifstream in(path, std::ios::binary);
  return std::vector<uint8_t>(std::istreambuf_iterator<char>(in), {});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<uint8_t> whole = tinyModel();
  std::vector<uint8_t> bytes = whole;
  pg::fuzz::Input input(data, size);
  const uint8_t how = input.byte();
  const uint32_t cut = how < 32 ? input.number() : 0;  // rarely: most of what is cut is refused at once
  // Changes lie in the head: what of the tensors is changed is a weight.
  const size_t head = std::min<size_t>(bytes.size(), 16384);
  while (!input.empty()) {
    const size_t at = input.number() % head;
    bytes[at] = input.byte();
  }
  bytes.resize(bytes.size() - cut % bytes.size());
  try {
    pg::LoadOptions options;
    options.path = pg::fuzz::written(bytes.data(), bytes.size());
    options.device = "cpu";
    options.threads = 1;
    options.maxSequences = 1;
    if (how & 32) options.contextSize = 5;
    if (how & 64) options.kvCacheType = pg::DType::q8_0;
    options.importance = how & 128;
    const std::unique_ptr<pg::Model> model = pg::Model::load(options);
    const std::vector<int32_t> ids = model->tokenizer->encode("caption en", true);
    model->tokenizer->decode(ids.data(), ids.size());
    model->throwIfChanged(true);
  } catch (const pg::Error&) {
    return 0;
  } catch (const std::bad_alloc&) {
    return 0;   // a claim that the bytes bear out, more than this process may have
  }
  return 0;
}
