#include "serve/load/load_plan.h"

#include <algorithm>
#include <sstream>

#include "base/math.h"
#include "device/device.h"
#include "gpu/gpu_weights.h"
#include "model/config.h"
#include "model/weights.h"

namespace pg {
namespace {

// Rows that pass through wide layers together, staging and alignment.
constexpr int64_t kBlockRows = 1024;
constexpr uint64_t kFixed = uint64_t(160) << 20;

uint64_t weightBytes(const GgufFile& file) {
  uint64_t bytes = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.name.substr(0, 5) == "mask.") continue;  // stays on the host
    bytes += gpu::keepsType(tensor.type) ? tensor.bytes : uint64_t(tensor.elements()) * 2;
  }
  return bytes;
}

std::string mebibytes(uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

}  // namespace

LoadPlan planLoad(const LoadOptions& options) {
  const auto text = GgufFile::open(options.path, options.weights);
  const auto visionFile = options.visionPath.empty() ? text : GgufFile::open(options.visionPath, options.weights);
  const TextConfig config = readTextConfig(*text);
  VisionConfig vision;
  if (!options.visionPath.empty() || hasVision(*visionFile)) vision = readVisionConfig(*visionFile, config.hidden);

  LoadPlan plan;
  plan.weights = weightBytes(*text) + (visionFile == text ? 0 : weightBytes(*visionFile));
  plan.contextSize = options.contextSize > 0 ? options.contextSize : config.context;
  plan.maxSequences = std::max(1, options.maxSequences);
  const KvLayout layout{config.layers, config.kvHeads, config.headDim, options.kvCacheType};
  plan.kvPerToken = layout.pageBytes() / kPageTokens;
  const int64_t pages = ceilDiv(plan.contextSize, kPageTokens) * plan.maxSequences +
                        kKeptPrefixes * ceilDiv(vision.tokens + kPromptTokens, kPageTokens);
  plan.kvTokens = uint64_t(pages * kPageTokens);
  const int64_t prefix = vision.tokens + kPromptTokens, width = std::max(config.hidden, vision.hidden);
  plan.scratch = uint64_t(prefix * width * 6 + kBlockRows * std::max(config.ffn, vision.ffn) * 2 +
                          (plan.maxSequences + 1) * config.vocab) *
                     sizeof(float) +
                 kFixed;
  return plan;
}

std::string LoadPlan::advice(uint64_t free) const {
  std::ostringstream text;
  text << "about " << mebibytes(total()) << " are needed (weights " << mebibytes(weights) << ", cache "
       << mebibytes(cache()) << ", work " << mebibytes(scratch) << ") and " << mebibytes(free) << " are free. ";
  const uint64_t fixed = weights + scratch;
  const uint64_t tokens =
      free > fixed ? (free - fixed) / kvPerToken / uint64_t(kPageTokens) * uint64_t(kPageTokens) : 0;
  const uint64_t beside = kvTokens - uint64_t(contextSize * maxSequences);  // kept prefixes
  const uint64_t context = tokens > beside ? tokens - beside : 0;
  if (context >= 1024) text << "With maxSequences 1, contextSize " << context << " would fit";
  else text << "Load a smaller type, such as Q4_0, or use device \"cpu\"";
  return text.str();
}

}  // namespace pg
