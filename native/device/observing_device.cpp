#include "device/observing_device.h"

#include <algorithm>

namespace pg {

const ObservingDevice::Inputs* ObservingDevice::inputs(const Linear& linear) const {
  const auto found = inputs_.find(linear.weight.data);
  return found == inputs_.end() ? nullptr : &found->second;
}

void ObservingDevice::beginPass(int64_t pictureRows) {
  ++pass_;
  pictureRows_ = pictureRows;
}

// In the caller's thread and in the order of the rows, so that the sums do not depend on the number of threads.
void ObservingDevice::observe(ConstView x, std::span<const Linear* const> linears) {
  std::vector<float> rows(size_t(x.rows * x.cols));
  inner_->download(rows.data(), x);
  const auto squaresOf = [&](int64_t begin, int64_t end) {
    std::vector<double> squares(size_t(x.cols), 0.0);
    for (int64_t r = begin; r < end; ++r) {
      const float* row = rows.data() + r * x.cols;
      for (int64_t c = 0; c < x.cols; ++c) squares[size_t(c)] += double(row[c]) * row[c];
    }
    return squares;
  };
  const auto add = [](Kind& kind, int64_t count, const std::vector<double>& squares) {
    kind.rows += count;
    kind.squares.resize(squares.size(), 0.0);
    for (size_t c = 0; c < squares.size(); ++c) kind.squares[c] += squares[c];
  };
  // matrices that share their input have seen the same rows before
  const Inputs& first = inputs_[linears[0]->weight.data];
  const int64_t pictures = std::clamp<int64_t>(pictureRows_ - (first.pass == pass_ ? first.passRows : 0), 0, x.rows);
  const std::vector<double> ofPictures = squaresOf(0, pictures), ofWords = squaresOf(pictures, x.rows);
  for (const Linear* linear : linears) {
    Inputs& inputs = inputs_[linear->weight.data];
    add(inputs.pictures, pictures, ofPictures);
    add(inputs.words, x.rows - pictures, ofWords);
    inputs.passRows = (inputs.pass == pass_ ? inputs.passRows : 0) + x.rows;
    inputs.pass = pass_;
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
