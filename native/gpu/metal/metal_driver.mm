// Metal as a Driver: kernels compiled from their text when they are first needed, memory that CPU and GPU share,
// command buffers that follow one another on one queue. Objective-C++ with ARC.
#include "gpu/metal/metal_driver.h"

#import <Metal/Metal.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/math.h"

namespace pg::gpu::metal {
namespace {

struct Source {
  const char* name;
  const char* text;
};
// Made by scripts/build-msl.mjs: kSources, our kernels' files with all that they include.
#include "gpu/metal/generated/msl.inc"

// Which file has a kernel; those of other names are looked for in all the rest.
const char* fileOf(const std::string& kernel) {
  constexpr const char* kPrefixes[][2] = {{"step_", "steps"},          {"tile_", "tiles"},
                                          {"flash_", "flash"},         {"attention_grad", "gradients"},
                                          {"attention_", "attention"}, {"dense_rows", "attention"},
                                          {"embed_", "elementwise"},   {"store_kv_", "elementwise"},
                                          {"product_", "products"},    {"half_rows", "halves"}};
  for (const auto& [prefix, file] : kPrefixes)
    if (kernel.compare(0, std::strlen(prefix), prefix) == 0) return file;
  return "";
}

std::string textOf(NSString* text) { return text ? std::string(text.UTF8String) : std::string("no reason was given"); }
std::string textOf(NSError* error) { return textOf(error ? error.localizedDescription : nil); }

// Why our kernels cannot run there, or empty.
std::string problemOf(id<MTLDevice> device) {
  if (@available(macOS 13.0, *)) {
    if ([device supportsFamily:MTLGPUFamilyApple7]) return {};
    return textOf(device.name) + " is no GPU of Apple silicon (M1 or newer)";
  }
  return "macOS 13 or newer is needed";
}

id<MTLDevice> systemDevice() {
  id<MTLDevice> device = MTLCreateSystemDefaultDevice();
  if (!device) fail(Code::deviceUnavailable, "There is no GPU that Metal knows");
  return device;
}

size_t freeBytesOf(id<MTLDevice> device) {
  const size_t most = device.recommendedMaxWorkingSetSize, used = device.currentAllocatedSize;
  return most > used ? most - used : 0;
}

class MetalDriver final : public Driver {
 public:
  explicit MetalDriver(id<MTLDevice> device);
  ~MetalDriver() override;

  const DriverInfo& info() const override { return info_; }
  size_t freeBytes() const override { return freeBytesOf(device_); }
  std::unique_ptr<Memory> allocate(size_t bytes) override;
  std::unique_ptr<Memory> map(std::shared_ptr<const uint8_t> data, size_t bytes) override;
  void upload(const Memory& to, size_t offset, const void* data, size_t bytes) override;
  void download(void* data, const Memory& from, size_t offset, size_t bytes) override;
  void copy(const Memory& to, size_t toOffset, const Memory& from, size_t fromOffset, size_t bytes) override;
  void launch(const char* kernel, Size3 groups, Size3 groupSize, std::span<const uint8_t> args,
              std::span<const Binding> buffers, uint32_t groupMemory) override;
  void begin() override { gathering_ = true; }
  void end(bool complete) override;
  void wait() override;

 private:
  struct Block;
  std::unique_ptr<Memory> hold(id<MTLBuffer> buffer, size_t bytes);
  id<MTLLibrary> library(const Source& source);
  id<MTLComputePipelineState> find(const std::string& kernel);
  id<MTLComputeCommandEncoder> encoder();
  void endEncoder();
  void commit();

  // Launches that are handed over at once, unless they are gathered.
  static constexpr int kTogether = 64;

  id<MTLDevice> device_;
  id<MTLCommandQueue> queue_;
  id<MTLBuffer> nothing_;   // in place of buffers that are not there
  DriverInfo info_;
  std::map<std::string, id<MTLLibrary>> libraries_;
  std::map<std::string, id<MTLComputePipelineState>> kernels_;
  std::set<Block*> blocks_;
  id<MTLCommandBuffer> open_ = nil;
  id<MTLComputeCommandEncoder> encoder_ = nil;
  std::vector<id<MTLCommandBuffer>> running_;
  int launches_ = 0;
  bool gathering_ = false, lost_ = false;
};

struct MetalDriver::Block final : Memory {
  Block(MetalDriver& d, id<MTLBuffer> b, uint64_t address, size_t bytes)
      : Memory(address, bytes), driver(d), buffer(b) {
    driver.blocks_.insert(this);
  }
  ~Block() override { driver.blocks_.erase(this); }   // command buffers keep what they use
  uint8_t* at(size_t offset) const { return static_cast<uint8_t*>(buffer.contents) + offset; }

