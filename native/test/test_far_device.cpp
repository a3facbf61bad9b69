// The forward pass on a device whose memory the host cannot follow: a tiny PaliGemma 2 against the reference
// implementation, stage by stage; see golden/hf/README.md.
#include <cstdio>
#include <map>

#include "base/half.h"
#include "check.h"
#include "cpu/cpu_info.h"
#include "far_device.h"
#include "ops_fixture.h"
#include "golden.h"
#include "serve/load/model.h"
#include "serve/scheduler.h"
#include "tiny_gguf.h"

using namespace pg;

namespace {

const std::string kFolder = "hf/pg2-tiny-sharded/";

// GGUF's name of a tensor to the reference's.
std::string referenceName(std::string name) {
  static const std::pair<const char*, const char*> kParts[] = {
      {"v.blk.", "vision_tower.vision_model.encoder.layers."},
      {"v.patch_embd", "vision_tower.vision_model.embeddings.patch_embedding"},
      {"v.position_embd", "vision_tower.vision_model.embeddings.position_embedding"},
      {"v.post_ln", "vision_tower.vision_model.post_layernorm"},
      {"mm.0", "multi_modal_projector.linear"},
      {"blk.", "language_model.model.layers."},
      {"token_embd", "language_model.model.embed_tokens"},
      {"output_norm", "language_model.model.norm"},
      {"post_attention_norm", "post_attention_layernorm"},
      {"post_ffw_norm", "post_feedforward_layernorm"},
      {"attn_norm", "input_layernorm"},
      {"ffn_norm", "pre_feedforward_layernorm"},
      {"attn_output", "self_attn.o_proj"},
      {"attn_out", "self_attn.out_proj"},
      {"attn_q", "self_attn.q_proj"},
      {"attn_k", "self_attn.k_proj"},
      {"attn_v", "self_attn.v_proj"},
      {"ffn_gate", "mlp.gate_proj"},
      {"ln1", "layer_norm1"},
      {"ln2", "layer_norm2"},
  };
  const bool vision = name.starts_with("v.");
  for (const auto& [ours, theirs] : kParts)
    if (const size_t at = name.find(ours); at != std::string::npos)
      if (std::string(ours) != "blk." || at == 0) name.replace(at, std::string(ours).size(), theirs);
  for (const auto& [ours, sees, reads] :
       {std::tuple{"ffn_up", "mlp.fc1", "mlp.up_proj"}, {"ffn_down", "mlp.fc2", "mlp.down_proj"}})
    if (const size_t at = name.find(ours); at != std::string::npos)
      name.replace(at, std::string(ours).size(), vision ? sees : reads);
  return name;
}

// The checkpoint as GGUF, in f32.
std::string writeCheckpoint(const std::string& path) {
  std::vector<std::unique_ptr<test::Safetensors>> shards;
  for (const char* shard : {"00001", "00002", "00003"})
    shards.push_back(
        std::make_unique<test::Safetensors>(test::golden(kFolder + "model-" + shard + "-of-00003.safetensors")));
  test::TinyModel tiny{.hidden = 128, .ffn = 224, .layers = 3, .heads = 4, .kvHeads = 2, .headDim = 16};
  tiny.visionHidden = 32, tiny.visionFfn = 80, tiny.visionLayers = 2, tiny.visionHeads = 2, tiny.imageSize = 56;
  tiny.window = 40, tiny.vocab = 1024;
  tiny.values = [&](const std::string& name) {
    const std::string theirs = referenceName(name);
    const auto shard = std::find_if(shards.begin(), shards.end(), [&](const auto& file) { return file->has(theirs); });
    if (shard == shards.end()) throw test::Failure{name, "no tensor " + theirs};
    // Gemma's norms multiply by 1 + weight
    const float offset = theirs.starts_with("language_model") && theirs.find("norm") != std::string::npos ? 1 : 0;
    std::vector<float> values;
    for (const uint16_t half : (**shard)[theirs].values<uint16_t>()) values.push_back(bf16ToF32(half) + offset);
    return values;
  };
  return tiny.write(path);
}

struct Reference {
  test::Safetensors tensors;
  test::Json cases;

