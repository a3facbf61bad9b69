// What the scheduler relies on: rows of one sequence that enter a step together, and parts of the head, give the
// numbers that one row at a time and the whole head give, to the last bit.
#include <cstdio>
#include <cstring>
#include <random>

#include "base/half.h"
#include "check.h"
#include "cpu/cpu_device.h"
#include "cpu/cpu_info.h"
#include "serve/make_device.h"
#include "device/observing_device.h"
#include "format/quantize.h"
#include "serve/model.h"
#include "tiny_gguf.h"

using namespace pg;

namespace {

struct Fixture {
  std::string path = "/tmp/paligemma-test-decoder.gguf";
  std::unique_ptr<Model> model;
  int64_t vocab;

  explicit Fixture(DType kvCacheType = DType::f16) {
    LoadOptions options;
    options.path = test::TinyModel().write(path);
    options.threads = 2;
    options.kvCacheType = kvCacheType;
    model = std::make_unique<Model>(options);
    vocab = model->textConfig.vocab;
  }
  ~Fixture() {
    model.reset();
    std::remove(path.c_str());
  }
  KvSequence prefilled() {
    KvSequence kv(*model->kvPool);
    const std::vector<int32_t> ids{2, 10, 20, 30, 40, 4};
    model->decoder->beginPrefill(kv, ids, nullptr, int64_t(ids.size()), nullptr);
    while (!model->decoder->stepPrefill()) {}
    return kv;
  }
};

// A machine with so many bytes.
struct SmallDevice final : ObservingDevice {
  using ObservingDevice::ObservingDevice;
  size_t left = 0;
  Buffer allocate(size_t bytes) override {
    if (bytes > left) fail(Code::outOfMemory, "Cannot allocate ", bytes >> 20, " MiB");
    left -= bytes;
    return ObservingDevice::allocate(bytes);
  }
};

const std::vector<int32_t> kTokens{100, 270, 12, 12, 280, 99, 5, 261};

}  // namespace

TEST(decoder_takes_several_tokens_of_a_sequence_as_it_takes_one) {
  for (DType type : {DType::f16, DType::f32}) {
    Fixture f(type);
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
  Fixture f;
  KvSequence a = f.prefilled(), b = f.prefilled(), c = f.prefilled();
  const DecodeRow whole{&a, 100, 6, 6};
  std::vector<float> all(static_cast<size_t>(f.vocab));
  f.model->decoder->decode({&whole, 1}, all.data());
  const std::vector<int32_t> ids{0, 1, 7, 8, 9, 200, int32_t(f.vocab - 1)};
  // in company of a row that wants nothing and one that wants everything
  std::vector<float> out(3 * size_t(f.vocab), -12345.0f);
  const std::vector<DecodeRow> rows{{&a, 55, 7, 6, nullptr, DecodeRow::Head::none},
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

TEST(decoder_weights_by_slices_give_the_same_numbers_for_every_type) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (const std::string& isa : supportedIsas())
    for (DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::q4_0, DType::q4_1, DType::q5_0,
                       DType::q4_k, DType::q5_k, DType::q6_k, DType::q3_k, DType::iq4_nl}) {
      const int64_t n = 301, k = 512;
      std::vector<uint8_t> weight(size_t(n) * bytesFor(type, k));
      std::vector<float> values(static_cast<size_t>(k)), x(static_cast<size_t>(k)), whole(static_cast<size_t>(n)),
          part(static_cast<size_t>(n), -1.0f);
      for (int64_t r = 0; r < n; ++r) {
        for (float& v : values) v = normal(random);
        quantizeRow(type, values.data(), weight.data() + size_t(r) * bytesFor(type, k), k);
      }
      for (float& v : x) v = normal(random);
      CpuDevice device(*kernelsFor(isa), 2);
      Linear linear;
      linear.weight = {weight.data(), type, n, k};
      const View in(reinterpret_cast<uint8_t*>(x.data()), DType::f32, 1, k);
      const auto out = [&](std::vector<float>& to) {
        return View(reinterpret_cast<uint8_t*>(to.data()), DType::f32, 1, n);
      };
      const MatmulJob all{out(whole), &linear};
      device.matmul(in, {&all, 1});
      std::vector<Linear> slices;
      std::vector<MatmulJob> jobs;
      slices.reserve(size_t(n));
      for (int64_t begin = 0, count; begin < n; begin += count) {
        count = std::min<int64_t>(1 + int64_t(random() % 9), n - begin);
        slices.push_back(linear);
        slices.back().weight = linear.weight.slice(begin, count);
        jobs.push_back({out(part).columns(begin, count), &slices.back()});
      }
      device.matmul(in, jobs);
      if (std::memcmp(whole.data(), part.data(), whole.size() * sizeof(float)) != 0)
        throw test::Failure{isa, std::string(dtypeInfo(type)->name) + " differs by slices"};
    }
}

TEST(kv_cache_says_what_fits_when_memory_ends) {
  SmallDevice device(makeDevice("cpu", 1));
  const KvLayout layout{2, 2, 16, DType::f16};
  device.left = 3 * layout.pageBytes() + 100;
  KvPool pool(device, layout, 100);
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
