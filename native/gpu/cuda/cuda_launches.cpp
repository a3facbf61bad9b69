#include "gpu/cuda/cuda_launches.h"

#include <algorithm>

namespace pg::gpu::cuda {
namespace {

// Fewer launches are started sooner one by one.
constexpr size_t kGraphLaunches = 16;
// Decode steps of a few batch sizes; each keeps some memory on the card.
constexpr size_t kCachedGraphs = 8;

}  // namespace

void Launches::close() {
  for (const Cached& cached : cache_) context_.api.destroyGraphExec(cached.exec);
  cache_.clear();
}

void Launches::start(const LaunchCall& call) {
  std::vector<void*> parameters{const_cast<uint8_t*>(call.args.data())};
  for (const Pointer& buffer : call.buffers) parameters.push_back(const_cast<Pointer*>(&buffer));
  const Size3 &g = call.groups, &s = call.groupSize;
  context_.check(context_.api.launch(call.function, g.x, g.y, g.z, s.x, s.y, s.z, call.sharedBytes, stream_,
                                     parameters.data(), nullptr),
                 "starting a kernel");
}

void Launches::launch(LaunchCall call) {
  if (!gathering_ || !graphs_) return start(call);
  gathered_.push_back(std::move(call));
}

void Launches::flush() {
  if (gathered_.empty()) return;
  if (gathered_.size() < kGraphLaunches || !startAsGraph())
    for (const LaunchCall& call : gathered_) start(call);
  gathered_.clear();
}

void Launches::end(bool complete) {
  gathering_ = false;
  if (!complete) gathered_.clear();
  flush();
}

// False where CUDA will not: then, and from then on, kernels are started one by one.
bool Launches::startAsGraph() {
  const Api& api = context_.api;
  if (api.beginCapture(stream_, kCaptureThreadLocal) != kSuccess) return graphs_ = false;
  Graph graph = nullptr;
  try {
    for (const LaunchCall& call : gathered_) start(call);
  } catch (...) {
    if (api.endCapture(stream_, &graph) == kSuccess && graph) api.destroyGraph(graph);
    throw;
  }
  if (api.endCapture(stream_, &graph) != kSuccess || !graph) return graphs_ = false;
  const GraphExec exec = execFor(graph);
  api.destroyGraph(graph);
  if (!exec) return graphs_ = false;
  context_.check(api.launchGraph(exec, stream_), "starting a graph of kernels");
  return true;
}

// One of the same kernels over the same grids, with new arguments, or else a new one.
GraphExec Launches::execFor(Graph graph) {
  const Api& api = context_.api;
  const uint64_t wanted = signature();
  const auto found = std::find_if(cache_.begin(), cache_.end(), [&](const Cached& c) { return c.signature == wanted; });
  if (found != cache_.end()) {
    cache_.splice(cache_.begin(), cache_, found);
    GraphUpdateInfo info{};
    if (api.updateGraphExec(found->exec, graph, &info) == kSuccess) return found->exec;
    api.destroyGraphExec(found->exec);
    cache_.pop_front();
  }
  GraphExec exec = nullptr;
  if (api.instantiate(&exec, graph, 0) != kSuccess) return nullptr;
  cache_.push_front({wanted, exec});
  if (cache_.size() > kCachedGraphs) {
    // what still runs is let go of when it has ended
    api.destroyGraphExec(cache_.back().exec);
    cache_.pop_back();
  }
  return exec;
}

// FNV-1a over what may not change between two runs of a graph.
uint64_t Launches::signature() const {
  uint64_t hash = 0xcbf29ce484222325;
  const auto add = [&](uint64_t value) { hash = (hash ^ value) * 0x100000001b3; };
  for (const LaunchCall& call : gathered_) {
    add(reinterpret_cast<uint64_t>(call.function));
    for (const Size3& size : {call.groups, call.groupSize}) add(size.x), add(size.y), add(size.z);
    add(call.sharedBytes);
  }
  return hash;
}

}  // namespace pg::gpu::cuda
