#include "gpu/cuda/cuda_driver.h"

#include <algorithm>
#include <cstdlib>

namespace pg::gpu::cuda {
namespace {

constexpr size_t kLogBytes = 8 << 10;

bool graphsWanted(const Api& api) {
  const char* setting = std::getenv("PALIGEMMA_CUDA_GRAPHS");
  return api.instantiate && api.updateGraphExec && !(setting && std::string(setting) == "0");
}

}  // namespace

struct CudaDriver::Block final : Memory {
  Block(std::shared_ptr<CardContext> c, Pointer at, size_t size) : Memory(at, size), context(std::move(c)) {}
  ~Block() override {
    try {
      const CardContext::Use use(*context);
      context->api.free(address);  // waits for kernels that use it
    } catch (const Error&) {
      // went with its context
    }
  }
  std::shared_ptr<CardContext> context;
};

CudaDriver::CudaDriver(const Card& card, PtxKernels kernels) : kernels_(std::move(kernels)) {
  if (!card.problem.empty())
    fail(Code::deviceUnavailable, "Device \"cuda:", card.index, "\" cannot be used: ", card.problem);
  context_ = std::make_shared<CardContext>(card);
  info_.kind = "cuda";
  info_.name = card.name;
  info_.detail = "compute capability " + card.capabilityText();
  info_.memoryBytes = card.memoryBytes;
  info_.groupMemoryBytes = card.sharedMemory;
  info_.processors = uint32_t(std::max(1, card.processors));
  info_.matrixUnits = true;
  info_.unified = card.integrated;
  const CardContext::Use use(*context_);
  chooseKernels(card.capability);
  context_->check(context_->api.createStream(&stream_, kNonBlocking), "a stream");
  staging_ = std::make_unique<Staging>(*context_, stream_);
  launches_ = std::make_unique<Launches>(*context_, stream_, graphsWanted(context_->api));
}

CudaDriver::~CudaDriver() {
  try {
    const CardContext::Use use(*context_);
    context_->api.synchronize(stream_);
    launches_->close();
    staging_->close();
    context_->api.destroyStream(stream_);
    for (const auto& [name, known] : known_)
      if (known.module) context_->api.unloadModule(known.module);
  } catch (const Error&) {
    // went with its context
  }
}

// The newest of each kernel's forms that the card takes. One kernel is compiled now: a driver that takes none is found
// out here.
void CudaDriver::chooseKernels(int capability) {
  for (const PtxKernel& kernel : kernels_.list) {
    if (kernel.capability > capability) continue;
    const PtxKernel*& best = known_[kernel.name].kernel;
    if (!best || kernel.capability > best->capability) best = &kernel;
  }
  const PtxKernel* smallest = nullptr;
  for (const auto& [name, known] : known_)
    if (!smallest || known.kernel->text.size() < smallest->text.size()) smallest = known.kernel;
  if (smallest) function(std::string(smallest->name).c_str(), 0);
}

// Compiled by the driver, which keeps the result on disk for the next process.
Module CudaDriver::compile(const PtxKernel& kernel) {
  std::string log(kLogBytes, '\0');
  int options[] = {errorLog, errorLogBytes};
  void* values[] = {log.data(), reinterpret_cast<void*>(log.size())};
  Module module = nullptr;
  const Result result = context_->api.loadModule(&module, kernel.text.data(), 2, options, values);
  if (result == kNoMemory) context_->check(result, "kernels");
  if (result != kSuccess)
    fail(Code::deviceUnavailable, info_.name, " (", info_.detail, ") does not take our kernel ", kernel.name, ": ",
         context_->api.text(result), " ", log.c_str(), "\nA newer NVIDIA driver may");
  return module;
}

Function CudaDriver::function(const char* name, uint32_t groupMemory) {
  const auto found = known_.find(std::string_view(name));
  if (found == known_.end()) fail(Code::internal, "This build's CUDA kernels have no ", name);
  Known& known = found->second;
  if (!known.function) {
    known.module = compile(*known.kernel);
    context_->check(context_->api.function(&known.function, known.module, name), "finding a kernel");
  }
  if (groupMemory > known.groupMemory) {
    context_->check(context_->api.setAttribute(known.function, kMaxDynamicShared, int(groupMemory)), "shared memory");
    known.groupMemory = groupMemory;
  }
  return known.function;
}

size_t CudaDriver::freeBytes() const {
  const CardContext::Use use(*context_);
  size_t free = 0, total = 0;
  context_->check(context_->api.memoryInfo(&free, &total), "asking for free memory");
  return free;
}

std::unique_ptr<Memory> CudaDriver::allocate(size_t bytes) {
  const CardContext::Use use(*context_);
  Pointer at = 0;
  const Result result = context_->api.allocate(&at, bytes);
  if (result == kNoMemory) {
    size_t free = 0, total = 0;
    context_->api.memoryInfo(&free, &total);
    fail(Code::outOfMemory, info_.name, " has ", free >> 20, " MiB of ", total >> 20, " MiB free, but ",
         (bytes >> 20) + 1, " MiB were asked for. Lower contextSize or maxSequences, or load a smaller type");
  }
  context_->check(result, "taking memory");
  context_->check(context_->api.fill(at, 0, bytes, stream_), "clearing memory");
  return std::make_unique<Block>(context_, at, bytes);
}

void CudaDriver::upload(const Memory& to, size_t offset, const void* data, size_t bytes) {
  const CardContext::Use use(*context_);
  launches_->flush();
  staging_->upload(to.address + offset, data, bytes);
}

void CudaDriver::download(void* data, const Memory& from, size_t offset, size_t bytes) {
  const CardContext::Use use(*context_);
  launches_->flush();
  staging_->download(data, from.address + offset, bytes);
}

void CudaDriver::copy(const Memory& to, size_t toOffset, const Memory& from, size_t fromOffset, size_t bytes) {
  const CardContext::Use use(*context_);
  launches_->flush();
  context_->check(context_->api.copyOnDevice(to.address + toOffset, from.address + fromOffset, bytes, stream_),
                  "copying on the GPU");
}

void CudaDriver::launch(const char* kernel, Size3 groups, Size3 groupSize, std::span<const uint8_t> args,
                        std::span<const Binding> buffers, uint32_t groupMemory) {
  const CardContext::Use use(*context_);
  LaunchCall call{function(kernel, groupMemory), groups, groupSize, groupMemory, {args.begin(), args.end()}, {}};
  for (const Binding& buffer : buffers)
    call.buffers.push_back(buffer.memory ? buffer.memory->address + buffer.offset : 0);
  launches_->launch(std::move(call));
}

void CudaDriver::end(bool complete) {
  const CardContext::Use use(*context_);
  launches_->end(complete);
}

void CudaDriver::wait() {
  const CardContext::Use use(*context_);
  launches_->flush();
  context_->check(context_->api.synchronize(stream_), "computing");
}

}  // namespace pg::gpu::cuda
