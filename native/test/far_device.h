#pragma once
// A device like a GPU, for tests: its memory is at addresses that the host cannot follow, ops of a submission run when
// it ends, and weights leave their files. It computes with a CpuDevice that it keeps to itself.
#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "cpu/cpu_device.h"

namespace pg::test {

class FarDevice final : public Device {
 public:
  // Other limits than the CPU's: a model that knows the CPU's numbers would show.
  FarDevice(const Kernels& kernels, int threads,
            DeviceLimits limits = {.stepRows = 3, .blockRows = 48, .jobs = 5, .topK = 16})
      : inner_(kernels, threads), limits_(limits) {}

  const char* name() const override { return "far"; }
  std::string isa() const override { return inner_.isa(); }
  DeviceLimits limits() const override { return limits_; }
  void setCancel(const CancelFlag* flag) override { inner_.setCancel(flag); }

  int64_t gathered = 0;   // ops that did not run at once

 protected:
  Buffer doAllocate(size_t bytes) override { return Buffer(std::make_unique<Far>(*this, inner_.allocate(bytes))); }

  std::vector<Buffer> doPlace(std::span<const Placement> weights) override {
    std::vector<Buffer> buffers;
    for (const Placement& w : weights) {
      Buffer& buffer = buffers.emplace_back(doAllocate(bytesFor(w.host.type, w.host.cols) * size_t(w.host.rows)));
      const View view = buffer.view(w.host.type, w.host.rows, w.host.cols);
      std::vector<uint8_t> rows(view.bytes());
      for (int64_t r = 0; r < view.rows; ++r)
        std::memcpy(rows.data() + size_t(r) * view.stride, w.host.row<uint8_t>(r), view.stride);
      doUpload(view, rows.data());
      *w.to = view;
    }
    return buffers;
  }

  void doBegin() override { gathering_ = true; }
  void doEnd(bool complete) override {
    gathering_ = false;
    if (complete) flush();
    queue_.clear();
  }
  void doMatmul(ConstView x, std::span<const MatmulJob> jobs) override {
    later([this, x = near(x), outs = copied(jobs), linears = nearLinears(jobs)] {
      std::vector<MatmulJob> near = outs;
      for (size_t i = 0; i < near.size(); ++i) near[i].linear = &linears[i];
      inner_.matmul(x, near);
    });
  }
  void doGeglu(View out, ConstView x, const Linear& gate, const Linear& up) override {
    later([this, out = near(out), x = near(x), gate = near(gate), up = near(up)] { inner_.geglu(out, x, gate, up); });
  }
  void doGelu(View gate, ConstView up) override {
    later([this, gate = near(gate), up = near(up)] { inner_.gelu(gate, up); });
  }
  void doEmbed(View out, ConstView table, ConstView ids, float scale) override {
    later([=, this, out = near(out), table = near(table), ids = near(ids)] { inner_.embed(out, table, ids, scale); });
  }
  void doRmsNorm(View out, ConstView x, ConstView weight, float eps, bool add) override {
    later([=, this, out = near(out), x = near(x), weight = near(weight)] { inner_.rmsNorm(out, x, weight, eps, add); });
  }
  void doLayerNorm(View out, ConstView x, ConstView weight, ConstView bias, float eps) override {
    later([=, this, out = near(out), x = near(x), weight = near(weight), bias = near(bias)] {
      inner_.layerNorm(out, x, weight, bias, eps);
    });
  }
  void doRope(View x, ConstView positions, int64_t headDim, float theta) override {
    later([=, this, x = near(x), positions = near(positions)] { inner_.rope(x, positions, headDim, theta); });
  }
  void doStoreKv(const KvView& kv, int64_t layer, ConstView k, ConstView v, ConstView positions) override {
    later([=, this, k = near(k), v = near(v), positions = near(positions)] {
      std::vector<Buffer> tables;
      inner_.storeKv(near(kv, tables), layer, k, v, positions);
    });
  }
  void doAttention(std::span<const AttentionJob> jobs, const AttentionParams& params) override {
    later([this, far = std::vector<AttentionJob>(jobs.begin(), jobs.end()), params] {
      std::vector<Buffer> tables;
      std::vector<AttentionJob> jobs;
      for (const AttentionJob& job : far)
        jobs.push_back({near(job.out), near(job.q), near(job.kv, tables), near(job.positions), job.mask});
      inner_.attention(jobs, params);
    });
  }
  void doDenseAttention(View out, ConstView q, ConstView k, ConstView v, int64_t heads, float scale,
                        Precision precision) override {
    later([=, this, out = near(out), q = near(q), k = near(k), v = near(v)] {
      inner_.denseAttention(out, q, k, v, heads, scale, precision);
    });
  }
  void doAdd(View x, ConstView y) override {
    later([this, x = near(x), y = near(y)] { inner_.add(x, y); });
  }
  void doSoftcap(View x, float cap) override {
    later([this, x = near(x), cap] { inner_.softcap(x, cap); });
  }
  void doArgmax(View ids, ConstView x) override {
    later([this, ids = near(ids), x = near(x)] { inner_.argmax(ids, x); });
  }
  void doTopK(View ids, View values, ConstView x) override {
    later([this, ids = near(ids), values = near(values), x = near(x)] { inner_.topK(ids, values, x); });
  }
  void doMatmulGrad(View dx, ConstView dy, const Linear& linear, bool add) override {
    later([=, this, dx = near(dx), dy = near(dy), linear = near(linear)] { inner_.matmulGrad(dx, dy, linear, add); });
  }
  void doDropout(View out, ConstView x, const Dropout& dropout, bool add) override {
    later([=, this, out = near(out), x = near(x)] { inner_.dropout(out, x, dropout, add); });
  }
  void doAddOuter(View out, ConstView y, ConstView x, float scale) override {
    later([=, this, out = near(out), y = near(y), x = near(x)] { inner_.addOuter(out, y, x, scale); });
  }
  void doGegluGrad(View gate, View up, ConstView d) override {
    later([this, gate = near(gate), up = near(up), d = near(d)] { inner_.gegluGrad(gate, up, d); });
  }
  void doGeluGrad(View d, ConstView x) override {
    later([this, d = near(d), x = near(x)] { inner_.geluGrad(d, x); });
  }
  void doRmsNormGrad(View dx, ConstView dy, ConstView x, ConstView weight, float eps, bool add) override {
    later([=, this, dx = near(dx), dy = near(dy), x = near(x), weight = near(weight)] {
      inner_.rmsNormGrad(dx, dy, x, weight, eps, add);
    });
  }
  void doLayerNormGrad(View dx, ConstView dy, ConstView x, ConstView weight, float eps, bool add) override {
    later([=, this, dx = near(dx), dy = near(dy), x = near(x), weight = near(weight)] {
      inner_.layerNormGrad(dx, dy, x, weight, eps, add);
    });
  }
  void doRopeGrad(View d, ConstView positions, int64_t headDim, float theta) override {
    later([=, this, d = near(d), positions = near(positions)] { inner_.ropeGrad(d, positions, headDim, theta); });
  }
  void doAttentionGrad(const AttentionGrad& far) override {
    later([this, far] {
      AttentionGrad job = far;
      for (View* view : {&job.dq, &job.dk, &job.dv}) *view = near(*view);
      for (ConstView* view : {&job.dout, &job.q, &job.k, &job.v}) *view = near(*view);
      inner_.attentionGrad(job);
    });
  }
  void doSoftmaxLoss(View losses, View logits, ConstView targets, float cap) override {
    later([=, this, losses = near(losses), logits = near(logits), targets = near(targets)] {
      inner_.softmaxLoss(losses, logits, targets, cap);
    });
  }
  void doCopy(View out, ConstView in) override {
    later([this, out = near(out), in = near(in)] { inner_.copy(out, in); });
  }
  void doUpload(View out, const void* data) override {
    flush();
    inner_.upload(near(out), data);
  }
  void doDownload(void* data, ConstView in) override {
    flush();
    inner_.download(data, near(in));
  }

