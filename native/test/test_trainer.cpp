// The gradients of a whole tiny PaliGemma 2 against finite differences of its own loss, however the tapes are kept, on
// however many threads and far away; and AdamW against its equations. References: test/api/fit.addon.test.ts.
#include <cmath>
#include <cstdio>
#include <cstring>

#include "check.h"
#include "ops_fixture.h"
#include "serve/load/model.h"
#include "tiny_gguf.h"

using namespace pg;

namespace {

const std::vector<const char*> kTargets = {
    "blk.0.attn_q",   "blk.0.attn_k",     "blk.0.attn_v",   "blk.0.attn_output", "blk.0.ffn_gate",
    "blk.0.ffn_up",   "blk.0.ffn_down",   "blk.1.attn_q",   "blk.1.attn_k",      "blk.1.attn_v",
    "blk.1.ffn_down", "v.blk.0.attn_q",   "v.blk.0.attn_k", "v.blk.0.attn_v",    "v.blk.0.attn_out",
    "v.blk.0.ffn_up", "v.blk.0.ffn_down", "v.blk.1.attn_v", "v.blk.1.ffn_down",  "mm.0"};

struct Net {
  std::string path = test::temporaryPath("trainer.gguf");
  std::unique_ptr<Model> model;
  std::vector<uint8_t> pictures[2];
  Dropout dropout;   // of what is trained

  explicit Net(std::unique_ptr<Device> device) {
    LoadOptions options;
    options.path = test::TinyModel().write(path);
    options.attentionWindow = AttentionWindow::suffix;
    model = std::make_unique<Model>(options, std::move(device));
    for (size_t i = 0; i < 2; ++i)
      for (size_t j = 0; j < 28 * 28 * 3; ++j) pictures[i].push_back(uint8_t((j * (37 + i * 8) + j / 7) % 256));
  }
  explicit Net(int threads) : Net(std::make_unique<CpuDevice>(chooseKernels(), threads)) {}
  ~Net() {
    model.reset();
    std::remove(path.c_str());
  }

