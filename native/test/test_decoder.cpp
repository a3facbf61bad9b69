// What the scheduler relies on: rows of one sequence that enter a step together, and parts of the head, give the
// numbers that one row at a time and the whole head give, to the last bit.
#include <cstdio>
#include <cstring>
#include <random>

#include "adapters_fixture.h"
#include "check.h"
#include "far_device.h"
#include "serve/load/make_device.h"
#include "serve/load/model.h"
#include "tiny_gguf.h"

using namespace pg;

namespace {

struct DecoderFixture {
  std::string path = test::temporaryPath("decoder.gguf");
  std::unique_ptr<Model> model;
  int64_t vocab;

  explicit DecoderFixture(DType kvCacheType = DType::f16) {
    LoadOptions options;
    options.path = test::TinyModel().write(path);
    options.threads = 2;
    options.kvCacheType = kvCacheType;
    model = Model::load(options);
    vocab = model->textConfig.vocab;
  }
  ~DecoderFixture() {
    model.reset();
    std::remove(path.c_str());
  }
  KvSequence prefilled() {
    KvSequence kv(*model->kvPool);
    const std::vector<int32_t> ids{2, 10, 20, 30, 40, 4};
    model->decoder->beginPrefill(kv, ids, {}, int64_t(ids.size()), nullptr);
    while (!model->decoder->stepPrefill()) {}
    return kv;
  }
};

// A machine with so many bytes.
struct SmallTap final : Tap {
  size_t page = 0, left = 0;   // smaller things do not count
  void allocate(size_t bytes) override {
    if (bytes < page) return;
    if (bytes > left) fail(Code::outOfMemory, "Cannot allocate ", bytes >> 20, " MiB");
    left -= bytes;
  }
};

const std::vector<int32_t> kTokens{100, 270, 12, 12, 280, 99, 5, 261};

}  // namespace

TEST(decoder_takes_several_tokens_of_a_sequence_as_it_takes_one) {
  for (DType type : {DType::f16, DType::f32}) {
    DecoderFixture f(type);
    std::vector<float> single, together(kTokens.size() * size_t(f.vocab)), row(static_cast<size_t>(f.vocab));
    KvSequence one = f.prefilled(), all = f.prefilled();
    std::vector<DecodeRow> rows;
    for (size_t i = 0; i < kTokens.size(); ++i) {
      const DecodeRow next{&one, kTokens[i], int64_t(6 + i), 6};
      f.model->decoder->decode({&next, 1}, row.data());
      single.insert(single.end(), row.begin(), row.end());
      rows.push_back({&all, kTokens[i], int64_t(6 + i), 6});
    }
    f.model->decoder->decode(rows, together.data());
    CHECK(std::memcmp(single.data(), together.data(), single.size() * sizeof(float)) == 0);
  }
}

TEST(decoder_computes_a_part_of_the_head_as_the_whole) {
  DecoderFixture f;
  KvSequence a = f.prefilled(), b = f.prefilled(), c = f.prefilled();
  const DecodeRow whole{&a, 100, 6, 6};
  std::vector<float> all(static_cast<size_t>(f.vocab));
  f.model->decoder->decode({&whole, 1}, all.data());
  const std::vector<int32_t> ids{0, 1, 7, 8, 9, 200, int32_t(f.vocab - 1)};
  // in company of a row that wants nothing and one that wants everything
  std::vector<float> out(3 * size_t(f.vocab), -12345.0f);
  const std::vector<DecodeRow> rows{{&a, 55, 7, 6, nullptr, DecodeRow::Head::none, {}},
                                    {&b, 100, 6, 6, nullptr, DecodeRow::Head::ids, ids},
                                    {&c, 100, 6, 6}};
  f.model->decoder->decode(rows, out.data());
  size_t found = 0;
  for (int64_t i = 0; i < f.vocab; ++i) {
    CHECK(out[size_t(i)] == -12345.0f);
    const bool asked = found < ids.size() && ids[found] == i;
    found += asked;
    CHECK(out[size_t(f.vocab + i)] == (asked ? all[size_t(i)] : -12345.0f));
    CHECK(out[size_t(2 * f.vocab + i)] == all[size_t(i)]);
  }
}

