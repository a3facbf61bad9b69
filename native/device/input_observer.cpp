#include "device/input_observer.h"

#include <algorithm>

namespace pg {

const InputObserver::Inputs* InputObserver::inputs(const Linear& linear) const {
  const auto found = inputs_.find(linear.weight.address());
  return found == inputs_.end() ? nullptr : &found->second;
}

void InputObserver::beginPass(int64_t pictureRows) {
  ++pass_;
  pictureRows_ = pictureRows;
}

// In the caller's thread and in the order of the rows, so that the sums do not depend on the number of threads.
void InputObserver::products(Device& device, ConstView x, std::span<const Linear* const> linears) {
  std::vector<float> rows(size_t(x.rows * x.cols));
  device.download(rows.data(), x);
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
  const Inputs& first = inputs_[linears[0]->weight.address()];
  const int64_t pictures = std::clamp<int64_t>(pictureRows_ - (first.pass == pass_ ? first.passRows : 0), 0, x.rows);
  const std::vector<double> ofPictures = squaresOf(0, pictures), ofWords = squaresOf(pictures, x.rows);
  for (const Linear* linear : linears) {
    Inputs& inputs = inputs_[linear->weight.address()];
    add(inputs.pictures, pictures, ofPictures);
    add(inputs.words, x.rows - pictures, ofWords);
    inputs.passRows = (inputs.pass == pass_ ? inputs.passRows : 0) + x.rows;
    inputs.pass = pass_;
  }
}

}  // namespace pg
