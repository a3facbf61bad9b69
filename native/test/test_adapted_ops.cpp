// What adapters add to rows of several requests, in one submission of a device that runs its ops later.
#include "adapters_fixture.h"
#include "check.h"
#include "model/adapted_ops.h"
#include "tiny_gguf.h"

using namespace pg;

namespace {

// A query product and a gated feed-forward of rows that grow in number and in rank: first as one submission, then op
// by op.
std::vector<float> run(std::unique_ptr<Device> own, bool together) {
  const std::string path = test::temporaryPath("adapted-ops.gguf");
  LoadOptions options;
  options.path = test::TinyModel().write(path);
  Model model(options, std::move(own));
  std::remove(path.c_str());
  Device& device = *model.device;
  const TextLayer& w = model.weights.text.layers[0];
  const Adapter small = test::adapterOf(model, {"blk.0.attn_q"}, 1, 10),
                large = test::adapterOf(model, {"blk.0.ffn_up"}, 9, 20);
  const std::pair<const Adapter*, float> one{&small, 1.0f}, two{&large, 0.5f}, both[] = {one, two};
  const AdapterSet first(device, {&one, 1}), second(device, {&two, 1}), third(device, both);
  const AdapterRows groups[] = {{&first, 0, 1}, {&third, 1, 1}, {nullptr, 2, 2}, {&second, 4, 5}};
  const int64_t rows = 9;
  const test::Floats x(device, test::randoms(size_t(rows * w.q.in()), 1), rows, w.q.in());
  const test::Floats q(device, std::vector<float>(size_t(rows * w.q.out())), rows, w.q.out());
  const test::Floats wide(device, std::vector<float>(size_t(rows * w.gate.out())), rows, w.gate.out());
  AdaptedOps ops(device);
  const MatmulJob job{q, &w.q};
  const auto query = [&] { ops.matmul(x, {&job, 1}, groups); };
  const auto feedForward = [&] { ops.geglu(wide, x, w.gate, w.up, groups); };
  if (together) device.submit([&] { query(), feedForward(); });
  else query(), feedForward();
  std::vector<float> all = q.values();
  const std::vector<float> more = wide.values();
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

}  // namespace

TEST(adapted_ops_keep_their_memory_until_a_submission_has_run) {
  const std::vector<float> want = run(std::make_unique<CpuDevice>(chooseKernels(), 1), false);
  CHECK(run(std::make_unique<CpuDevice>(chooseKernels(), 2), true) == want);
  CHECK(run(std::make_unique<test::FarDevice>(chooseKernels(), 2), true) == want);
}