  Reference() : tensors(test::golden(kFolder + "expected.safetensors")), cases(caseList()) {}
  static test::Json caseList() { return test::readJson(test::golden(kFolder + "expected.json"))["cases"]; }
  const test::Json& named(const std::string& name) const {
    for (const test::Json& c : cases.items)
      if (c["name"].text == name) return c;
    throw test::Failure{name, "no such case"};
  }
  void check(const std::vector<float>& values, const std::string& name, double tolerance, size_t from = 0) const {
    const std::vector<float> wanted = tensors[name].floats();
    CHECK(from + values.size() <= wanted.size());
    for (size_t i = 0; i < values.size(); ++i) CHECK_CLOSE(values[i], wanted[from + i], tolerance);
  }
};

// Everything that the reference tells of a picture and a prompt; then its greedy answer.
void runCaption(Model& model, const Reference& reference) {
  const test::Json& c = reference.named("caption");
  const std::string image = "image." + c["images"][0].text;
  std::vector<uint8_t> pixels(56 * 56 * 3);
  const std::vector<float> values = reference.tensors[image + ".pixel_values"].floats();
  for (size_t channel = 0; channel < 3; ++channel)
    for (size_t i = 0; i < 56 * 56; ++i)
      pixels[i * 3 + channel] = uint8_t(std::lround((values[channel * 56 * 56 + i] + 1) * 127.5));

  const int64_t tokens = model.visionConfig.tokens, hidden = model.textConfig.hidden, vocab = model.textConfig.vocab;
  model.vision->begin(pixels.data(), nullptr);
  while (!model.vision->step()) {}
  std::vector<float> states(size_t(tokens * model.visionConfig.hidden));
  model.vision->lastHidden(states.data());
  reference.check(states, image + ".vision_last_hidden_state", 1e-3);
  const Buffer features = model.device->allocate(size_t(tokens * hidden) * sizeof(float));
  const View view = features.view(DType::f32, tokens, hidden);
  model.vision->finish(view);
  states.resize(size_t(tokens * hidden));
  model.device->download(states.data(), view);
  reference.check(states, image + ".projector_output", 1e-3);

  std::vector<int32_t> ids;
  for (const test::Json& id : c["input_ids"].items)
    ids.push_back(id.number == 982 ? Decoder::kImageRow : int32_t(id.number));
  KvSequence kv(*model.kvPool);
  const ConstView images[] = {view};
  model.decoder->beginPrefill(kv, ids, images, int64_t(ids.size()), nullptr);
  states.resize(ids.size() * size_t(hidden));
  for (int64_t layer = 0; layer < model.textConfig.layers; ++layer) {
    model.decoder->prefillStates(states.data());
    reference.check(states, "caption.hidden_states", 5e-3, size_t(layer) * states.size());
    CHECK_EQUAL(model.decoder->stepPrefill(), layer + 1 == model.textConfig.layers);
  }
  model.decoder->prefillFinalStates(states.data());
  reference.check(states, "caption.hidden_states", 5e-3, size_t(model.textConfig.layers) * states.size());
  std::vector<float> logits(static_cast<size_t>(vocab));
  for (size_t row = 0; row < ids.size(); ++row) {
    model.decoder->prefillLogits(int64_t(row), 1, logits.data());
    reference.check(logits, "caption.prefill_logits_all", 2e-3, row * size_t(vocab));
  }

  // greedy, three ways of asking for the head in turn
  const std::vector<test::Json>& greedy = c["greedy"]["tokens"].items;
  for (size_t i = 0; i + 1 < greedy.size(); ++i) {
    std::vector<int32_t> best(i % 3 == 0 ? 1 : 5);
    std::vector<int32_t> all(static_cast<size_t>(vocab));
    for (size_t id = 0; id < all.size(); ++id) all[id] = int32_t(id);
    DecodeRow row{&kv, int32_t(greedy[i].number), int64_t(ids.size() + i), int64_t(ids.size())};
    row.head = i % 3 == 2 ? DecodeRow::Head::ids : DecodeRow::Head::best;
    row.best = &best, row.ids = all;
    model.decoder->decode({&row, 1}, logits.data());
    if (i % 3 == 2) best = all;
    CHECK(std::is_sorted(best.begin(), best.end()));
    const int32_t chosen = *std::max_element(
        best.begin(), best.end(), [&](int32_t a, int32_t b) { return logits[size_t(a)] < logits[size_t(b)]; });
    CHECK_EQUAL(chosen, int32_t(greedy[i + 1].number));
  }
}

}  // namespace