  MetalDriver& driver;
  id<MTLBuffer> buffer;
};

MetalDriver::MetalDriver(id<MTLDevice> device) : device_(device) {
  @autoreleasepool {
    if (const std::string problem = problemOf(device_); !problem.empty())
      fail(Code::deviceUnavailable, "Device \"metal\" cannot be used: ", problem);
    info_.kind = "metal";
    info_.name = textOf(device_.name);
    info_.detail = "Metal";
    info_.memoryBytes = device_.recommendedMaxWorkingSetSize;
    info_.groupMemoryBytes = uint32_t(device_.maxThreadgroupMemoryLength);
    info_.matrixUnits = true;
    info_.unified = true;
    queue_ = [device_ newCommandQueue];
    nothing_ = [device_ newBufferWithLength:256 options:MTLResourceStorageModeShared];
    if (!queue_ || !nothing_) fail(Code::deviceUnavailable, info_.name, " gives no command queue");
    find("add_rows");   // a system that takes none of our kernels is found out here
  }
}

MetalDriver::~MetalDriver() {
  @autoreleasepool {
    endEncoder();
    if (open_) [open_ commit];
    for (id<MTLCommandBuffer> buffer : running_) [buffer waitUntilCompleted];
  }
}

// ---- kernels ----

id<MTLLibrary> MetalDriver::library(const Source& source) {
  __strong id<MTLLibrary>& known = libraries_[source.name];
  if (known) return known;
  MTLCompileOptions* options = [[MTLCompileOptions alloc] init];
  options.fastMathEnabled = NO;   // NaN and infinity mean something to our kernels
  options.languageVersion = MTLLanguageVersion3_0;
  NSError* error = nil;
  known = [device_ newLibraryWithSource:[NSString stringWithUTF8String:source.text] options:options error:&error];
  if (!known)
    fail(Code::deviceUnavailable, info_.name, " does not take our kernels (", source.name, "): ", textOf(error));
  return known;
}

id<MTLComputePipelineState> MetalDriver::find(const std::string& kernel) {
  __strong id<MTLComputePipelineState>& known = kernels_[kernel];
  if (known) return known;
  const std::string file = fileOf(kernel);
  for (const Source& source : kSources) {
    if (!file.empty() && file != source.name) continue;
    id<MTLFunction> function = [library(source) newFunctionWithName:[NSString stringWithUTF8String:kernel.c_str()]];
    if (!function) continue;
    NSError* error = nil;
    known = [device_ newComputePipelineStateWithFunction:function error:&error];
    if (!known) fail(Code::deviceUnavailable, info_.name, " does not take our kernel ", kernel, ": ", textOf(error));
    if (known.threadExecutionWidth != 32)
      fail(Code::deviceUnavailable, info_.name, " has SIMD groups of ", known.threadExecutionWidth, " threads, not 32");
    return known;
  }
  fail(Code::internal, "This build's Metal kernels have no ", kernel);
}

// ---- memory ----

std::unique_ptr<Memory> MetalDriver::allocate(size_t bytes) {
  @autoreleasepool {
    id<MTLBuffer> buffer = nil;
    if (bytes <= freeBytes())
      buffer = [device_ newBufferWithLength:std::max<size_t>(bytes, 16) options:MTLResourceStorageModeShared];
    if (!buffer)
      fail(Code::outOfMemory, info_.name, " has ", freeBytes() >> 20, " MiB of ", info_.memoryBytes >> 20,
           " MiB free, but ", (bytes >> 20) + 1,
           " MiB were asked for. Lower contextSize or maxSequences, or load a smaller type");
    std::memset(buffer.contents, 0, bytes);
    return hold(buffer, bytes);
  }
}

// Pages that the file fills in part are mapped whole, so the buffer may end where they do.
std::unique_ptr<Memory> MetalDriver::map(std::shared_ptr<const uint8_t> data, size_t bytes) {
  @autoreleasepool {
    const size_t page = size_t(getpagesize()), length = roundUp(bytes, page);
    if (bytes == 0 || reinterpret_cast<uintptr_t>(data.get()) % page != 0 || length > device_.maxBufferLength)
      return nullptr;
    void* start = const_cast<uint8_t*>(data.get());
    // the buffer itself keeps the file: command buffers may outlive the model
    id<MTLBuffer> buffer = [device_ newBufferWithBytesNoCopy:start
                                                      length:length
                                                     options:MTLResourceStorageModeShared
                                                 deallocator:^(void*, NSUInteger) { (void)data; }];
    return buffer ? hold(buffer, bytes) : nullptr;
  }
}

std::unique_ptr<Memory> MetalDriver::hold(id<MTLBuffer> buffer, size_t bytes) {
  uint64_t address = 0;
  if (@available(macOS 13.0, *)) address = buffer.gpuAddress;
  // kernels reach pages of a cache by their addresses alone: see encoder()
  if (encoder_) [encoder_ useResource:buffer usage:MTLResourceUsageRead | MTLResourceUsageWrite];
  return std::make_unique<Block>(*this, buffer, address, bytes);
}

void MetalDriver::upload(const Memory& to, size_t offset, const void* data, size_t bytes) {
  wait();   // kernels may still read what was there
  std::memcpy(static_cast<const Block&>(to).at(offset), data, bytes);
}

void MetalDriver::download(void* data, const Memory& from, size_t offset, size_t bytes) {
  wait();
  std::memcpy(data, static_cast<const Block&>(from).at(offset), bytes);
}

void MetalDriver::copy(const Memory& to, size_t toOffset, const Memory& from, size_t fromOffset, size_t bytes) {
  @autoreleasepool {
    encoder();   // there is a command buffer, and the device is not lost
    endEncoder();
    id<MTLBlitCommandEncoder> blit = [open_ blitCommandEncoder];
    [blit copyFromBuffer:static_cast<const Block&>(from).buffer
             sourceOffset:fromOffset
                 toBuffer:static_cast<const Block&>(to).buffer
        destinationOffset:toOffset
                     size:bytes];
    [blit endEncoding];
  }
}

// ---- launches ----

id<MTLComputeCommandEncoder> MetalDriver::encoder() {
  if (lost_) fail(Code::deviceLost, info_.name, " was lost before. Load the model again");
  if (encoder_) return encoder_;
  if (!open_) open_ = [queue_ commandBuffer];
  encoder_ = [open_ computeCommandEncoder];   // one kernel after the other
  if (!encoder_) fail(Code::deviceLost, info_.name, " gives no command buffer. Load the model again");
  std::vector<id<MTLResource>> all;
  for (const Block* block : blocks_) all.push_back(block->buffer);
  if (!all.empty())
    [encoder_ useResources:all.data() count:all.size() usage:MTLResourceUsageRead | MTLResourceUsageWrite];
  return encoder_;
}

void MetalDriver::endEncoder() {
  if (encoder_) [encoder_ endEncoding];
  encoder_ = nil;
}

void MetalDriver::launch(const char* kernel, Size3 groups, Size3 groupSize, std::span<const uint8_t> args,
                         std::span<const Binding> buffers, uint32_t) {
  @autoreleasepool {
    id<MTLComputePipelineState> state = find(kernel);
    const size_t threads = size_t(groupSize.x) * groupSize.y * groupSize.z;
    if (threads > state.maxTotalThreadsPerThreadgroup)
      fail(Code::deviceUnavailable, info_.name, " runs our kernel ", kernel, " with ",
           state.maxTotalThreadsPerThreadgroup, " threads at most, not ", threads);
    id<MTLComputeCommandEncoder> to = encoder();
    [to setComputePipelineState:state];
    [to setBytes:args.data() length:args.size() atIndex:0];
    for (size_t i = 0; i < buffers.size(); ++i) {
      const Binding& one = buffers[i];
      id<MTLBuffer> buffer = one.memory ? static_cast<const Block*>(one.memory)->buffer : nothing_;
      [to setBuffer:buffer offset:one.memory ? one.offset : 0 atIndex:i + 1];
    }
    [to dispatchThreadgroups:MTLSizeMake(groups.x, groups.y, groups.z)
        threadsPerThreadgroup:MTLSizeMake(groupSize.x, groupSize.y, groupSize.z)];
    if (++launches_ >= kTogether && !gathering_) commit();
  }
}

void MetalDriver::commit() {
  endEncoder();
  launches_ = 0;
  if (!open_) return;
  [open_ commit];
  running_.push_back(open_);
  open_ = nil;
}

void MetalDriver::end(bool) {
  @autoreleasepool {
    gathering_ = false;
    commit();
  }
}

void MetalDriver::wait() {
  @autoreleasepool {
    if (lost_) fail(Code::deviceLost, info_.name, " was lost before. Load the model again");
    commit();
    std::string error;
    for (id<MTLCommandBuffer> buffer : running_) {
      [buffer waitUntilCompleted];
      if (buffer.status == MTLCommandBufferStatusError && error.empty()) error = textOf(buffer.error);
    }
    running_.clear();
    if (error.empty()) return;
    lost_ = true;
    fail(Code::deviceLost, info_.name, " failed: ", error, ". Load the model again");
  }
}

}  // namespace

Gpu systemGpu() {
  @autoreleasepool {
    id<MTLDevice> device = systemDevice();
    return {textOf(device.name), device.recommendedMaxWorkingSetSize, freeBytesOf(device), problemOf(device)};
  }
}

std::unique_ptr<Driver> openSystemGpu() {
  @autoreleasepool {
    return std::make_unique<MetalDriver>(systemDevice());
  }
}

}  // namespace pg::gpu::metal
