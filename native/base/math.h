#pragma once
// Whole-number arithmetic of sizes; n >= 0, to > 0.
namespace pg {

template <class Int>
constexpr Int ceilDiv(Int n, Int to) {
  return (n + to - 1) / to;
}

template <class Int>
constexpr Int roundUp(Int n, Int to) {
  return ceilDiv(n, to) * to;
}

}  // namespace pg