TEST(far_device_runs_a_model_as_the_reference_does) {
  if (test::golden(kFolder + "expected.json").empty()) return;
  const std::string path = writeCheckpoint(test::temporaryPath("far.gguf"));
  const Reference reference;
  for (const std::string& isa : supportedIsas())
    for (const bool far : {false, true}) {
      std::unique_ptr<Device> device;
      if (far) device = std::make_unique<test::FarDevice>(*kernelsFor(isa), 2);
      else device = std::make_unique<CpuDevice>(*kernelsFor(isa), 2);
      Model model({.path = path, .kvCacheType = DType::f32, .attentionWindow = AttentionWindow::suffix},
                  std::move(device));
      runCaption(model, reference);
    }
  if (test::kEmulatesGpu) {
    Model model({.path = path, .kvCacheType = DType::f32, .attentionWindow = AttentionWindow::suffix},
                test::emulatedGpu());
    runCaption(model, reference);
  }
  std::remove(path.c_str());
}

namespace {

Request withPicture(int seed) {
  Request r;
  r.prompt = "what is this";
  r.generate().maxTokens = 20;
  r.generate().ignoreEos = true;
  r.images.push_back({});
  for (int p = 0; p < 28 * 28 * 3; ++p) r.images[0].pixels.push_back(uint8_t(p * seed % 251));
  return r;
}

// ids, or log-probabilities, of requests that run together
std::map<uint32_t, std::vector<double>> answers(std::unique_ptr<Device> device, const std::string& path) {
  Model model({.path = path, .maxSequences = 8}, std::move(device));
  std::atomic<bool> stopping{false};
  std::map<uint32_t, std::vector<double>> list;
  Scheduler scheduler(model, 8, stopping, [&](Event event) {
    std::vector<double>& of = list[event.job];
    if (const auto* error = event.get<ErrorEvent>()) throw test::Failure{"far", error->message};
    if (const auto* token = event.get<TokenEvent>()) of.push_back(token->choice.id);
    if (const auto* end = event.get<EndEvent>()) {
      for (const TokenEvent& token : end->scored) of.push_back(token.choice.logProb);
      of.insert(of.end(), end->embedding.begin(), end->embedding.end());
    }
  });
  for (uint32_t i = 1; i <= 7; ++i) {
    auto job = std::make_shared<Job>();
    job->id = i;
    job->request = withPicture(int(i / 2 + 3));
    if (i == 2) job->request.generate().sampling = {.temperature = 1.2f, .topK = 6, .seed = 4};
    if (i == 3) job->request.generate().beams = 3;
    if (i == 4) job->request.task = Score{.suffix = "a long answer"};
    if (i == 5) job->request.task = EncodeImage{};
    if (i == 6) job->request.generate().sampling.logProbs = 2;
    scheduler.enqueue(std::move(job));
  }
  while (scheduler.busy()) scheduler.step();
  return list;
}

}  // namespace

TEST(far_device_serves_requests_as_the_cpu_does) {
  const std::string path = test::TinyModel().write(test::temporaryPath("far-serve.gguf"));
  const Kernels& kernels = chooseKernels();
  const auto near = answers(std::make_unique<CpuDevice>(kernels, 2), path);
  CHECK_EQUAL(near.size(), size_t(7));
  const DeviceLimits limits = CpuDevice(kernels, 1).limits();
  CHECK(answers(std::make_unique<test::FarDevice>(kernels, 2, limits), path) == near);
  if (test::kEmulatesGpu) {
    // with other last bits, but always the same ones
    const auto onGpu = answers(test::emulatedGpu(), path);
    CHECK(answers(test::emulatedGpu(), path) == onGpu);
    for (const uint32_t job : {1u, 7u}) CHECK(onGpu.at(job) == near.at(job));   // greedy
    for (const uint32_t job : {4u, 5u})
      for (size_t i = 0; i < near.at(job).size(); ++i) CHECK_CLOSE(onGpu.at(job)[i], near.at(job)[i], 2e-3);
  }
  std::remove(path.c_str());
}
