#include "retrieval/token_pooling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace pg {
namespace {

// Points whose distances are those of the rows of 1 - E E^T: |S_i - S_j|^2 = d^T (E^T E) d for d = e_i - e_j, so
// y = L^T e with E^T E = L L^T. dims values a point instead of `tokens`, and equal tokens stay at distance 0.
std::vector<double> similarityPoints(const float* e, int64_t tokens, int64_t dims) {
  const size_t n = size_t(dims);
  std::vector<double> l(n * n, 0.0);   // E^T E, then its lower triangular factor
  for (int64_t t = 0; t < tokens; ++t) {
    const float* row = e + t * dims;
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j <= i; ++j) l[i * n + j] += double(row[i]) * double(row[j]);
  }
  double trace = 0;
  for (size_t i = 0; i < n; ++i) trace += l[i * n + i];
  const double least = trace * 1e-13;   // fewer tokens than dimensions: the matrix has no full rank
  for (size_t j = 0; j < n; ++j) {
    double pivot = l[j * n + j];
    for (size_t k = 0; k < j; ++k) pivot -= l[j * n + k] * l[j * n + k];
    const bool usable = pivot > least;
    const double root = usable ? std::sqrt(pivot) : 0;
    l[j * n + j] = root;
    for (size_t i = j + 1; i < n; ++i) {
      double sum = l[i * n + j];
      for (size_t k = 0; k < j; ++k) sum -= l[i * n + k] * l[j * n + k];
      l[i * n + j] = usable ? sum / root : 0;
    }
  }
  std::vector<double> points(size_t(tokens) * n, 0.0);
  for (int64_t t = 0; t < tokens; ++t)
    for (size_t i = 0; i < n; ++i) {
      const double value = e[t * dims + int64_t(i)];
      double* point = points.data() + size_t(t) * n;
      for (size_t j = 0; j <= i; ++j) point[j] += l[i * n + j] * value;
    }
  return points;
}

// Squared distances of all pairs, each once.
class Distances {
 public:
  Distances(const std::vector<double>& points, int64_t count, int64_t dims)
      : count_(count), d_(size_t(count * (count - 1) / 2)) {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = i + 1; j < count; ++j) {
        const double *a = points.data() + i * dims, *b = points.data() + j * dims;
        double sum = 0;
        for (int64_t k = 0; k < dims; ++k) sum += (a[k] - b[k]) * (a[k] - b[k]);
        at(i, j) = sum;
      }
  }
  double& at(int64_t i, int64_t j) {
    if (i > j) std::swap(i, j);
    return d_[size_t(i * (2 * count_ - i - 1) / 2 + j - i - 1)];
  }

 private:
  int64_t count_;
  std::vector<double> d_;
};

struct ClusterMerge {
  int64_t a, b;    // tokens of the two clusters
  double height;   // squared distance
};

// All merges, by the nearest-neighbour chain: two clusters that are each other's nearest may be merged at once, since
// under Ward's criterion no later merge comes nearer. n^2 steps.
std::vector<ClusterMerge> wardMerges(Distances& d, int64_t count) {
  std::vector<int64_t> size(size_t(count), 1), chain;
  std::vector<ClusterMerge> merges;
  int64_t next = 0;   // all before are merged into others
  while (int64_t(merges.size()) < count - 1) {
    if (chain.empty()) {
      while (size[size_t(next)] == 0) ++next;
      chain.push_back(next);
    }
    int64_t x, y;
    double nearest;
    for (;;) {
      x = chain.back();
      y = chain.size() > 1 ? chain[chain.size() - 2] : -1;   // preferred among equals, so that chains end
      nearest = y >= 0 ? d.at(x, y) : std::numeric_limits<double>::infinity();
      for (int64_t i = 0; i < count; ++i)
        if (i != x && size[size_t(i)] > 0 && (y < 0 || d.at(x, i) < nearest)) {
          nearest = d.at(x, i);
          y = i;
        }
      if (chain.size() > 1 && y == chain[chain.size() - 2]) break;
      chain.push_back(y);
    }
    chain.resize(chain.size() - 2);
    merges.push_back({x, y, nearest});
    const double nx = double(size[size_t(x)]), ny = double(size[size_t(y)]);
    for (int64_t i = 0; i < count; ++i) {
      const double ni = double(size[size_t(i)]);
      if (i == x || i == y || ni == 0) continue;
      d.at(y, i) = ((nx + ni) * d.at(x, i) + (ny + ni) * d.at(y, i) - ni * nearest) / (nx + ny + ni);
    }
    size[size_t(y)] += size[size_t(x)];
    size[size_t(x)] = 0;
  }
  return merges;
}

}  // namespace

PooledTokens poolTokens(const float* vectors, int64_t tokens, int64_t dims, int64_t clusters) {
  std::vector<int64_t> parent(size_t(tokens), 0);
  std::iota(parent.begin(), parent.end(), int64_t(0));
  const auto root = [&](int64_t t) {
    while (parent[size_t(t)] != t) t = parent[size_t(t)] = parent[size_t(parent[size_t(t)])];
    return t;
  };
  if (clusters < tokens) {
    Distances d(similarityPoints(vectors, tokens, dims), tokens, dims);
    std::vector<ClusterMerge> merges = wardMerges(d, tokens);
    std::stable_sort(merges.begin(), merges.end(),
                     [](const ClusterMerge& a, const ClusterMerge& b) { return a.height < b.height; });
    // merges of equal height go together
    const double cut = merges[size_t(tokens - clusters - 1)].height;
    for (const ClusterMerge& merge : merges)
      if (merge.height <= cut) parent[size_t(root(merge.a))] = root(merge.b);
  }
  PooledTokens pooled;
  pooled.cluster.resize(size_t(tokens));
  std::vector<int32_t> number(size_t(tokens), -1);
  std::vector<double> sums;   // of members; their mean has the same direction
  int32_t count = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    int32_t& cluster = number[size_t(root(t))];
    if (cluster < 0) {
      cluster = count++;
      sums.resize(size_t(count) * size_t(dims), 0.0);
    }
    pooled.cluster[size_t(t)] = cluster;
    for (int64_t k = 0; k < dims; ++k)
      sums[size_t(cluster) * size_t(dims) + size_t(k)] += double(vectors[t * dims + k]);
  }
  pooled.vectors.resize(sums.size());
  for (size_t at = 0; at < sums.size(); at += size_t(dims)) {
    double squares = 0;
    for (size_t k = 0; k < size_t(dims); ++k) squares += sums[at + k] * sums[at + k];
    const double scale = squares > 0 ? 1 / std::sqrt(squares) : 0;
    for (size_t k = 0; k < size_t(dims); ++k) pooled.vectors[at + k] = float(sums[at + k] * scale);
  }
  return pooled;
}

}  // namespace pg
