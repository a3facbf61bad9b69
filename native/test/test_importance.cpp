// What an importance matrix is for: the outputs of quantized matrices come nearer the originals', on pictures and words
// that it was not made of. On the demo model, which is trained; its vision tower's ffn_down is wide enough for K types.
#include <cmath>
#include <cstdio>
#include <map>

#include "check.h"
#include "golden.h"
#include "serve/load/make_device.h"
#include "format/quantize.h"
#include "serve/importance.h"
#include "serve/load/model.h"
#include "serve/prompt.h"

using namespace pg;

namespace {

constexpr int kSide = 112;

struct Sample {
  std::vector<uint8_t> pixels;
  std::string prompt, answer;
};

// A disc and a square in two of four colours on a grey background.
Sample drawn(uint32_t seed) {
  const struct {
    const char* name;
    uint8_t rgb[3];
  } colours[] = {{"red", {220, 40, 40}}, {"green", {40, 170, 60}}, {"blue", {50, 80, 220}}, {"yellow", {235, 210, 60}}};
  const auto next = [&](uint32_t below) { return ((seed = seed * 1664525u + 1013904223u) >> 16) % below; };
  Sample s{std::vector<uint8_t>(kSide * kSide * 3, uint8_t(120 + next(120))), "", ""};
  std::string names[2];
  int box[4] = {};
  for (int shape = 0; shape < 2; ++shape) {
    const auto& colour = colours[next(4)];
    const int radius = 9 + int(next(12)), x = shape * 56 + radius + int(next(uint32_t(56 - 2 * radius))),
              y = radius + int(next(uint32_t(kSide - 2 * radius)));
    for (int dy = -radius; dy <= radius; ++dy)
      for (int dx = -radius; dx <= radius; ++dx)
        if (shape == 1 || dx * dx + dy * dy <= radius * radius)
          std::copy_n(colour.rgb, 3, &s.pixels[size_t(((y + dy) * kSide + x + dx) * 3)]);
    names[shape] = std::string(colour.name) + (shape == 0 ? " circle" : " square");
    const int edges[] = {y - radius, x - radius, y + radius, x + radius};
    std::copy_n(edges, 4, box);
  }
  switch (next(3)) {
    case 0:
      s.prompt = "caption en", s.answer = "a " + names[0] + " and a " + names[1] + " on a plain background";
      break;
    case 1: s.prompt = "answer en how many shapes are there?", s.answer = "2"; break;
    default:
      s.prompt = "detect " + names[1];
      for (int edge : box) {
        char token[16];
        std::snprintf(token, sizeof token, "<loc%04d>", edge * 1024 / kSide);
        s.answer += token;
      }
      s.answer += " " + names[1];
  }
  return s;
}

// Sums up x^T x of the rows that enter each matrix, pictures and words apart.
struct CorrelatingTap final : Tap {
  struct Sums {
    int64_t rows[2] = {};
    std::vector<double> products[2];  // [in, in]
  };
  std::map<uint64_t, Sums> sums;  // by the weights' address
  int64_t pictureRows = 0;  // the first ones of every call; prompts here fit one block of rows

  void products(Device& device, ConstView x, std::span<const Linear* const> linears) override {
    std::vector<float> values(size_t(x.rows * x.cols));
    device.download(values.data(), x);
    for (const Linear* linear : linears) {
      Sums& s = sums[linear->weight.address()];
      for (std::vector<double>& products : s.products) products.resize(size_t(x.cols * x.cols), 0.0);
      for (int64_t r = 0; r < x.rows; ++r) {
        const bool pictures = r < pictureRows;
        ++s.rows[pictures];
        const float* row = values.data() + r * x.cols;
        for (int64_t a = 0; a < x.cols; ++a) {
          double* out = s.products[pictures].data() + a * x.cols;
          for (int64_t b = 0; b < x.cols; ++b) out[b] += double(row[a]) * double(row[b]);
        }
      }
    }
  }

