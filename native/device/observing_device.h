#pragma once
// A device that passes every op on to another and sums up the squares of what enters each matrix product: what
// importance matrices are made of. Models that nobody observes never see it.
#include <unordered_map>
#include <vector>

#include "device/device.h"

namespace pg {

class ObservingDevice : public Device {
 public:
  // Rows of pictures and of words are told apart: they differ, and pictures have far more of them.
  struct Kind {
    int64_t rows = 0;              // seen
    std::vector<double> squares;   // [in], summed over these rows
  };
  struct Inputs {
    Kind pictures, words;
    int64_t pass = 0, passRows = 0;  // of that pass, rows seen
  };

  explicit ObservingDevice(std::unique_ptr<Device> inner) : inner_(std::move(inner)) {}

  // Of the rows that each matrix sees from now on, the first so many are of pictures.
  void beginPass(int64_t pictureRows);
  // nullptr where the matrix has not been used. Products with the same weights share an entry.
  const Inputs* inputs(const Linear& linear) const;

  const char* name() const override { return inner_->name(); }
  std::string isa() const override { return inner_->isa(); }
  int threads() const override { return inner_->threads(); }
  Buffer allocate(size_t bytes) override { return inner_->allocate(bytes); }
  void setCancel(const CancelFlag* flag) override { inner_->setCancel(flag); }
  Buffer pack(std::span<Linear* const> weights) override { return inner_->pack(weights); }
  void matmul(ConstView x, std::span<const MatmulJob> jobs) override;
  void geglu(View out, ConstView x, const Linear& gate, const Linear& up) override;
  void embed(View out, ConstView table, std::span<const int32_t> ids, float scale) override {
    inner_->embed(out, table, ids, scale);
  }
  void rmsNorm(View out, ConstView x, const float* weight, float eps, bool add) override {
    inner_->rmsNorm(out, x, weight, eps, add);
  }
  void layerNorm(View out, ConstView x, const float* weight, const float* bias, float eps) override {
    inner_->layerNorm(out, x, weight, bias, eps);
  }
  void rope(View x, std::span<const int64_t> positions, int64_t headDim, float theta) override {
    inner_->rope(x, positions, headDim, theta);
  }
  void storeKv(const KvView& kv, int64_t layer, ConstView k, ConstView v, int64_t position) override {
    inner_->storeKv(kv, layer, k, v, position);
  }
  void attention(std::span<const AttentionJob> jobs, int64_t layer, float scale, float softcap,
                 Precision precision) override {
    inner_->attention(jobs, layer, scale, softcap, precision);
  }
  void denseAttention(View out, ConstView q, ConstView k, ConstView v, int64_t heads, float scale,
                      Precision precision) override {
    inner_->denseAttention(out, q, k, v, heads, scale, precision);
  }
  void add(View x, ConstView y) override { inner_->add(x, y); }
  void softcap(View x, float cap) override { inner_->softcap(x, cap); }
  void gelu(View gate, ConstView up) override { inner_->gelu(gate, up); }
  void copy(View out, ConstView in) override { inner_->copy(out, in); }
  void upload(View out, const void* data) override { inner_->upload(out, data); }
  void download(void* data, ConstView in) override { inner_->download(data, in); }

 protected:
  // Rows [x.rows, x.cols] are about to enter these matrices, in the order of the pass.
  virtual void observe(ConstView x, std::span<const Linear* const> linears);

 private:
  void release(uint8_t*, size_t) noexcept override {}   // buffers belong to the inner device

  std::unique_ptr<Device> inner_;
  int64_t pass_ = 0, pictureRows_ = 0;
  std::unordered_map<const void*, Inputs> inputs_;       // by the weights' address
};

}  // namespace pg
