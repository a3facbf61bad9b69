// Late interaction on every instruction set against plain arithmetic, the page store, and token pooling.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <thread>

#include "check.h"
#include "cpu/cpu_info.h"
#include "retrieval/page_store.h"
#include "retrieval/token_pooling.h"

namespace pg {
namespace {

struct Rows {
  VectorType type;
  int64_t tokens, dims;
  std::vector<uint8_t> bytes;   // one more in front: rows are not aligned
  std::vector<float> values, scales;
  size_t front;

  Rows(VectorType t, int64_t n, int64_t d, unsigned seed)
      : type(t), tokens(n), dims(d), front(t == VectorType::f32 ? 4 : 1) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal(0, 1);
    const size_t row = size_t(rowBytes(type, dims));
    bytes.resize(front + row * size_t(tokens));
    values.resize(size_t(tokens * dims));
    scales.resize(size_t(tokens));
    for (int64_t i = 0; i < tokens; ++i) {
      scales[size_t(i)] = std::exp2(normal(generator) / 2) / 60;
      for (int64_t k = 0; k < dims; ++k) {
        float& value = values[size_t(i * dims + k)];
        value = normal(generator);
        uint8_t* to = bytes.data() + front + row * size_t(i);
        if (type == VectorType::f32) {
          std::memcpy(to + k * 4, &value, 4);
        } else if (type == VectorType::int8) {
          const int8_t level = int8_t(std::clamp(value * 60, -128.0f, 127.0f));
          std::memcpy(to + k, &level, 1);
          value = level;
        } else {
          value = value > 0 ? 1.0f : -1.0f;
          if (value > 0) to[k / 8] = uint8_t(to[k / 8] | 0x80 >> k % 8);
        }
      }
    }
  }
  Vectors view() const { return {type, tokens, dims, bytes.data() + front, scales.data()}; }

