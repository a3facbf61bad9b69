#pragma once
// What becomes of a product's sums y, their bias added: out = y, out = gelu_tanh(y), out += y, or, of two products with
// the same x, out = gelu_tanh(y) * second.
namespace pg {

enum class Epilogue { store, gelu, add, geglu };

}  // namespace pg