TEST(decoder_weights_by_rows_give_the_same_numbers_for_every_type) {
  std::mt19937 random(7);
  for (const std::string& isa : supportedIsas())
    for (DType type : test::kWeightTypes) {
      const int64_t n = 301, k = 512;
      const test::Matrix weight(type, n, k, 8, test::randoms(size_t(n), 10));
      CpuDevice device(*kernelsFor(isa), 2);
      const test::Matrix::Placed placed = weight.on(device);
      const test::Floats x(device, test::randoms(size_t(k), 9), 1, k), whole(device, 1, n), part(device, 1, n);
      const MatmulJob all{whole, &placed.linear};
      device.matmul(x, {&all, 1});
      std::vector<Linear> rows;
      std::vector<MatmulJob> jobs;
      rows.reserve(size_t(n));
      for (int64_t begin = 0, count; begin < n; begin += count) {
        count = std::min<int64_t>(1 + int64_t(random() % 9), n - begin);
        rows.push_back(placed.linear.rows(begin, count));
        jobs.push_back({part.columns(begin, count), &rows.back()});
      }
      device.matmul(x, jobs);
      if (whole.values() != part.values())
        throw test::Failure{isa, std::string(dtypeInfo(type)->name) + " differs by rows"};
    }
}

// Prefills whose last row alone counts skip most of the last layer, and nobody sees it.
TEST(decoder_computes_the_last_row_alone_as_among_all) {
  for (const bool far : {false, true}) {
    const std::string path = test::TinyModel().write(test::temporaryPath("last.gguf"));
    std::unique_ptr<Device> device = makeCpu(2);
    // what it computes with takes more than stepRows rows in another way, so it has to be the CPU's number
    const DeviceLimits smallBlocks{.stepRows = device->limits().stepRows, .blockRows = 48, .jobs = 5, .topK = 16};
    if (far) device = std::make_unique<test::FarDevice>(chooseKernels(), 1, smallBlocks);
    Model model({.path = path}, std::move(device));
    std::remove(path.c_str());
    const DeviceLimits limits = model.device->limits();
    const int64_t step = limits.stepRows, block = limits.blockRows, vocab = model.textConfig.vocab;
    for (const int64_t tokens :
         {int64_t(1), step, step + 1, step + 2, 2 * step + 3, block, block + 1, block + step + 2}) {
      std::vector<int32_t> ids;
      for (int64_t i = 0; i < tokens; ++i) ids.push_back(int32_t(5 + i * 7 % 250));
      std::vector<float> logits[2], next[2];
      for (const PrefillRows rows : {PrefillRows::all, PrefillRows::last}) {
        const size_t of = rows == PrefillRows::all ? 0 : 1;
        KvSequence kv(*model.kvPool);
        model.decoder->beginPrefill(kv, ids, {}, tokens, nullptr, rows);
        while (!model.decoder->stepPrefill()) {}
        logits[of].resize(size_t(vocab)), next[of].resize(size_t(vocab));
        model.decoder->prefillLogits(tokens - 1, 1, logits[of].data());
        const DecodeRow row{&kv, 12, tokens, tokens};
        model.decoder->decode({&row, 1}, next[of].data());
      }
      CHECK(logits[0] == logits[1]);
      CHECK(next[0] == next[1]);
    }
  }
}