  double score(const Rows& page) const {
    double sum = 0;
    for (int64_t q = 0; q < tokens; ++q) {
      double best = -INFINITY;
      for (int64_t p = 0; p < page.tokens; ++p) {
        double dot = 0;
        for (int64_t k = 0; k < dims; ++k)
          dot += double(values[size_t(q * dims + k)]) * double(page.values[size_t(p * dims + k)]);
        if (type == VectorType::int8) dot *= double(page.scales[size_t(p)]);
        best = std::max(best, dot);
      }
      sum += type == VectorType::int8     ? best * double(scales[size_t(q)])
             : type == VectorType::binary ? best / double(dims)
                                          : best;
    }
    return page.tokens ? sum : 0;
  }
};

constexpr VectorType kTypes[] = {VectorType::f32, VectorType::int8, VectorType::binary};

TEST(every_table_scores_as_plain_arithmetic) {
  for (const std::string& isa : supportedIsas()) {
    const MaxSimKernels& kernels = *maxSimKernelsFor(isa);
    for (const VectorType type : kTypes) {
      std::vector<int64_t> widths{1, 2, 3, 5, 7, 8, 31, 63, 64, 65, 127, 128, 200};
      if (type == VectorType::binary) widths.push_back(2500);   // more ones than a byte counts
      for (const int64_t dims : widths)
        for (const int64_t queries : {0, 1, 3, 4, 8, 9, 16, 17, 20, 33, 48})
          for (const int64_t tokens : {0, 1, 2, 5, 6, 7, 8, 11, 12, 13, 25}) {
            const Rows query(type, queries, dims, unsigned(dims * 50 + queries)),
                page(type, tokens, dims, unsigned(tokens * 300 + dims));
            const MaxSimQuery packed(kernels, query.view());
            std::vector<float> scratch(packed.scratchSize());
            Vectors view = page.view();
            std::vector<uint8_t> words(size_t(tokens * bitWords(dims)) * 8);
            if (type == VectorType::binary) {
              widenBits(static_cast<const uint8_t*>(view.data), tokens, dims, words.data());
              view.data = words.data();
            }
            const double want = query.score(page), got = packed.score(view, scratch.data());
            if (!(std::fabs(got - want) <= 1e-5 * (std::fabs(want) + double(queries))))
              throw test::Failure{isa, "type " + std::to_string(int(type)) + ", " + std::to_string(dims) + " dims, " +
                                           std::to_string(queries) + " x " + std::to_string(tokens) + ": " +
                                           std::to_string(got) + " instead of " + std::to_string(want)};
          }
    }
  }
}

TEST(int8_and_binary_scores_are_the_same_on_every_instruction_set) {
  for (const VectorType type : {VectorType::int8, VectorType::binary}) {
    const Rows query(type, 23, 128, 1), page(type, 77, 128, 2);
    std::vector<double> scores;
    for (const std::string& isa : supportedIsas()) {
      const MaxSimQuery packed(*maxSimKernelsFor(isa), query.view());
      std::vector<float> scratch(packed.scratchSize());
      scores.push_back(packed.score(page.view(), scratch.data()));
    }
    for (const double score : scores) CHECK_EQUAL(score, scores.front());
  }
}

TEST(page_store_finds_the_best_pages_whatever_the_number_of_threads) {
  for (const VectorType type : kTypes) {
    const Rows query(type, 20, 40, 9);
    PageStore store(type, 40);
    std::vector<PageHit> want;
    for (int64_t i = 0; i < 5000; ++i) {   // more than a chunk's pages
      const Rows page(type, 1 + i % 7, 40, unsigned(i % 900));   // equal scores too
      CHECK_EQUAL(store.add(page.view()), i);
      if (i % 11 == 3) store.remove(i);
      else want.push_back({i, query.score(page)});
    }
    store.remove(3);   // again
    CHECK_EQUAL(store.removed(), 5000 - int64_t(want.size()));
    const MaxSimQuery packed(chooseMaxSimKernels(), query.view());
    std::vector<PageHit> first;
    for (const int threads : {1, 2, 5}) {
      ThreadPool pool(threads);
      const auto snapshot = store.snapshot();
      const auto hits = snapshot.search(packed, 0, store.pages(), 100, pool);
      CHECK_EQUAL(hits.size(), size_t(100));
      if (first.empty()) first = hits;
      for (size_t i = 0; i < hits.size(); ++i) {
        CHECK_EQUAL(hits[i].page, first[i].page);
        CHECK_EQUAL(hits[i].score, first[i].score);
        if (i > 0)
          CHECK(hits[i - 1].score > hits[i].score ||
                (hits[i - 1].score == hits[i].score && hits[i - 1].page < hits[i].page));
      }
      std::vector<int64_t> pages;
      for (const PageHit& hit : want) pages.push_back(hit.page);
      const auto scores = snapshot.score(packed, pages, pool);
      double best = -INFINITY;
      for (size_t i = 0; i < want.size(); ++i) {
        CHECK_CLOSE(scores[i], want[i].score, 1e-5 * (std::fabs(want[i].score) + 20));
        best = std::max(best, scores[i]);
      }
      CHECK_EQUAL(hits.front().score, best);
      CHECK(std::isnan(snapshot.score(packed, {3}, pool)[0]));
      CHECK_EQUAL(snapshot.search(packed, 10, 12, 100, pool).size(), size_t(2));
      CHECK_EQUAL(snapshot.search(packed, 14, 15, 100, pool).size(), size_t(0));   // removed
    }
  }
}

TEST(a_snapshot_is_searched_while_pages_are_added_and_removed) {
  PageStore store(VectorType::int8, 64);
  std::vector<Rows> pages;
  for (unsigned i = 0; i < 50; ++i) pages.emplace_back(VectorType::int8, 30, 64, i);
  for (int i = 0; i < 3000; ++i) store.add(pages[size_t(i) % 50].view());
  const Rows query(VectorType::int8, 12, 64, 99);
  const MaxSimQuery packed(chooseMaxSimKernels(), query.view());
  const auto snapshot = store.snapshot();
  std::vector<PageHit> hits;
  std::thread searching([&] {
    ThreadPool pool(2);
    for (int i = 0; i < 5; ++i) hits = snapshot.search(packed, 0, snapshot.pages(), 10, pool);
  });
  for (int i = 0; i < 3000; ++i) {
    store.add(pages[size_t(i) % 50].view());
    if (i % 2) store.remove(i + 1500);
  }
  store.clear();
  searching.join();
  CHECK_EQUAL(hits.size(), size_t(10));
  for (const PageHit& hit : hits) CHECK(hit.page < 3000);
  CHECK_EQUAL(store.pages(), int64_t(0));
  CHECK_EQUAL(store.bytes(), uint64_t(0));
}

TEST(pooling_puts_like_tokens_together_and_takes_their_mean) {
  // three directions, tokens close to one of them in turn
  const int64_t dims = 16, tokens = 30;
  std::mt19937 generator(5);
  std::normal_distribution<float> noise(0, 0.02f);
  std::vector<float> vectors(size_t(tokens * dims));
  for (int64_t t = 0; t < tokens; ++t) {
    double squares = 0;
    for (int64_t k = 0; k < dims; ++k) {
      float& value = vectors[size_t(t * dims + k)];
      value = (k == t % 3 * 5 ? 1.0f : 0.0f) + noise(generator);
      squares += double(value) * value;
    }
    for (int64_t k = 0; k < dims; ++k) vectors[size_t(t * dims + k)] /= float(std::sqrt(squares));
  }
  const PooledTokens pooled = poolTokens(vectors.data(), tokens, dims, 3);
  CHECK_EQUAL(pooled.vectors.size(), size_t(3 * dims));
  for (int64_t t = 0; t < tokens; ++t) CHECK_EQUAL(pooled.cluster[size_t(t)], int32_t(t % 3));
  for (int64_t c = 0; c < 3; ++c) {
    double squares = 0;
    for (int64_t k = 0; k < dims; ++k)
      squares += double(pooled.vectors[size_t(c * dims + k)]) * pooled.vectors[size_t(c * dims + k)];
    CHECK_CLOSE(squares, 1, 1e-6);
    CHECK(pooled.vectors[size_t(c * dims + c * 5)] > 0.99f);
  }
}

TEST(pooling_keeps_tokens_apart_where_clusters_allow_and_merges_equal_ones) {
  const float vectors[] = {1, 0, 0, 1, 1, 0, 0, 1, 1, 0};   // two directions, five tokens
  const PooledTokens apart = poolTokens(vectors, 5, 2, 5);
  CHECK_EQUAL(apart.vectors.size(), size_t(10));
  const PooledTokens equal = poolTokens(vectors, 5, 2, 4);   // merges of equal height go together
  CHECK_EQUAL(equal.vectors.size(), size_t(4));
  const int32_t want[] = {0, 1, 0, 1, 0};
  for (size_t t = 0; t < 5; ++t) CHECK_EQUAL(equal.cluster[t], want[t]);
  CHECK_EQUAL(poolTokens(vectors, 5, 2, 1).vectors.size(), size_t(2));
  CHECK_EQUAL(poolTokens(vectors, 1, 2, 1).cluster.size(), size_t(1));
}

}  // namespace
}  // namespace pg
