#pragma once
// Pictures to model input: Pillow-exact resizing, normalisation and patches.
#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "base/host_view.h"

namespace pg {

enum class ResizeFilter { bilinear, bicubic };  // both antialiased as Pillow does
enum class Fit { squash, pad };  // pad: keep the aspect ratio, centre on gray 127 (about 0 after normalisation)

struct Rgb8 {  // rows of width * 3 bytes, no padding
  int32_t width = 0, height = 0;
  std::vector<uint8_t> data;
};

// Where the picture lies in the resized square, to map boxes back: original x = (x - offsetX) / scaleX.
struct ResizeTransform {
  double scaleX = 1, scaleY = 1;  // resized pixels per original pixel
  double offsetX = 0, offsetY = 0;  // in resized pixels
};

// Any sizes >= 1. Bit-equal to Pillow's resize on 8-bit data. `pool` may be null.
Rgb8 resizeRgb(const uint8_t* rgb, int32_t width, int32_t height, int32_t newWidth, int32_t newHeight,
               ResizeFilter filter, ThreadPool* pool = nullptr);
Rgb8 resizeToSquare(const uint8_t* rgb, int32_t width, int32_t height, int32_t size, ResizeFilter filter, Fit fit,
                    ResizeTransform* transform, ThreadPool* pool = nullptr);

// One channel, Pillow's "L" (8-bit) and "F" (double accumulation, float result) modes; for pasting masks.
std::vector<uint8_t> resizeGray8(const uint8_t* src, int32_t width, int32_t height, int32_t newWidth, int32_t newHeight,
                                 ResizeFilter filter);
std::vector<float> resizeGrayF32(const float* src, int32_t width, int32_t height, int32_t newWidth, int32_t newHeight,
                                 ResizeFilter filter);

// size x size RGB8 -> patches [ (size/patch)^2, 3 * patch * patch ] f32, channel-major inside a patch as the conv
// kernel [out, 3, patch, patch] is flattened; values (v/255 - mean) / std.
void patchify(const uint8_t* rgb, int32_t size, int32_t patch, const float mean[3], const float std[3], HostView out);

}  // namespace pg
