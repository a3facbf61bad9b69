#pragma once
// Launches on a stream. Those between begin() and end() become one CUDA graph: a decode step has hundreds of short
// kernels, and a graph that only changes its arguments is started with one call.
#include <array>
#include <list>
#include <span>
#include <vector>

#include "gpu/cuda/cuda_context.h"
#include "gpu/driver.h"

namespace pg::gpu::cuda {

struct LaunchCall {
  Function function;
  Size3 groups, groupSize;
  uint32_t sharedBytes;
  std::vector<uint8_t> args;
  std::vector<Pointer> buffers;
};

class Launches {
 public:
  // graphs: false for what cannot or should not
  Launches(CardContext& context, Stream stream, bool graphs) : context_(context), stream_(stream), graphs_(graphs) {}
  void close();

  void launch(LaunchCall call);
  void begin() { gathering_ = true; }
  void end(bool complete);
  // Starts what was gathered so far; the rest follows one by one until the next begin().
  void flush();

 private:
  struct Cached {
    uint64_t signature;
    GraphExec exec;
  };
  void start(const LaunchCall& call);
  bool startAsGraph();
  GraphExec execFor(Graph graph);
  uint64_t signature() const;

  CardContext& context_;
  Stream stream_;
  bool graphs_, gathering_ = false;
  std::vector<LaunchCall> gathered_;
  std::list<Cached> cache_;  // the last used first
};

}  // namespace pg::gpu::cuda