namespace {

// A model on the CPU with a kernel table, or on a far device, whose prompts of 17 to 48 rows may pass together.
std::unique_ptr<Model> joiningModel(const test::TinyModel& tiny, const std::string& isa, bool far) {
  const std::string path = tiny.write(test::temporaryPath("joint.gguf"));
  std::unique_ptr<Device> device = std::make_unique<CpuDevice>(*kernelsFor(isa), 2);
  if (far) {
    const DeviceLimits limits{
        .stepRows = device->limits().stepRows, .blockRows = 48, .jobs = 5, .topK = 16, .jointRows = 120};
    device = std::make_unique<test::FarDevice>(*kernelsFor(isa), 1, limits);
  }
  auto model = std::make_unique<Model>(LoadOptions{.path = path}, std::move(device));
  std::remove(path.c_str());
  return model;
}

// Logits after the prompts, and of a token after each, which sees what the prefill left in the cache.
using Logits = std::vector<std::vector<float>>;

Logits logitsAfter(Model& model, std::span<PrefillPart> parts, size_t first) {
  Logits all;
  int64_t row = 0;
  const size_t vocab = size_t(model.textConfig.vocab);
  model.decoder->beginPrefill(parts, PrefillRows::last);
  while (!model.decoder->stepPrefill()) {}
  for (const PrefillPart& part : parts) {
    row += int64_t(part.ids.size());
    model.decoder->prefillLogits(row - 1, 1, all.emplace_back(vocab).data());
  }
  for (const PrefillPart& part : parts) {
    const DecodeRow next{part.kv, int32_t(12 + first++), part.prefix, part.prefix, part.adapters};
    model.decoder->decode({&next, 1}, all.emplace_back(vocab).data());
  }
  return all;
}

}  // namespace

// Different lengths, pictures among the text, adapters of some, among them two with the same.
TEST(decoder_gives_each_of_several_prompts_the_bits_that_it_gets_alone) {
  for (const std::string& isa : supportedIsas())
    for (const DType type : {DType::f32, DType::q8_0, DType::q4_k})
      for (const bool gemma1 : {false, true})
        for (const bool far : {false, true}) {
          test::TinyModel tiny;
          tiny.hidden = tiny.ffn = 256, tiny.layers = 3, tiny.type = type, tiny.gemma1 = gemma1;
          const std::unique_ptr<Model> model = joiningModel(tiny, isa, far);
          Device& device = *model->device;
          const Adapter wide = test::adapterOf(*model, {"blk.0.attn_q", "blk.1.ffn_up", "blk.2.attn_output"}, 3, 10),
                        narrow = test::adapterOf(*model, {"blk.0.ffn_down", "blk.2.attn_q"}, 2, 20);
          const std::pair<const Adapter*, float> one{&wide, 1.0f}, two{&narrow, 0.5f};
          const AdapterSet first(device, {&one, 1}), second(device, {&two, 1});
          const AdapterSet* adapters[] = {nullptr, &first, &first, &second};
          const int64_t features = model->visionConfig.tokens, lengths[] = {31, 17, 40, 18};
          const test::Floats picture(device, test::randoms(size_t(features * tiny.hidden), 3), features, tiny.hidden);
          const ConstView image = picture;
          std::vector<std::vector<int32_t>> ids(4);
          for (size_t i = 0; i < 4; ++i)
            for (int64_t t = 0; t < lengths[i]; ++t)
              ids[i].push_back(i % 2 == 0 && t < features ? Decoder::kImageRow
                                                          : int32_t(5 + (t * 7 + int64_t(i)) % 250));
          std::vector<KvSequence> caches;
          std::vector<PrefillPart> parts;
          const auto begin = [&] {
            caches.clear(), parts.clear();
            for (size_t i = 0; i < 4; ++i) caches.emplace_back(*model->kvPool);
            for (size_t i = 0; i < 4; ++i)
              parts.push_back({&caches[i], ids[i], std::span(&image, size_t(i % 2 == 0)), lengths[i], adapters[i]});
          };
          begin();
          const Logits together = logitsAfter(*model, parts, 0);
          begin();
          for (size_t i = 0; i < 4; ++i) {
            CHECK(model->decoder->mayJoin(lengths[i]));
            const Logits alone = logitsAfter(*model, std::span(parts).subspan(i, 1), i);
            if (alone[0] != together[i] || alone[1] != together[4 + i])
              throw test::Failure{isa + (far ? " far" : "") + " " + dtypeInfo(type)->name,
                                  "prompt " + std::to_string(i) + " differs in company"};
          }
          if (far) CHECK(31 + 17 + 40 + 18 <= model->decoder->jointRows());
        }
}

