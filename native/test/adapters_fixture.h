#pragma once
// Adapters of random values over matrices of a tiny model.
#include <algorithm>
#include <string>
#include <vector>

#include "ops_fixture.h"
#include "serve/load/model.h"

namespace pg::test {

inline Adapter adapterOf(const Model& model, const std::vector<std::string>& targets, int64_t rank, unsigned seed) {
  TensorMap tensors;
  model.weights.eachMatrix([&](const std::string& name, const Linear& linear) {
    if (std::find(targets.begin(), targets.end(), name) == targets.end()) return;
    tensors.emplace(name + ".weight.lora_a",
                    HostTensor{{rank, linear.in()}, randoms(size_t(rank * linear.in()), ++seed)});
    tensors.emplace(name + ".weight.lora_b",
                    HostTensor{{linear.out(), rank}, randoms(size_t(linear.out() * rank), ++seed)});
  });
  return makeAdapter("test", tensors, model.weights);
}

}  // namespace pg::test
