// Whole models on GPUs: of odd shapes and every kind of weight, against the scalar CPU; and through CUDA's driver and a
// library that has our kernels, bit for bit what the emulator's own driver gives.
#include <cstdio>
#include <filesystem>

#include "cuda_fixture.h"
#include "ops_fixture.h"
#include "serve/load/check_device.h"
#include "serve/load/model.h"
#include "tiny_gguf.h"

using namespace pg;

namespace {

std::unique_ptr<Device> onDriver(std::unique_ptr<gpu::Driver> driver) {
  return std::make_unique<gpu::GpuDevice>(std::move(driver));
}

// As the library's card is.
std::unique_ptr<gpu::Driver> emulator() {
  return std::make_unique<gpu::EmulatedDriver>(gpu::EmulatorOptions{.groupMemoryBytes = 99 << 10});
}

// What a model says of a picture and a few tokens: features, logits of the prefill and of steps of one and two rows.
std::vector<float> numbersOf(Model& model) {
  const int64_t side = model.visionConfig.imageSize;
  std::vector<uint8_t> pixels(size_t(side * side * 3));
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = uint8_t(i * 7919 % 251);
  const int64_t vocab = model.textConfig.vocab, tokens = model.visionConfig.tokens, hidden = model.textConfig.hidden;
  std::vector<float> all(size_t(tokens * hidden)), logits(size_t(2 * vocab));
  model.vision->begin(pixels.data(), nullptr);
  while (!model.vision->step()) {}
  const Buffer features = model.device->allocate(all.size() * sizeof(float));
  const View view = features.view(DType::f32, tokens, hidden);
  model.vision->finish(view);
  model.device->download(all.data(), view);

  std::vector<int32_t> ids(size_t(tokens), Decoder::kImageRow);
  for (const int32_t id : {2, 10, 20, 30, 4}) ids.push_back(id);
  const auto length = int64_t(ids.size());
  const ConstView images[] = {view};
  KvSequence first(*model.kvPool), second(*model.kvPool);
  for (KvSequence* kv : {&first, &second}) {
    model.decoder->beginPrefill(*kv, ids, images, length, nullptr);
    while (!model.decoder->stepPrefill()) {}
    model.decoder->prefillLogits(length - 1, 1, logits.data());
    all.insert(all.end(), logits.begin(), logits.begin() + vocab);
  }
  for (int32_t i = 0; i < 6; ++i) {
    // alone, then in company of one that begins
    const DecodeRow rows[] = {{&first, 40 + i, length + i, length}, {&second, 90 - i, length + i - 3, length}};
    model.decoder->decode(std::span(rows).first(i < 3 ? 1 : 2), logits.data());
    all.insert(all.end(), logits.begin(), logits.begin() + vocab * (i < 3 ? 1 : 2));
  }
  return all;
}

std::vector<float> numbersOn(std::unique_ptr<Device> device, const std::string& path, DType kvType,
                             AttentionWindow window = AttentionWindow::none) {
  Model model({.path = path, .kvCacheType = kvType, .attentionWindow = window}, std::move(device));
  return numbersOf(model);
}

void checkNothingLeft(const FakeCuda& fake) {
  CHECK_EQUAL(fake.used, 0u);
  for (const int left : {fake.retained, fake.streams, fake.modules, fake.pinned, fake.events, fake.pushed, fake.graphs})
    CHECK_EQUAL(left, 0);
}

struct Shape {
  test::TinyModel model;
  DType kvType = DType::f16;
  AttentionWindow window = AttentionWindow::none;
};

// Under sanitizers an emulated model takes twenty times as long: of many like it they see one in four.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kEach = 4;
#else
constexpr size_t kEach = 1;
#endif

// On emulated GPUs of both kinds, the error against exact products and attention.
void checkShapes(const std::vector<Shape>& shapes, double tolerance) {
  const std::string path = test::temporaryPath("gpu-shape.gguf");
  for (size_t i = 0; i < shapes.size(); i += kEach) {
    const Shape& shape = shapes[i];
    shape.model.write(path);
    const auto cpu = numbersOn(std::make_unique<CpuDevice>(kKernelsScalar, 2), path, shape.kvType, shape.window);
    const std::vector<double> right(cpu.begin(), cpu.end());
    for (const std::string& kind : {test::kEmulatedCuda, test::kEmulatedMetal}) {
      gpu::EmulatorOptions options = test::emulated(kind);
      options.bothOrders = false;
      const double error = test::relativeError(
          numbersOn(onDriver(std::make_unique<gpu::EmulatedDriver>(options)), path, shape.kvType, shape.window), right);
      if (!(error < tolerance))
        throw test::Failure{kind, "shape " + std::to_string(i) + " of " + dtypeName(shape.model.type) + ": error " +
                                      std::to_string(error)};
    }
  }
  std::remove(path.c_str());
}

}  // namespace