  // Mean of |e x|^2 over the rows seen, pictures and words half each: what an error e [rows, in] does to the output.
  double outputError(const Linear& linear, const std::vector<float>& e) {
    const Sums& s = sums.at(linear.weight.address());
    const size_t n = size_t(linear.in());
    std::vector<double> mean(n * n, 0.0);
    for (int kind = 0; kind < 2; ++kind)
      for (size_t i = 0; i < n * n && s.rows[kind] > 0; ++i)
        mean[i] += s.products[kind][i] / double(s.rows[kind]) / (s.rows[!kind] > 0 ? 2 : 1);
    double total = 0;
    for (size_t row = 0; row < e.size() / n; ++row)
      for (size_t a = 0; a < n; ++a) {
        double sum = 0;
        for (size_t b = 0; b < n; ++b) sum += mean[a * n + b] * double(e[row * n + b]);
        total += sum * double(e[row * n + a]);
      }
    return total;
  }
};

// Shows the model a sample, as the scheduler would.
template <class Begin>
void show(Model& model, Tap& tap, const Sample& sample, Begin&& begin) {
  model.device->setTap(&tap);
  KvSequence kv(*model.kvPool);
  const int64_t tokens = model.visionConfig.tokens, width = model.textConfig.hidden;
  const Buffer features = model.device->allocate(size_t(tokens * width) * sizeof(float));
  const View image = features.view(DType::f32, tokens, width);
  begin(0);
  model.vision->begin(sample.pixels.data(), nullptr);
  while (!model.vision->step()) {}
  model.vision->finish(image);
  const Prompt prompt = buildPrompt(*model.tokenizer, sample.prompt, &sample.answer, model.visionConfig.tokens, true);
  begin(model.visionConfig.tokens);
  const ConstView images[] = {image};
  model.decoder->beginPrefill(kv, prompt.ids, images, prompt.prefix, nullptr);
  while (!model.decoder->stepPrefill()) {}
  model.device->setTap(nullptr);
}

struct Demo {
  std::unique_ptr<Model> model;
  Demo() {
    LoadOptions options;
    options.path = (pg::test::repository() / "demo" / "paligemma2-demo.gguf").string();
    options.threads = 2;
    model = Model::load(options);
  }
};

std::vector<float> weightsOf(Device& device, const Linear& linear) {
  std::vector<float> values(size_t(linear.out() * linear.in()));
  const size_t rowBytes = bytesFor(linear.weight.type, linear.in());
  std::vector<uint8_t> rows(rowBytes * size_t(linear.out()));
  device.download(rows.data(), linear.weight);
  for (int64_t r = 0; r < linear.out(); ++r)
    dequantizeRow(linear.weight.type, rows.data() + size_t(r) * rowBytes, values.data() + r * linear.in(), linear.in());
  return values;
}

std::vector<float> roundingError(DType type, const std::vector<float>& weights, int64_t cols, const float* importance) {
  std::vector<uint8_t> row(bytesFor(type, cols));
  std::vector<float> error(weights.size());
  for (size_t begin = 0; begin < weights.size(); begin += size_t(cols)) {
    quantizeRow(type, weights.data() + begin, row.data(), cols, importance);
    dequantizeRow(type, row.data(), error.data() + begin, cols);
    for (size_t i = begin; i < begin + size_t(cols); ++i) error[i] -= weights[i];
  }
  return error;
}

}  // namespace

TEST(importance_lowers_the_error_of_outputs_on_pictures_it_was_not_made_of) {
  Demo demo;
  InputObserver observer;
  for (uint32_t seed = 1; seed <= 12; ++seed)
    show(*demo.model, observer, drawn(seed), [&](int64_t pictures) { observer.beginPass(pictures); });
  std::map<std::string, std::vector<float>> importance;
  for (const Stage& stage : importanceOf(demo.model->weights, observer)) importance[stage.name] = stage.data;

  CorrelatingTap heldOut;
  for (uint32_t seed = 101; seed <= 112; ++seed) {
    show(*demo.model, heldOut, drawn(seed), [&](int64_t pictures) { heldOut.pictureRows = pictures; });
  }

  for (const DType type :
       {DType::q2_k, DType::q3_k, DType::q4_k, DType::iq4_xs, DType::iq4_nl, DType::q4_0, DType::q4_1}) {
    double plain = 0, weighted = 0;  // of all matrices, relative to their outputs
    int matrices = 0;
    demo.model->weights.eachMatrix([&](const std::string& name, const Linear& linear) {
      const auto found = importance.find(name + ".weight");
      if (found == importance.end() || linear.in() % dtypeInfo(type)->block || name == "token_embd") return;
      const std::vector<float> weights = weightsOf(*demo.model->device, linear);
      const double outputs = heldOut.outputError(linear, weights);
      plain += heldOut.outputError(linear, roundingError(type, weights, linear.in(), nullptr)) / outputs;
      weighted +=
          heldOut.outputError(linear, roundingError(type, weights, linear.in(), found->second.data())) / outputs;
      ++matrices;
    });
    CHECK(matrices >= 6);
    if (!(weighted < 0.99 * plain))
      throw test::Failure{dtypeName(type), "output error " + std::to_string(weighted) + " with importance, " +
                                               std::to_string(plain) + " without"};
  }
}
