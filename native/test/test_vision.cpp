// What a picture takes of the device's memory: rows of the tower's width for every token, never the feed-forward's.
#include <cstdio>

#include "adapters_fixture.h"
#include "check.h"
#include "cpu/cpu_device.h"
#include "cpu/cpu_info.h"
#include "device/arena.h"
#include "serve/load/make_device.h"
#include "serve/load/model.h"
#include "tiny_gguf.h"

using namespace pg;

namespace {

struct CountingTap : Tap {
  size_t allocated = 0;   // bytes so far
  void allocate(size_t bytes) override { allocated += bytes; }
};

// Bytes that the first picture of 448 px makes the device allocate, and the bytes that a second one adds.
std::pair<size_t, size_t> scratchOf(int32_t hidden, int32_t ffn) {
  const std::string path = test::temporaryPath("vision.gguf");
  test::TinyModel tiny;
  tiny.imageSize = 448;
  tiny.visionHidden = hidden;
  tiny.visionFfn = ffn;
  tiny.visionLayers = 1;
  tiny.context = 2048;
  CountingTap counting;
  auto device = makeCpu(2);
  device->setTap(&counting);
  Model model({.path = tiny.write(path)}, std::move(device));
  std::remove(path.c_str());
  const int64_t tokens = model.visionConfig.tokens, width = model.textConfig.hidden;
  const Buffer features = model.device->allocate(size_t(tokens * width) * sizeof(float));
  const size_t loaded = counting.allocated;
  std::vector<uint8_t> pixels(size_t(448 * 448 * 3), 100);
  const auto encode = [&] {
    model.vision->begin(pixels.data(), nullptr);
    while (!model.vision->step()) {}
    model.vision->finish(features.view(DType::f32, tokens, width));
    return counting.allocated - loaded;
  };
  const size_t first = encode();
  return {first, encode() - first};
}

}  // namespace

TEST(vision_gives_each_of_several_pictures_the_features_that_it_gets_alone) {
  for (const std::string& isa : supportedIsas())
    for (const auto& [type, adapted] : {std::pair{DType::f32, false}, {DType::q8_0, false}, {DType::q8_0, true}}) {
      test::TinyModel tiny;
      tiny.imageSize = 70, tiny.visionHidden = 64, tiny.visionFfn = 96, tiny.type = type;
      const std::string path = test::temporaryPath("pictures.gguf");
      Model model({.path = tiny.write(path)}, std::make_unique<CpuDevice>(*kernelsFor(isa), 2));
      std::remove(path.c_str());
      CHECK_EQUAL(model.vision->mostPictures(), std::max<int64_t>(1, model.device->limits().jointRows / 25));
      const Adapter adapter = test::adapterOf(model, {"v.blk.0.attn_q", "v.blk.1.ffn_up", "v.blk.1.ffn_down"}, 3, 10);
      const std::pair<const Adapter*, float> use{&adapter, 1.0f};
      const AdapterSet set(*model.device, {&use, 1});
      CHECK(adapter.changesVision);
      std::vector<std::vector<uint8_t>> pixels(3, std::vector<uint8_t>(70 * 70 * 3));
      std::vector<const uint8_t*> pictures;
      for (size_t i = 0; i < 3; ++i) {
        for (size_t p = 0; p < pixels[i].size(); ++p) pixels[i][p] = uint8_t(p * (i + 7) % 251);
        pictures.push_back(pixels[i].data());
      }
      const auto encode = [&](std::span<const uint8_t* const> some) {
        std::vector<std::vector<float>> features;
        model.vision->begin(some, adapted ? &set : nullptr);
        while (!model.vision->step()) {}
        for (size_t i = 0; i < some.size(); ++i) {
          const Buffer buffer = model.newFeatures();
          model.vision->finish(model.featureView(buffer), int64_t(i));
          features.push_back(model.hostFeatures(buffer));
        }
        return features;
      };
      const auto together = encode(pictures);
      for (size_t i = 0; i < 3; ++i)
        if (encode(std::span(pictures).subspan(i, 1))[0] != together[i])
          throw test::Failure{isa, "picture " + std::to_string(i) + " differs in company"};
    }
}

TEST(vision_takes_five_rows_a_token_or_a_block_of_the_feed_forward_and_keeps_them) {
  constexpr int64_t kTokens = 1024, kHidden = 160, kBlock = 512;
  const size_t row = Arena::sizeOf(kTokens, kHidden);
  // residual, branch, q, k, v: 94 MB for SigLIP at 896 px
  CHECK((scratchOf(kHidden, 600) == std::pair{5 * row, size_t(0)}));
  // a wide feed-forward counts for a block of tokens, however large the picture
  CHECK((scratchOf(kHidden, 2400) ==
         std::pair{row + Arena::sizeOf(kBlock, kHidden) + Arena::sizeOf(kBlock, 2400), size_t(0)}));
}
