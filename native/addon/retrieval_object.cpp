#include "addon/retrieval_object.h"

#include <cmath>

#include "addon/js_args.h"
#include "base/thread_pool.h"
#include "retrieval/page_store.h"
#include "retrieval/token_pooling.h"

namespace pg {

namespace {

constexpr napi_type_tag kPageStoreTag{0x5f0c9a71e3d24b86, 0xa41be87390d65c2f};
constexpr int64_t kMostPooledTokens = 16384;   // pooling takes 4 bytes for every pair

napi_value toJs(napi_env env, const std::vector<double>& values) {
  void* data = nullptr;
  napi_value buffer, array;
  js::check(napi_create_arraybuffer(env, values.size() * sizeof(double), &data, &buffer));
  if (!values.empty()) std::copy(values.begin(), values.end(), static_cast<double*>(data));
  js::check(napi_create_typedarray(env, napi_float64_array, values.size(), buffer, 0, &array));
  return array;
}

VectorType typeArgument(napi_env env, napi_value value) {
  return VectorType(js::choice(env, value, "type", {"f32", "int8", "binary"}));
}
int64_t dimsArgument(napi_env env, napi_value value) { return js::integer(env, value, "dims", 1, kMaxVectorDims); }

// A page's or query's rows where JavaScript has them: valid until JavaScript runs again.
Vectors vectorsArgument(napi_env env, VectorType type, int64_t dims, napi_value data, napi_value scales,
                        const std::string& name) {
  const js::Bytes rows = js::bytes(env, data, name);
  const size_t row = size_t(rowBytes(type, dims));
  if (rows.size % row != 0)
    fail(Code::invalidOption, name, " holds ", rows.size, " bytes, not a whole number of vectors of ", row);
  const size_t tokens = rows.size / row;
  if (tokens > size_t(js::kInt32Max)) fail(Code::invalidOption, name, " holds ", tokens, " vectors");
  if (type == VectorType::f32 && reinterpret_cast<uintptr_t>(rows.data) % sizeof(float) != 0)
    fail(Code::invalidOption, name, " is not aligned to its values");
  Vectors vectors{type, int64_t(tokens), dims, rows.data, nullptr};
  if (type == VectorType::int8) {
    const js::Floats factors = js::floats(env, scales, name + " scales");
    if (factors.size != tokens)
      fail(Code::invalidOption, "Expected ", tokens, " scales for ", name, " but received ", factors.size);
    vectors.scales = factors.data;
  }
  return vectors;
}

}  // namespace

napi_value maxSim(const js::Call& call) {
  const napi_env env = call.env;
  const VectorType type = typeArgument(env, call.args[0]);
  const int64_t dims = dimsArgument(env, call.args[1]);
  const MaxSimQuery query(chooseMaxSimKernels(), vectorsArgument(env, type, dims, call.args[2], call.args[3], "query"));
  const uint32_t count = js::arrayLength(env, call.args[4], "pages");
  std::vector<double> scores(count);
  std::vector<float> scratch(query.scratchSize());
  std::vector<uint8_t> words;
  for (uint32_t i = 0; i < count; ++i) {
    const js::HandleScope scope(env);
    const napi_value scales = type == VectorType::int8 ? js::element(env, call.args[5], i) : js::undefined(env);
    Vectors page =
        vectorsArgument(env, type, dims, js::element(env, call.args[4], i), scales, "pages[" + std::to_string(i) + "]");
    if (type == VectorType::binary && bitBytes(dims) % 8 != 0) {
      words.resize(size_t(page.tokens * bitWords(dims)) * 8);
      widenBits(static_cast<const uint8_t*>(page.data), page.tokens, dims, words.data());
      page.data = words.data();
    }
    scores[i] = query.score(page, scratch.data());
  }
  return toJs(env, scores);
}

// --- page store ----------------------------------------------------------------------------------------------------
namespace {

// The store belongs to the JavaScript thread; the pool to the search that is running, one at a time.
struct PageStoreObject {
  PageStore store;
  std::shared_ptr<ThreadPool> pool;   // made by the first search
  int threads;
  int64_t reported = 0;   // bytes that the garbage collector knows of
  bool searching = false;
};

using Shared = std::shared_ptr<PageStoreObject>;

Shared& storeOf(const js::Call& call) { return js::unwrap<Shared>(call.env, call.self, kPageStoreTag, "page index"); }

// So that an index nobody holds any more is collected for what it really takes.
void reportMemory(napi_env env, PageStoreObject& object) {
  int64_t total;
  const int64_t bytes = int64_t(object.store.bytes());
  napi_adjust_external_memory(env, bytes - object.reported, &total);
  object.reported = bytes;
}

napi_value addPage(const js::Call& call) {
  PageStoreObject& object = *storeOf(call);
  const int64_t page = object.store.add(
      vectorsArgument(call.env, object.store.type(), object.store.dims(), call.args[0], call.args[1], "vectors"));
  reportMemory(call.env, object);
  return js::toJs(call.env, page);
}

napi_value removePage(const js::Call& call) {
  storeOf(call)->store.remove(js::integer(call.env, call.args[0], "page", 0, js::kMaxSafeInteger));
  return js::undefined(call.env);
}

napi_value clearPages(const js::Call& call) {
  PageStoreObject& object = *storeOf(call);
  object.store.clear();
  object.pool.reset();
  reportMemory(call.env, object);
  return js::undefined(call.env);
}

napi_value pageCount(const js::Call& call) { return js::toJs(call.env, storeOf(call)->store.pages()); }
napi_value removedCount(const js::Call& call) { return js::toJs(call.env, storeOf(call)->store.removed()); }
napi_value storeBytes(const js::Call& call) { return js::toJs(call.env, storeOf(call)->store.bytes()); }

// Runs work(snapshot, query, pool) on libuv's pool and the store's own threads.
template <class Work, class Finish>
napi_value runSearch(const js::Call& call, Work work, Finish finish) {
  Shared object = storeOf(call);
  auto query = std::make_shared<const MaxSimQuery>(
      chooseMaxSimKernels(),
      vectorsArgument(call.env, object->store.type(), object->store.dims(), call.args[0], call.args[1], "query"));
  if (object->searching) fail(Code::internal, "A page index is searched once at a time");
  if (!object->pool) object->pool = std::make_shared<ThreadPool>(object->threads);
  object->searching = true;
  // goes with the work, on the JavaScript thread, however that ends
  std::shared_ptr<void> busy(nullptr, [object](void*) { object->searching = false; });
  return js::runInPool(
      call.env,
      // the threads and the snapshot outlive the index where it is cleared or collected meanwhile
      [work = std::move(work), query, busy, pool = object->pool,
       snapshot = std::make_shared<const PageStore::Snapshot>(object->store.snapshot())] {
        return work(*snapshot, *query, *pool);
      },
      [finish](napi_env env, auto&& result) { return finish(env, result); });
}

napi_value searchPages(const js::Call& call) {
  const int64_t begin = js::integer(call.env, call.args[2], "begin", 0, js::kMaxSafeInteger);
  const int64_t end = js::integer(call.env, call.args[3], "end", begin, js::kMaxSafeInteger);
  const int64_t limit = js::integer(call.env, call.args[4], "limit", 1, js::kInt32Max);
  return runSearch(
      call,
      [=](const PageStore::Snapshot& pages, const MaxSimQuery& query, ThreadPool& pool) {
        return pages.search(query, begin, end, limit, pool);
      },
      [](napi_env env, const std::vector<PageHit>& hits) {
        std::vector<double> pages, scores;
        for (const PageHit& hit : hits) {
          pages.push_back(double(hit.page));
          scores.push_back(hit.score);
        }
        const napi_value result = js::newObject(env);
        js::set(env, result, "pages", toJs(env, pages));
        js::set(env, result, "scores", toJs(env, scores));
        return result;
      });
}

napi_value scorePages(const js::Call& call) {
  const uint32_t count = js::arrayLength(call.env, call.args[2], "pages");
  std::vector<int64_t> numbers(count);
  for (uint32_t i = 0; i < count; ++i) {
    const js::HandleScope scope(call.env);
    numbers[i] = js::integer(call.env, js::element(call.env, call.args[2], i), "pages[" + std::to_string(i) + "]", 0,
                             js::kMaxSafeInteger);
  }
  return runSearch(
      call,
      [numbers = std::move(numbers)](const PageStore::Snapshot& pages, const MaxSimQuery& query, ThreadPool& pool) {
        return pages.score(query, numbers, pool);
      },
      [](napi_env env, const std::vector<double>& scores) { return toJs(env, scores); });
}

}  // namespace

napi_value createPageStore(const js::Call& call) {
  const napi_env env = call.env;
  const VectorType type = typeArgument(env, call.args[0]);
  const int64_t dims = dimsArgument(env, call.args[1]);
  const int threads = js::isUndefined(env, call.args[2])
                          ? defaultThreads()
                          : int(js::integer(env, call.args[2], "threads", 1, js::kMostThreads));
  chooseMaxSimKernels();   // a wrong PALIGEMMA_ISA fails here
  const napi_property_descriptor members[] = {
      js::method("add", js::entry<addPage>),          js::method("remove", js::entry<removePage>),
      js::method("clear", js::entry<clearPages>),     js::method("search", js::entry<searchPages>),
      js::method("score", js::entry<scorePages>),     js::getter("pages", js::entry<pageCount>),
      js::getter("removed", js::entry<removedCount>), js::getter("bytes", js::entry<storeBytes>),
  };
  const napi_value object = js::newObject(env);
  js::check(napi_define_properties(env, object, std::size(members), members));
  js::check(napi_type_tag_object(env, object, &kPageStoreTag));
  auto native = std::make_unique<Shared>(
      std::make_shared<PageStoreObject>(PageStoreObject{PageStore(type, dims), nullptr, threads}));
  js::check(napi_wrap(
      env, object, native.get(),
      [](napi_env e, void* data, void*) {
        const std::unique_ptr<Shared> shared(static_cast<Shared*>(data));
        int64_t total;
        napi_adjust_external_memory(e, -(*shared)->reported, &total);
      },
      nullptr, nullptr));
  (void)native.release();
  return object;
}

napi_value poolTokens(const js::Call& call) {
  const napi_env env = call.env;
  const js::Floats data = js::floats(env, call.args[0], "vectors");
  const int64_t dims = dimsArgument(env, call.args[1]);
  const int64_t clusters = js::integer(env, call.args[2], "clusters", 1, js::kInt32Max);
  if (data.size % size_t(dims) != 0 || data.size == 0)
    fail(Code::invalidOption, "vectors holds ", data.size, " values, not a whole number of vectors of ", dims);
  const int64_t tokens = int64_t(data.size) / dims;
  if (tokens > kMostPooledTokens)
    fail(Code::invalidOption, "Expected at most ", kMostPooledTokens, " vectors to pool but received ", tokens);
  return js::runInPool(
      env,
      [=, vectors = std::vector<float>(data.data, data.data + data.size)] {
        return poolTokens(vectors.data(), tokens, dims, clusters);
      },
      [](napi_env e, PooledTokens&& pooled) {
        const napi_value result = js::newObject(e);
        js::set(e, result, "data", js::toJs(e, std::move(pooled.vectors)));
        js::set(e, result, "clusters",
                js::arrayOf(e, pooled.cluster.size(), [&](size_t i) { return pooled.cluster[i]; }));
        return result;
      });
}

}  // namespace pg
