// Weights on their way to the GPU: copied, their blocks taken apart; or, where host and GPU share memory, left in the
// file, blocks as it has them.
#include <algorithm>
#include <cstring>
#include <map>

#include "format/quantize.h"
#include "gpu/gpu_launch.h"
#include "gpu/gpu_weights.h"

namespace pg::gpu {
namespace {

// Rows that travel at once.
constexpr size_t kStagingBytes = size_t(64) << 20;

struct Placing {
  const Placement* weight;
  DType type;  // on the device
  PackArgs packing;
  size_t offset = 0;  // in the memory of all that are copied

  const ConstHostView& host() const { return weight->host; }
  size_t rowBytes() const { return bytesFor(type, host().cols); }
  size_t bytes() const { return size_t(packing.strideBytes) * size_t(host().rows); }
  // Whether kernels read the file's rows: blocks at even addresses, plain numbers in whole groups and words of 16
  // bytes.
  bool isReady() const {
    if (!weight->file || weight->file->copied() || type != host().type || host().stride != rowBytes()) return false;
    const auto at = reinterpret_cast<uintptr_t>(host().data);
    return isTakenApart(type) ? at % 2 == 0 : at % 16 == 0 && rowBytes() == packing.strideBytes;
  }
};

Placing placing(const Placement& weight) {
  const DType type = keepsType(weight.host.type) ? weight.host.type : DType::f16;
  return {&weight, type, packing(type, weight.host.cols)};
}

// Rows [first, first + count) as the device wants to be given them: packed, of the device's type.
void gatherRows(const Placing& w, int64_t first, int64_t count, std::vector<uint8_t>& bytes) {
  const ConstHostView& host = w.host();
  const size_t rowBytes = w.rowBytes();
  bytes.resize(rowBytes * size_t(count));
  std::vector<float> values(w.type == host.type ? 0 : size_t(host.cols));
  for (int64_t r = 0; r < count; ++r) {
    uint8_t* to = bytes.data() + size_t(r) * rowBytes;
    const uint8_t* from = host.row<uint8_t>(first + r);
    if (w.type == host.type) {
      std::memcpy(to, from, rowBytes);
    } else {
      dequantizeRow(host.type, from, values.data(), host.cols);
      quantizeRow(w.type, values.data(), to, host.cols);
    }
  }
}

// The files that are worth mapping: a mapped file is in the GPU's memory as a whole, so most of it must be ready.
std::map<const MappedFile*, std::shared_ptr<const MappedFile>> filesToMap(const std::vector<Placing>& list) {
  struct Share {
    size_t ready = 0, all = 0;
  };
  std::map<const MappedFile*, Share> shares;
  std::map<const MappedFile*, std::shared_ptr<const MappedFile>> files;
  for (const Placing& w : list) {
    if (!w.weight->file) continue;
    Share& share = shares[w.weight->file.get()];
    share.all += w.host().bytes();
    if (w.isReady()) share.ready += w.host().bytes();
    if (share.ready > 0) files[w.weight->file.get()] = w.weight->file;
  }
  std::erase_if(files, [&](const auto& file) { return shares[file.first].ready < shares[file.first].all / 4 * 3; });
  return files;
}

}  // namespace

// Leaves those in the list that must be copied.
template <class List>
void GpuDevice::mapWeights(List& list, std::vector<Buffer>& memory) {
  if (!driver_->info().unified) return;
  std::map<const MappedFile*, const Memory*> mapped;
  for (const auto& [key, file] : filesToMap(list)) {
    auto whole = driver_->map(std::shared_ptr<const uint8_t>(file, file->data()), file->size());
    if (!whole) continue;
    mapped[key] = memory.emplace_back(std::make_unique<DeviceMemory>(std::move(whole), true)).memory();
  }
  std::erase_if(list, [&](const Placing& w) {
    const auto found = mapped.find(w.weight->file.get());
    if (found == mapped.end() || !w.isReady()) return false;
    const ConstHostView& host = w.host();
    const auto offset = size_t(host.data - w.weight->file->data());
    *w.weight->to = {found->second, offset, w.type, host.rows, host.cols, host.stride};
    return true;
  });
}

std::vector<Buffer> GpuDevice::doPlace(std::span<const Placement> weights) {
  std::vector<Placing> list;
  for (const Placement& weight : weights) list.push_back(placing(weight));
  std::vector<Buffer> memory;
  mapWeights(list, memory);
  size_t total = 0, widest = 0;
  for (Placing& w : list) {
    w.offset = total;
    total += roundUp<size_t>(w.bytes(), 256);
    widest = std::max(widest, w.rowBytes() * size_t(w.host().rows));
  }
  if (total == 0) return memory;
  const View all = memory.emplace_back(doAllocate(total)).view(DType::i8, 1, int64_t(total));
  const Buffer staging = doAllocate(std::min(widest, kStagingBytes));
  std::vector<uint8_t> bytes;
  for (const Placing& w : list) {
    const ConstHostView& host = w.host();
    const size_t rowBytes = w.rowBytes();
    if (rowBytes > staging.bytes()) fail(Code::modelUnsupported, "A weight's row takes ", rowBytes, " bytes");
    const int64_t most = std::max<int64_t>(1, int64_t(staging.bytes() / std::max<size_t>(1, rowBytes)));
    for (int64_t row = 0; row < host.rows; row += most) {
      if (cancel_ && cancel_->set) return memory;
      const int64_t count = std::min(most, host.rows - row);
      const uint8_t* from = host.row<uint8_t>(row);
      if (w.type != host.type || host.stride != rowBytes) {
        gatherRows(w, row, count, bytes);
        from = bytes.data();
      }
      const View rows = staging.view(DType::i8, 1, int64_t(rowBytes) * count);
      driver_->upload(*bind(rows).memory, 0, from, rows.bytes());
      PackArgs args = w.packing;
      args.rows = uint32_t(count);
      const View to(all.memory, w.offset + size_t(row) * w.packing.strideBytes, DType::i8, 1, 1);
      launchValues("pack_blocks", count, int64_t(rowBytes / 2), args, {bind(to), bind(rows)});
    }
    *w.weight->to = {all.memory, w.offset, w.type, host.rows, host.cols, w.packing.strideBytes};
  }
  driver_->wait();  // staging goes
  return memory;
}

}  // namespace pg::gpu
