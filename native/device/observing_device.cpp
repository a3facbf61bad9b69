#include "device/observing_device.h"

namespace pg {

const ObservingDevice::Inputs* ObservingDevice::inputs(const Linear& linear) const {
  const auto found = inputs_.find(linear.weight.data);
  return found == inputs_.end() ? nullptr : &found->second;
}

// In the caller's thread and in the order of the rows, so that the sums do not depend on the number of threads.
void ObservingDevice::observe(ConstView x, std::span<const Linear* const> linears) {
  rows_.resize(size_t(x.rows * x.cols));
  inner_->download(rows_.data(), x);
  std::vector<double> squares(size_t(x.cols), 0.0);
  for (int64_t r = 0; r < x.rows; ++r) {
    const float* row = rows_.data() + r * x.cols;
    for (int64_t c = 0; c < x.cols; ++c) squares[size_t(c)] += double(row[c]) * row[c];
  }
  for (const Linear* linear : linears) {
    Inputs& inputs = inputs_[linear->weight.data];
    inputs.squares.resize(size_t(x.cols), 0.0);
    inputs.rows += x.rows;
    for (int64_t c = 0; c < x.cols; ++c) inputs.squares[size_t(c)] += squares[size_t(c)];
  }
}

void ObservingDevice::matmul(ConstView x, std::span<const MatmulJob> jobs) {
  std::vector<const Linear*> linears;
  for (const MatmulJob& job : jobs) linears.push_back(job.linear);
  observe(x, linears);   // before: an output may take the input's place
  inner_->matmul(x, jobs);
}

void ObservingDevice::geglu(View out, ConstView x, const Linear& gate, const Linear& up) {
  const Linear* const linears[] = {&gate, &up};
  observe(x, linears);
  inner_->geglu(out, x, gate, up);
}

}  // namespace pg