 private:
  // Addresses that no process has, so following one ends the test; they are never used twice.
  struct Far final : Memory {
    Far(FarDevice& d, Buffer buffer) : Memory(d.next_, buffer.bytes()), device(d), near(std::move(buffer)) {
      device.next_ += (bytes + 4096) & ~uint64_t(4095);
      device.memories_[address] = this;
    }
    ~Far() override { device.memories_.erase(address); }
    FarDevice& device;
    Buffer near;
  };

  template <bool kConst>
  static BasicView<kConst> near(BasicView<kConst> far) {
    if (!far) return far;
    far.memory = static_cast<const Far*>(far.memory)->near.memory();
    return far;
  }
  static Linear near(const Linear& far) { return {near(far.weight), near(far.bias)}; }
  static std::vector<MatmulJob> copied(std::span<const MatmulJob> jobs) {
    std::vector<MatmulJob> list(jobs.begin(), jobs.end());
    for (MatmulJob& job : list) job.out = near(job.out);
    return list;
  }
  static std::vector<Linear> nearLinears(std::span<const MatmulJob> jobs) {
    std::vector<Linear> list;
    for (const MatmulJob& job : jobs) list.push_back(near(*job.linear));
    return list;
  }
  // The page table holds this device's addresses; the one that computes needs its own.
  KvView near(const KvView& far, std::vector<Buffer>& tables) {
    const int64_t pages = far.pages.rows;
    std::vector<uint64_t> addresses(static_cast<size_t>(pages));
    inner_.download(addresses.data(), near(far.pages));
    for (uint64_t& address : addresses) address = memories_.at(address)->near.memory()->address;
    const View table = tables.emplace_back(inner_.allocate(size_t(pages) * 8)).view(DType::i64, pages, 1);
    inner_.upload(table, addresses.data());
    return {far.layout, table, far.tokens};
  }

  template <class Work>
  void later(Work&& work) {
    if (!gathering_) return work();
    queue_.push_back(std::forward<Work>(work));
    ++gathered;
  }
  void flush() {
    // what follows one that fails never runs: its memory may be gone
    for (const auto& work : std::exchange(queue_, {})) work();
  }

  CpuDevice inner_;
  DeviceLimits limits_;
  uint64_t next_ = 0xdead'0000'0000'0000;
  std::map<uint64_t, Far*> memories_;
  std::vector<std::function<void()>> queue_;
  bool gathering_ = false;
};

}  // namespace pg::test
