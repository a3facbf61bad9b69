#pragma once
// Where the tokenizer looks pieces up: by their whole spelling, and the longest one at a place of the text.
#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

namespace pg {

inline constexpr std::string_view kSpace = "\xe2\x96\x81";  // U+2581, how pieces spell a space

// GGUF's token types.
enum class PieceKind : uint8_t { normal = 1, unknown = 2, control = 3, userDefined = 4, unused = 5, byte = 6 };

// Bytes of the character that starts at p: 1 for a stray byte.
inline size_t characterLength(const char* p, const char* end) {
  const uint8_t lead = uint8_t(*p);
  const size_t claimed = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  size_t length = 1;
  while (length < claimed && p + length < end && (uint8_t(p[length]) & 0xc0) == 0x80) ++length;
  return length;
}

inline uint32_t hashOf(std::string_view text) {
  uint64_t h = text.size() * 0x9e3779b97f4a7c15ull;
  const char* p = text.data();
  size_t left = text.size();
  for (; left >= 8; p += 8, left -= 8) {
    uint64_t word;
    memcpy(&word, p, 8);
    h = (h ^ word) * 0xff51afd7ed558ccdull;
    h ^= h >> 32;
  }
  uint64_t word = 0;
  if (left) memcpy(&word, p, left);
  h = (h ^ word) * 0xc4ceb9fe1a85ec53ull;
  return uint32_t(h >> 32) ^ uint32_t(h);
}

// Piece text -> id, open addressing; holds only the pieces that merges may reach.
class PieceMap {
 public:
  void reserve(size_t count) {
    size_t slots = 16;
    while (slots < count * 2) slots *= 2;
    slots_.assign(slots, {0, -1});
  }
  // The first of equal pieces stays.
  void insert(const std::vector<std::string_view>& pieces, int32_t id) {
    const uint32_t hash = hashOf(pieces[size_t(id)]);
    Slot& slot = slotOf(pieces, pieces[size_t(id)], hash);
    if (slot.id < 0) slot = {hash, id};
  }
  int32_t find(const std::vector<std::string_view>& pieces, std::string_view text) const {
    return const_cast<PieceMap*>(this)->slotOf(pieces, text, hashOf(text)).id;
  }

 private:
  struct Slot {
    uint32_t hash;
    int32_t id;  // -1: empty
  };
  Slot& slotOf(const std::vector<std::string_view>& pieces, std::string_view text, uint32_t hash) {
    const size_t mask = slots_.size() - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
      Slot& slot = slots_[i];
      if (slot.id < 0 || (slot.hash == hash && pieces[size_t(slot.id)] == text)) return slot;
    }
  }
  std::vector<Slot> slots_;
};

// Pieces matched in the text before any merging, longest first.
class PieceTrie {
 public:
  PieceTrie() : nodes_(1), edges_(256) { root_.fill(-1); }

  void insert(std::string_view piece, int32_t id, bool control) {
    int32_t node = 0;
    for (const char c : piece) node = childOrNew(node, uint8_t(c));
    int32_t& end = control ? nodes_[size_t(node)].controlId : nodes_[size_t(node)].id;
    if (end < 0) end = id;
  }

  bool startsWith(char first) const { return root_[uint8_t(first)] >= 0; }

  // Longest piece at the start of text: its id and length, or -1.
  std::pair<int32_t, size_t> longest(std::string_view text, bool allowControl) const {
    std::pair<int32_t, size_t> best{-1, 0};
    int32_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      node = child(node, uint8_t(text[i]));
      if (node < 0) break;
      const Node& at = nodes_[size_t(node)];
      if (allowControl && at.controlId >= 0) best = {at.controlId, i + 1};
      else if (at.id >= 0) best = {at.id, i + 1};
    }
    return best;
  }

 private:
  struct Node {
    int32_t id = -1, controlId = -1;
  };
  struct Edge {
    uint64_t key = 0;  // parent * 256 + byte + 1; 0: empty
    int32_t node = -1;
  };

  template <class Edges>
  static auto& edgeOf(Edges& edges, uint64_t key) {
    const size_t mask = edges.size() - 1;
    size_t i = size_t((key * 0x9e3779b97f4a7c15ull) >> 32) & mask;
    while (edges[i].key && edges[i].key != key) i = (i + 1) & mask;
    return edges[i];
  }

  int32_t child(int32_t node, uint8_t byte) const {
    if (node == 0) return root_[byte];
    return edgeOf(edges_, uint64_t(node) * 256 + byte + 1).node;
  }
  int32_t childOrNew(int32_t node, uint8_t byte) {
    const int32_t found = child(node, byte);
    if (found >= 0) return found;
    const int32_t made = int32_t(nodes_.size());
    nodes_.push_back({});
    if (node == 0) return root_[byte] = made;
    if (++used_ * 2 > edges_.size()) {
      std::vector<Edge> larger(edges_.size() * 2);
      for (const Edge& edge : edges_)
        if (edge.key) edgeOf(larger, edge.key) = edge;
      edges_.swap(larger);
    }
    const uint64_t key = uint64_t(node) * 256 + byte + 1;
    edgeOf(edges_, key) = {key, made};
    return made;
  }
  std::array<int32_t, 256> root_;
  std::vector<Node> nodes_;
  std::vector<Edge> edges_;
  size_t used_ = 0;
};

}  // namespace pg