TEST(gpu_models_of_odd_shapes_match_the_cpu) {
  checkShapes({{{.hidden = 36,
                 .ffn = 70,
                 .heads = 3,
                 .kvHeads = 1,
                 .headDim = 10,
                 .visionHidden = 30,
                 .visionFfn = 50,
                 .visionHeads = 3,
                 .imageSize = 42,
                 .window = 3},
                DType::f32},
               {{.hidden = 20,
                 .ffn = 33,
                 .layers = 3,
                 .heads = 8,
                 .kvHeads = 8,
                 .headDim = 6,
                 .visionHidden = 22,
                 .visionFfn = 17,
                 .visionHeads = 1,
                 .window = 4},
                DType::f32,
                AttentionWindow::suffix},
               {{.hidden = 48, .heads = 20, .kvHeads = 2, .headDim = 32, .visionHeads = 4, .window = 5, .gemma1 = true},
                DType::q8_0},
               {{.hidden = 40, .heads = 2, .kvHeads = 1, .headDim = 256, .window = 5, .attentionCap = 3, .finalCap = 7},
                DType::f16,
                AttentionWindow::causal},
               {{.hidden = 33, .heads = 2, .kvHeads = 2, .headDim = 320, .visionHidden = 90, .visionHeads = 1}},
               {{.hidden = 24, .heads = 1, .kvHeads = 1, .headDim = 512, .visionHidden = 300, .visionHeads = 1}}},
              2e-4);
}

TEST(gpu_models_of_every_kind_of_weight_match_the_cpu) {
  std::vector<Shape> shapes;
  const DType kvTypes[] = {DType::f16, DType::q8_0, DType::f32};
  for (const DType type : {DType::f16, DType::q8_0, DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1, DType::iq4_nl})
    shapes.push_back({{.hidden = 64,
                       .ffn = 96,
                       .heads = 4,
                       .kvHeads = 2,
                       .headDim = 32,
                       .visionHidden = 64,
                       .visionFfn = 96,
                       .type = type},
                      kvTypes[shapes.size() % 3]});
  for (const DType type : {DType::q2_k, DType::q3_k, DType::q4_k, DType::q5_k, DType::q6_k, DType::iq4_xs})
    shapes.push_back({{.hidden = 256,
                       .ffn = 256,
                       .layers = 1,
                       .heads = 4,
                       .kvHeads = 1,
                       .headDim = 64,
                       .visionHidden = 48,
                       .visionFfn = 60,
                       .visionLayers = 1,
                       .type = type},
                      kvTypes[shapes.size() % 3]});
  checkShapes(shapes, 1e-2);
  checkShapes({{{.hidden = 50, .ffn = 90, .visionHidden = 38, .type = DType::bf16}}}, 3e-2);
}

TEST(cuda_driver_runs_our_kernels) {
  FakeCuda& fake = test::freshCuda();
  fake.memory = size_t(1) << 30;
  CHECK_EQUAL(wrongOp(*onDriver(test::cudaOverLibrary())), std::string());
  CHECK(fake.kernels.size() > 20);
  checkNothingLeft(fake);
}

TEST(cuda_driver_runs_a_model_as_the_emulator_does) {
  const std::string path = test::TinyModel().write(test::temporaryPath("cuda.gguf"));
  for (const DType kvType : {DType::f16, DType::f32}) {
    const std::vector<float> right = numbersOn(onDriver(emulator()), path, kvType);
    for (const bool graphs : {true, false}) {
      FakeCuda& fake = test::freshCuda();
      fake.memory = size_t(1) << 30;
      fake.instantiate = graphs ? 0 : 801;
      CHECK(numbersOn(onDriver(test::cudaOverLibrary()), path, kvType) == right);
      CHECK_EQUAL(fake.graphLaunches > 0 && fake.updates > 0, graphs);
      CHECK_EQUAL(fake.failure, 0);
      checkNothingLeft(fake);
    }
  }
  std::remove(path.c_str());
}

// A card that fails in the middle of whatever a model does: always the same error, and a new load works.
TEST(cuda_driver_that_is_lost_anywhere_ends_a_model_alone) {
  const std::string path = test::TinyModel().write(test::temporaryPath("cuda-lost.gguf"));
  FakeCuda& fake = test::freshCuda();
  fake.memory = size_t(1) << 30;
  const std::vector<float> right = numbersOn(onDriver(test::cudaOverLibrary()), path, DType::f16);
  const auto launches = long(fake.kernels.size());
  for (long after = 0; after < launches; after += 1 + launches * long(kEach) / 17) {
    fake.lostAfter = after;
    CHECK_FAILS(numbersOn(onDriver(test::cudaOverLibrary()), path, DType::f16), Code::deviceLost,
                "Load the model again");
    fake.lostAfter = -1;
    CHECK(numbersOn(onDriver(test::cudaOverLibrary()), path, DType::f16) == right);
  }
  CHECK(fake.resets > 10 / int(kEach));
  checkNothingLeft(fake);
  std::remove(path.c_str());
}
