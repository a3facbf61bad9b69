// LoRA adapters for a tiny model: any metadata, names, shapes, types and values, or any bytes at all.
#include <array>
#include <cmath>
#include <memory>

#include "fuzz.h"
#include "model/adapters.h"
#include "serve/load/model.h"
#include "tiny_gguf.h"

namespace {

using pg::fuzz::put;
using pg::fuzz::putText;

const pg::Model& tiny() {
  static const std::unique_ptr<pg::Model> model = [] {
    pg::LoadOptions options;
    options.path = pg::test::TinyModel().write(pg::fuzz::written(nullptr, 0) + "-model");
    options.device = "cpu";
    options.threads = 1;
    options.maxSequences = 1;
    options.weights = pg::FileAccess::copy;
    std::unique_ptr<pg::Model> loaded = pg::Model::load(options);
    std::remove(options.path.c_str());
    return loaded;
  }();
  return *model;
}

constexpr std::array<const char*, 8> kTargets = {"blk.0.attn_q",   "blk.1.ffn_down",   "blk.0.ffn_up",
                                                 "v.blk.0.attn_q", "v.blk.1.ffn_down", "v.blk.0.ffn_up",
                                                 "token_embd",     "blk.0.attn_output"};
constexpr std::array<const char*, 3> kEndings = {".weight.lora_a", ".weight.lora_b", ".bias"};
constexpr std::array<uint8_t, 6> kSides = {2, 16, 32, 48, 64, 1};

// A GGUF as the input says: most of it as it should be, so that what is wrong is met alone.
std::string fileOf(pg::fuzz::Input& input) {
  const uint8_t odd = input.byte();  // bits: what is not as it should be
  const uint8_t count = input.byte() % 6;
  std::string out = "GGUF";
  put(out, uint32_t(3)), put(out, uint64_t(count)), put(out, uint64_t(odd & 1 ? 5 : 4));
  const auto text = [&](const char* key, std::string_view value) {
    putText(out, key), put(out, uint32_t(8)), putText(out, value);
  };
  text("general.type", odd & 2 ? input.line() : "adapter");
  text("adapter.type", odd & 4 ? input.line() : "lora");
  text("general.architecture", odd & 8 ? input.line() : "gemma2");
  putText(out, "adapter.lora.alpha"), put(out, uint32_t(odd & 16 ? 5 : 6)),
      put(out, odd & 32 ? input.number() : 0x40000000u);
  if (odd & 1) text("adapter.alora.invocation_tokens", "x");
  std::vector<uint64_t> sizes;
  uint64_t at = 0;
  for (uint8_t i = 0; i < count; ++i) {
    const uint8_t which = input.byte(), shape = input.byte();
    putText(out, std::string(kTargets[which % kTargets.size()]) + kEndings[which / 8 % kEndings.size()]);
    const uint64_t cols = kSides[shape % 8 % kSides.size()], rows = kSides[shape / 8 % kSides.size()];
    const uint32_t dims = shape >= 192 ? 1 : 2;
    put(out, dims), put(out, cols);
    if (dims == 2) put(out, rows);
    put(out, uint32_t(which >= 192 ? 1 : 0)), put(out, at);
    at += (cols * (dims == 2 ? rows : 1) * (which >= 192 ? 2 : 4) + 31) / 32 * 32;
  }
  const uint8_t value = input.byte();
  out.resize((out.size() + 31) / 32 * 32 + at, char(value));  // 0xff: NaN
  return out;
}

// All, the first by its scale (made, then found again), none; and twice, one that there is not, and beyond numbers.
void chooseAll(pg::Adapters& adapters) {
  adapters.choose(nullptr);
  const std::vector<std::vector<pg::AdapterUse>> choices{{{0, 0.5f}}, {{0, 0.5f}},      {},
                                                         {{7, 1}},    {{0, 1}, {0, 1}}, {{0, INFINITY}}};
  for (const auto& uses : choices) {
    try {
      adapters.choose(&uses);
    } catch (const pg::Error& error) {
      pg::fuzz::must(error.code() == pg::Code::invalidOption, "a wrong choice is a wrong option");
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  pg::fuzz::Input input(data, size);
  const bool raw = input.byte() == 255;
  const std::string bytes = raw ? std::string(input.rest()) : fileOf(input);
  pg::AdapterSource source;
  source.name = "fuzzed";
  source.path = pg::fuzz::written(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  pg::Adapters adapters(*tiny().device);
  try {
    const size_t index = adapters.load(source, tiny().weights, tiny().textConfig.architecture);
    const pg::AdapterInfo info = adapters.info().at(index);
    pg::fuzz::must(info.rank > 0 && info.targets > 0 && info.parameters > 0, "what is loaded changes something");
    chooseAll(adapters);
  } catch (const pg::Error&) {}
  return 0;
}
