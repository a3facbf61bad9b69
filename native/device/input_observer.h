#pragma once
// Sums up the squares of what enters each matrix product: what importance matrices are made of.
#include <unordered_map>
#include <vector>

#include "device/device.h"

namespace pg {

class InputObserver final : public Tap {
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

  // Of the rows that each matrix sees from now on, the first so many are of pictures.
  void beginPass(int64_t pictureRows);
  // nullptr where the matrix has not been used. Products with the same weights share an entry.
  const Inputs* inputs(const Linear& linear) const;

  void products(Device& device, ConstView x, std::span<const Linear* const> linears) override;

 private:
  int64_t pass_ = 0, pictureRows_ = 0;
  std::unordered_map<uint64_t, Inputs> inputs_;  // by the weights' address
};

}  // namespace pg
