#include "addon/tools.h"

#include <cctype>
#include <cmath>
#include <cstring>

#include "addon/js_args.h"
#include "base/half.h"
#include "base/thread_pool.h"
#include "base/thread_room.h"
#include "cpu/check_kernels.h"
#include "cpu/cpu_info.h"
#include "cpu/limits.h"
#include "format/quantize.h"
#include "image/image.h"
#include "image/mask_decoder.h"
#include "serve/load/devices.h"
#include "text/regex.h"

namespace pg {

namespace {

constexpr int64_t kMaxSide = 1 << 20;          // pixels
constexpr int64_t kMaxPixels = int64_t(1) << 30;
constexpr uint32_t kTypeIds = 64;              // ids above every type of dtype.h

DType typeArgument(napi_env env, napi_value value, const char* name, bool (*usable)(DType)) {
  const std::string text = js::string(env, value, name);
  const auto same = [&](const char* other) {
    size_t i = 0;
    for (; i < text.size() && other[i]; ++i)
      if (std::tolower(static_cast<unsigned char>(text[i])) != std::tolower(static_cast<unsigned char>(other[i])))
        return false;
    return i == text.size() && !other[i];
  };
  std::string known;
  for (uint32_t id = 0; id < kTypeIds; ++id) {
    const DTypeInfo* info = dtypeInfo(DType(id));
    if (!info || !usable(DType(id))) continue;
    if (same(info->name)) return DType(id);
    known += (known.empty() ? "" : ", ") + std::string(info->name);
  }
  js::failExpected(env, "one of " + known, name, value);
}

// A row of any type on its way to another: nothing that is not finite goes in, and nothing comes out that the type
// cannot hold. `number`: the row's, for the message.
void convertRow(DType from, DType to, const uint8_t* in, uint8_t* out, float* row, float* check, int64_t cols,
                const float* importance, int64_t number) {
  dequantizeRow(from, in, row, cols);
  int64_t largest = 0;
  for (int64_t i = 0; i < cols; ++i) {
    if (!std::isfinite(row[i]))
      fail(Code::modelInvalid, "row ", number, " holds ", std::isnan(row[i]) ? "NaN" : "infinity", " in column ", i);
    if (std::fabs(row[i]) > std::fabs(row[largest])) largest = i;
  }
  if (from == to) std::memcpy(out, in, size_t(bytesFor(to, cols)));
  else quantizeRow(to, row, out, cols, importance);
  // what every type holds, in its values or its scales
  if (std::fabs(row[largest]) <= kLargestHalf) return;
  dequantizeRow(to, out, check, cols);
  if (!(std::fabs(check[largest] - row[largest]) <= 0.5f * std::fabs(row[largest])))
    fail(Code::modelInvalid, "row ", number, " holds ", row[largest], " in column ", largest, ", which is beyond ",
         dtypeName(to));
}

}  // namespace

// The input is copied: JavaScript could detach or shrink its buffer while the pool reads it, and Node-API has no way
// to forbid that. Callers bound memory by the size of their chunks.
napi_value quantizeRows(const js::Call& call) {
  const napi_env env = call.env;
  const js::Bytes data = js::bytes(env, call.args[0], "data");
  const DType from = typeArgument(env, call.args[1], "from", canDequantize);
  const DType to = typeArgument(env, call.args[2], "to", canQuantize);
  const int64_t cols = js::integer(env, call.args[3], "cols", 1, js::kInt32Max);
  for (const DType type : {from, to})
    if (cols % dtypeInfo(type)->block != 0)
      fail(Code::invalidOption, "Expected a multiple of ", dtypeInfo(type)->block, " for cols but received ", cols,
           ": ", dtypeName(type), " stores blocks of that many values");
  const size_t rowBytes = bytesFor(from, cols);
  if (data.size % rowBytes != 0)
    fail(Code::invalidOption, "data holds ", data.size, " bytes, not a whole number of rows of ", cols, " ",
         dtypeName(from), " values (", rowBytes, " bytes each)");
  std::vector<float> importance;
  if (!js::isUndefined(env, call.args[4])) {
    const js::Floats weights = js::floats(env, call.args[4], "importance");
    if (int64_t(weights.size) != cols)
      fail(Code::invalidOption, "Expected ", cols, " values for importance but received ", weights.size);
    importance.assign(weights.data, weights.data + weights.size);
    for (size_t i = 0; i < importance.size(); ++i)
      if (!(importance[i] >= 0 && std::isfinite(importance[i])))
        fail(Code::invalidOption, "Expected a finite number >= 0 for importance[", i, "]");
  }
  const int64_t firstRow =
      js::isUndefined(env, call.args[5]) ? 0 : js::integer(env, call.args[5], "firstRow", 0, js::kInt32Max);
  return js::runInPool(
      env,
      [from, to, cols, rowBytes, firstRow, importance = std::move(importance),
       input = std::vector<uint8_t>(data.data, data.data + data.size)] {
        const size_t rows = input.size() / rowBytes, outBytes = bytesFor(to, cols);
        std::vector<uint8_t> output(rows * outBytes);
        std::vector<float> row(static_cast<size_t>(cols)), check(static_cast<size_t>(cols));
        for (size_t r = 0; r < rows; ++r)
          convertRow(from, to, input.data() + r * rowBytes, output.data() + r * outBytes, row.data(), check.data(),
                     cols, importance.empty() ? nullptr : importance.data(), firstRow + int64_t(r));
        return output;
      },
      [](napi_env e, std::vector<uint8_t>&& output) { return js::toJs(e, std::move(output)); });
}

// Read in place: a photograph has 36 MB, and copying it would hold up the event loop. The caller keeps it to itself
// meanwhile (lib/native.ts says so, lib/image-input.ts sees to it).
napi_value resize(const js::Call& call) {
  const napi_env env = call.env;
  const js::Bytes data = js::bytes(env, call.args[0], "data");
  const int64_t width = js::integer(env, call.args[1], "width", 1, kMaxSide);
  const int64_t height = js::integer(env, call.args[2], "height", 1, kMaxSide);
  const int64_t size = js::integer(env, call.args[3], "size", 1, 16384);
  const auto filter = js::choice(env, call.args[4], "filter", {"bicubic", "bilinear"}) == 0 ? ResizeFilter::bicubic
                                                                                            : ResizeFilter::bilinear;
  const auto fit = js::choice(env, call.args[5], "fit", {"squash", "pad"}) == 0 ? Fit::squash : Fit::pad;
  if (int64_t(data.size) != width * height * 3)
    fail(Code::imageInvalid, "data holds ", data.size, " bytes; ", width, " x ", height, " RGB pixels are ",
         width * height * 3);
  struct Resized {
    Rgb8 image;
    ResizeTransform transform;
  };
  return js::runInPool(
      env,
      [=, kept = std::make_shared<js::Reference>(env, call.args[0])] {
        Resized result;
        result.image =
            resizeToSquare(data.data, int32_t(width), int32_t(height), int32_t(size), filter, fit, &result.transform);
        return result;
      },
      [](napi_env e, Resized&& resized) {
        const napi_value transform = js::newObject(e), result = js::newObject(e);
        js::set(e, transform, "scaleX", resized.transform.scaleX);
        js::set(e, transform, "scaleY", resized.transform.scaleY);
        js::set(e, transform, "offsetX", resized.transform.offsetX);
        js::set(e, transform, "offsetY", resized.transform.offsetY);
        js::set(e, result, "data", js::toJs(e, std::move(resized.image.data)));
        js::set(e, result, "transform", transform);
        return result;
      });
}

napi_value pasteMask(const js::Call& call) {
  const napi_env env = call.env;
  const js::Floats mask = js::floats(env, call.args[0], "mask");
  if (mask.size != size_t(kMaskSize) * kMaskSize)
    fail(Code::invalidOption, "Expected ", kMaskSize * kMaskSize, " values for mask but received ", mask.size);
  std::vector<float> values(mask.data, mask.data + mask.size);  // now: reading box may run a getter
  js::requireObject(env, call.args[1], "box");
  const auto corner = [&](const char* name) {
    return js::integer(env, js::property(env, call.args[1], name), std::string("box.") + name, -kMaxSide, kMaxSide);
  };
  const int64_t x0 = corner("x0"), y0 = corner("y0"), x1 = corner("x1"), y1 = corner("y1");
  const int64_t width = js::integer(env, call.args[2], "width", 1, kMaxSide);
  const int64_t height = js::integer(env, call.args[3], "height", 1, kMaxSide);
  const auto convention = js::choice(env, call.args[4], "convention", {"training", "demo"}) == 0
                              ? MaskConvention::training
                              : MaskConvention::demo;
  if (width * height > kMaxPixels || (x1 > x0 && y1 > y0 && (x1 - x0) * (y1 - y0) > kMaxPixels))
    fail(Code::imageTooLarge, "A mask of more than ", kMaxPixels, " pixels was asked for");
  return js::runInPool(
      env,
      [=, values = std::move(values)] {
        const PixelBox box{int32_t(x0), int32_t(y0), int32_t(x1), int32_t(y1)};
        return pasteMask(values.data(), box, int32_t(width), int32_t(height), convention);
      },
      [](napi_env e, std::vector<uint8_t>&& pixels) { return js::toJs(e, std::move(pixels)); });
}

napi_value cpuInfo(const js::Call& call) {
  const std::vector<std::string> supported = supportedIsas();
  const napi_value info = js::newObject(call.env);
  const KernelChoice& choice = kernelChoice();
  js::set(call.env, info, "isa", choice.kernels->isa);
  js::set(call.env, info, "broken", js::arrayOf(call.env, choice.broken.size(), [&](size_t i) {
            const BrokenTable& table = choice.broken[i];
            const napi_value entry = js::newObject(call.env);
            js::set(call.env, entry, "isa", table.isa);
            js::set(call.env, entry, "kernels",
                    js::arrayOf(call.env, table.kernels.size(), [&](size_t k) { return table.kernels[k]; }));
            return entry;
          }));
  js::set(call.env, info, "supported", js::arrayOf(call.env, supported.size(), [&](size_t i) { return supported[i]; }));
  js::set(call.env, info, "threads", defaultThreads());
  return info;
}

napi_value hasCudaCards(const js::Call& call) {
  return js::runInPool(
      call.env, [] { return hasNvidiaCards(); }, [](napi_env e, bool&& has) { return js::toJs(e, has); });
}

napi_value devices(const js::Call& call) {
  const bool hasCudaKernels = js::boolean(call.env, call.args[0], "hasCudaKernels");
  return js::runInPool(
      call.env, [hasCudaKernels] { return listDevices(hasCudaKernels); },
      [](napi_env e, DeviceList&& list) {
        const napi_value result = js::newObject(e);
        if (!list.problem.empty()) js::set(e, result, "problem", list.problem);
        js::set(e, result, "devices", js::arrayOf(e, list.devices.size(), [&](size_t i) {
                  const DeviceEntry& device = list.devices[i];
                  const napi_value entry = js::newObject(e);
                  js::set(e, entry, "device", device.device);
                  js::set(e, entry, "name", device.name);
                  if (!device.detail.empty()) js::set(e, entry, "detail", device.detail);
                  if (device.memoryBytes > 0) {
                    js::set(e, entry, "memoryBytes", int64_t(device.memoryBytes));
                    js::set(e, entry, "freeBytes", int64_t(device.freeBytes));
                  }
                  if (!device.problem.empty()) js::set(e, entry, "problem", device.problem);
                  return entry;
                }));
        return result;
      });
}

napi_value checkTable(const js::Call& call) {
  const std::string isa = js::string(call.env, call.args[0], "isa");
  const Kernels* kernels = kernelsFor(isa);
  if (!kernels)
    fail(Code::invalidOption, "Expected an instruction set of this machine for isa but received \"", isa, "\"");
  return js::runInPool(
      call.env, [kernels] { return checkKernels(*kernels, CheckDepth::whole); },
      [](napi_env e, std::vector<KernelCheck>&& checks) {
        return js::arrayOf(e, checks.size(), [&](size_t i) {
          const napi_value entry = js::newObject(e);
          js::set(e, entry, "kernel", checks[i].kernel);
          js::set(e, entry, "error", checks[i].error);
          js::set(e, entry, "allowed", checks[i].allowed);
          return entry;
        });
      });
}

napi_value machineLimits(const js::Call& call) {
  const napi_env env = call.env;
  const int threads = js::isUndefined(env, call.args[0])
                          ? defaultThreads()
                          : int(js::integer(env, call.args[0], "threads", 1, js::kMostThreads));
  return js::runInPool(
      env,
      [threads] {
        ThreadPool pool(threads);
        return measureLimits(chooseKernels(), pool);
      },
      [](napi_env e, Limits&& limits) {
        const napi_value result = js::newObject(e);
        js::set(e, result, "readGBps", limits.readBytesPerSecond / 1e9);
        js::set(e, result, "int8Gops", limits.int8OpsPerSecond / 1e9);
        return result;
      });
}

napi_value threadRoomOf(const js::Call& call) {
  const int want = int(js::integer(call.env, call.args[0], "want", 0, js::kMostThreads));
  return js::runInPool(
      call.env, [want, idle = js::string(call.env, call.args[1], "idle")] { return threadRoom(want, idle.c_str()); },
      [](napi_env e, int room) { return js::toJs(e, int64_t(room)); });
}

napi_value checkPattern(const js::Call& call) {
  const bool schema = js::choice(call.env, call.args[0], "kind", {"regex", "schema"}) == 1;
  const RegexSyntax syntax = schema ? RegexSyntax::schema : RegexSyntax::user;
  return js::runInPool(
      call.env,
      [syntax, pattern = js::string(call.env, call.args[1], "pattern")] {
        return compileRegex(pattern, syntax).states.size();
      },
      [](napi_env e, size_t states) { return js::toJs(e, int64_t(states)); });
}

}  // namespace pg
