#pragma once
// Fewer vectors for a page: similar ones become one.
#include <cstdint>
#include <vector>

namespace pg {

struct PooledTokens {
  std::vector<float> vectors;     // [clusters, dims], each the mean of its members, of length 1
  std::vector<int32_t> cluster;   // of every token; numbered in the order of their first tokens
};

// Hierarchical clustering by Ward's criterion down to `clusters` (fewer where distances are equal). As colpali-engine
// does it, tokens are compared by their rows of the matrix of cosine distances: by how they relate to all tokens.
// vectors: [tokens, dims], of length 1. Memory: 4 tokens^2 bytes.
PooledTokens poolTokens(const float* vectors, int64_t tokens, int64_t dims, int64_t clusters);

}  // namespace pg