// What a backward pass starts from: the tape, and the layer's own words about what follows it.
TEST(decoder_layers_leave_the_inputs_of_their_parts_on_a_tape) {
  for (const bool far : {false, true}) {
    const std::string path = test::TinyModel().write(test::temporaryPath("tape.gguf"));
    std::unique_ptr<Device> device = makeCpu(2);
    if (far) device = std::make_unique<test::FarDevice>(chooseKernels(), 1);
    Model model({.path = path}, std::move(device));
    std::remove(path.c_str());
    Device& d = *model.device;
    const std::vector<int32_t> ids{2, 10, 20, 30, 40, 4};
    const int64_t rows = int64_t(ids.size()), hidden = model.textConfig.hidden;
    std::vector<float> plain, taped(size_t(rows * hidden)), before = taped;
    for (const bool tape : {false, true}) {
      KvSequence kv(*model.kvPool);
      model.decoder->beginPrefill(kv, ids, {}, rows, nullptr);
      for (int64_t i = 0; i < model.textConfig.layers; ++i) {
        const test::Floats attention(d, rows, hidden), feedForward(d, rows, hidden),
            wide(d, rows, model.textConfig.ffn), branch(d, rows, hidden);
        model.decoder->prefillStates(before.data());
        model.decoder->stepPrefill(tape ? LayerTape{attention, feedForward} : LayerTape{});
        model.decoder->prefillStates(taped.data());
        if (!tape) continue;
        CHECK(attention.values() == before);
        // the feed-forward again, from the tape
        const TextLayer& w = model.weights.text.layers[size_t(i)];
        d.rmsNorm(branch, feedForward, w.ffnNorm.weight, model.textConfig.normEps);
        d.geglu(wide, branch, w.gate, w.up);
        const MatmulJob down{branch, &w.down};
        d.matmul(wide, {&down, 1});
        d.rmsNorm(feedForward, branch, w.postFfnNorm.weight, model.textConfig.normEps, true);
        CHECK(feedForward.values() == taped);
      }
      if (!tape) plain = taped;
    }
    CHECK(plain == taped);   // a tape changes nothing

    const std::vector<uint8_t> pixels(28 * 28 * 3, 90);
    const int64_t patches = model.visionConfig.tokens, width = model.visionConfig.hidden;
    model.vision->begin(pixels.data(), nullptr);
    std::vector<float> states(size_t(patches * width));
    model.vision->lastHidden(states.data());
    const test::Floats attention(d, patches, width), feedForward(d, patches, width);
    model.vision->step({attention, feedForward});
    CHECK(attention.values() == states);
    CHECK(feedForward.values() != states);
  }
}

TEST(kv_cache_says_what_fits_when_memory_ends) {
  const auto device = makeCpu(1);
  const KvLayout layout{2, 2, 16, DType::f16};
  SmallTap tap;
  tap.page = layout.pageBytes(), tap.left = 3 * tap.page + 100;
  device->setTap(&tap);
  KvPool pool(*device, layout, 100);
  KvSequence one(pool), other(pool);
  one.grow(2 * kPageTokens);
  CHECK_FAILS(other.grow(3 * kPageTokens), Code::outOfMemory, "holds " + std::to_string(3 * kPageTokens) + " tokens");
  try {
    other.grow(4 * kPageTokens);
    CHECK(false);
  } catch (const Error& e) {
    CHECK(e.message().find("lower contextSize * maxSequences to that, set kvCacheType to q8_0") != std::string::npos);
  }
  // what it says does fit, when the others have ended
  { KvSequence ended = std::move(other); }
  one.grow(3 * kPageTokens);
  CHECK_EQUAL(pool.usedPages(), int64_t(3));
}