  Trainer trainer(const LoraStart& start, size_t tapeBytes = Trainer::kTapeBytes) {
    const TrainedNet net{*model->device,      model->weights,  model->textConfig,
                         model->visionConfig, *model->decoder, model->vision.get()};
    return Trainer(net, start, model->info.contextSize, tapeBytes);
  }
  // The sum of two examples' losses.
  double run(Trainer& trainer, bool train) {
    double sum = 0;
    for (size_t count : {1, 2}) {
      TrainExample example;
      example.ids.assign(4 * count, Decoder::kImageRow);
      for (int32_t id : {2, 100, 120, 130, 140, 150, 4, 99, 102, 262, 109, 270, 110, 98, 261, 99, 101, 1})
        example.ids.push_back(id + int32_t(count) * (id > 4));
      example.prefix = int64_t(4 * count + 7);
      for (size_t i = 0; i < count; ++i) example.pixels.push_back(pictures[i].data());
      example.train = train;
      example.dropout = dropout.of(count);
      trainer.begin(std::move(example));
      while (!trainer.step()) {}
      for (const float loss : trainer.losses()) sum += double(loss);
    }
    return sum;
  }
  double loss(const TensorMap& tensors) {
    LoraStart start;
    start.scale = 2;
    start.tensors = tensors;
    Trainer once = trainer(start);
    return run(once, dropout.rate > 0);   // without training nothing is dropped
  }
};

TensorMap randomPairs(const Model& model) {
  TensorMap tensors;
  unsigned seed = 1;
  model.weights.eachMatrix([&](const std::string& name, const Linear& linear) {
    if (std::none_of(kTargets.begin(), kTargets.end(), [&](const char* target) { return name == target; })) return;
    for (const bool isA : {true, false}) {
      HostTensor tensor{isA ? std::vector<int64_t>{3, linear.in()} : std::vector<int64_t>{linear.out(), 3}, {}};
      tensor.data = test::randoms(size_t(tensor.shape[0] * tensor.shape[1]), ++seed, 0.1f);
      tensors.emplace(name + (isA ? ".weight.lora_a" : ".weight.lora_b"), std::move(tensor));
    }
  });
  return tensors;
}

LoraStart startFrom(const Net& net) {
  LoraStart start;
  start.scale = 2;
  start.tensors = randomPairs(*net.model);
  return start;
}

std::vector<float> gradientsOf(Net& net, size_t tapeBytes = Trainer::kTapeBytes) {
  Trainer trainer = net.trainer(startFrom(net), tapeBytes);
  std::vector<float> all{float(net.run(trainer, true))};
  for (const auto& [name, tensor] : trainer.lora().gradients())
    all.insert(all.end(), tensor.data.begin(), tensor.data.end());
  return all;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Against differences of the loss, at the largest value of each matrix.
void checkGradients(Net& net) {
  const LoraStart start = startFrom(net);
  CHECK_EQUAL(start.tensors.size(), kTargets.size() * 2);
  Trainer trainer = net.trainer(start);
  net.run(trainer, true);
  const TensorMap gradients = trainer.lora().gradients();
  for (const auto& [name, gradient] : gradients) {
    size_t at = 0;
    for (size_t i = 0; i < gradient.data.size(); ++i)
      if (std::fabs(gradient.data[i]) > std::fabs(gradient.data[at])) at = i;
    const double value = double(gradient.data[at]), step = 0.02;
    CHECK(std::fabs(value) > 1e-3);
    const auto moved = [&](double by) {
      TensorMap tensors = start.tensors;
      tensors[name].data[at] += float(by);
      return net.loss(tensors);
    };
    const double slope = (8 * (moved(step) - moved(-step)) - (moved(2 * step) - moved(-2 * step))) / (12 * step);
    if (!(std::fabs(slope - value) < 0.01 * std::fabs(value) + 1e-3))
      throw test::Failure{name, "gradient " + std::to_string(value) + ", difference " + std::to_string(slope)};
  }
}

}  // namespace

TEST(trainer_gradients_match_finite_differences) {
  Net net(2);
  checkGradients(net);
}

TEST(trainer_gradients_match_finite_differences_with_dropout) {
  Net net(2);
  const double whole = net.loss(startFrom(net).tensors);
  net.dropout = {0.3f, 5};
  checkGradients(net);
  CHECK(net.loss(startFrom(net).tensors) != whole);
}

TEST(trainer_gives_the_same_bits_however_it_runs) {
  Net net(1), threads(3), far(std::make_unique<test::FarDevice>(chooseKernels(), 2, DeviceLimits{8, 512, 256, 256}));
  for (const float rate : {0.0f, 0.2f}) {
    for (Net* each : {&net, &threads, &far}) each->dropout = {rate, 7};
    const std::vector<float> want = gradientsOf(net);
    CHECK(same(gradientsOf(net, 0), want));         // every layer computed again
    CHECK(same(gradientsOf(net, 100'000), want));   // some of them
    CHECK(same(gradientsOf(threads), want));
    CHECK(same(gradientsOf(far), want));
  }
}

TEST(trainer_lowers_the_loss_and_keeps_what_it_does_not_train) {
  Net net(2);
  LoraStart start;
  start.targets = {"blk.0.attn_q", "blk.1.ffn_down", "v.blk.1.ffn_up", "v.blk.1.ffn_down"};
  start.rank = 2;
  Trainer trainer = net.trainer(start);
  CHECK(trainer.lora().trainsVision());
  const double before = net.run(trainer, true);
  for (int64_t step = 1; step <= 20; ++step) {
    CHECK(trainer.update({step, 0.02, 0, 1}) > 0);
    net.run(trainer, true);
  }
  CHECK(net.run(trainer, false) < 0.9 * before);
  CHECK_EQUAL(trainer.lora().tensors(false).size(), size_t(8));
  CHECK_EQUAL(trainer.lora().tensors(true).size(), size_t(24));
}

TEST(trainer_goes_on_from_its_moments_to_the_last_bit) {
  Net net(2);
  Trainer through = net.trainer(startFrom(net));
  for (int64_t step = 1; step <= 2; ++step) net.run(through, true), through.update({step, 0.01, 0.1, 1});
  LoraStart later;
  later.scale = 2;
  later.tensors = through.lora().tensors(true);
  net.run(through, true), through.update({3, 0.01, 0.1, 1});
  Trainer resumed = net.trainer(later);
  net.run(resumed, true), resumed.update({3, 0.01, 0.1, 1});
  const TensorMap want = through.lora().tensors(true), got = resumed.lora().tensors(true);
  for (const auto& [name, tensor] : want) CHECK(same(got.at(name).data, tensor.data));
}

TEST(trainer_names_what_does_not_fit) {
  Net net(1);
  LoraStart start;
  start.targets = {"blk.7.attn_q"};
  CHECK_FAILS(net.trainer(start), Code::invalidOption, "blk.7.attn_q");
  start.tensors["v.patch_embd.weight.lora_a"] = {{1, 588}, std::vector<float>(588)};
  start.tensors["v.patch_embd.weight.lora_b"] = {{32, 1}, std::vector<float>(32)};
  CHECK_FAILS(net.trainer(start), Code::modelUnsupported, "v.patch_embd");
  start.tensors["v.patch_embd.weight.lora_b"].shape = {3, 1};
  CHECK_FAILS(net.trainer(start), Code::modelInvalid, "wrong shape");
}

TEST(adamw_follows_its_equations) {
  std::vector<float> p{1, -2}, m(2), v(2);
  const std::vector<float> sums{4, -0.5f};
  double wantP[] = {1, -2}, wantM[] = {0, 0}, wantV[] = {0, 0};
  for (int64_t t = 1; t <= 3; ++t) {
    adamW(p, m, v, sums, 0.25, {t, 0.1, 0.2, 0});
    for (int i = 0; i < 2; ++i) {
      const double g = double(sums[size_t(i)]) / 4;
      wantM[i] = 0.9 * wantM[i] + 0.1 * g;
      wantV[i] = 0.999 * wantV[i] + 0.001 * g * g;
      wantP[i] -= 0.1 * 0.2 * wantP[i] +
                  0.1 * (wantM[i] / (1 - std::pow(0.9, t))) / (std::sqrt(wantV[i] / (1 - std::pow(0.999, t))) + 1e-8);
      CHECK_CLOSE(p[size_t(i)], wantP[i], 1e-6);
    }
  }
}
