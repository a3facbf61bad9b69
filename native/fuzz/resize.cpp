// Pictures of all small sizes through resizing, padding and cutting into patches.
#include "fuzz.h"
#include "image/image.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  pg::fuzz::Input input(data, size);
  const auto side = [&] { return 1 + int32_t(input.byte()) % 96; };
  const int32_t width = side(), height = side(), newWidth = side(), newHeight = side();
  const uint8_t how = input.byte();
  const auto filter = how & 1 ? pg::ResizeFilter::bilinear : pg::ResizeFilter::bicubic;
  const auto fit = how & 2 ? pg::Fit::pad : pg::Fit::squash;
  // exactly as many bytes as the picture has, so that the sanitizer sees the byte behind them
  std::vector<uint8_t> pixels(size_t(width) * size_t(height) * 3);
  const std::string_view rest = input.rest();
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = rest.empty() ? uint8_t(i) : uint8_t(rest[i % rest.size()]);

  const pg::Rgb8 out = resizeRgb(pixels.data(), width, height, newWidth, newHeight, filter);
  pg::fuzz::must(out.data.size() == size_t(newWidth) * size_t(newHeight) * 3, "the size is what was asked for");
  pg::ResizeTransform transform;
  const int32_t patch = 1 + newWidth % 14, square = patch * (1 + newHeight % 7);
  const pg::Rgb8 fitted = resizeToSquare(pixels.data(), width, height, square, filter, fit, &transform);
  pg::fuzz::must(transform.scaleX > 0 && transform.scaleY > 0, "the way back exists");
  const int32_t across = square / patch;
  std::vector<float> patches(size_t(across * across * 3 * patch * patch));
  const float mean[3] = {0.5f, 0.5f, 0.5f}, std[3] = {0.5f, 0.5f, 0.5f};
  patchify(
      fitted.data.data(), square, patch, mean, std,
      pg::HostView(reinterpret_cast<uint8_t*>(patches.data()), pg::DType::f32, across * across, 3 * patch * patch));
  for (const float v : patches) pg::fuzz::must(v >= -1 && v <= 1, "values lie in -1 .. 1");
  resizeGray8(pixels.data(), width, height, newWidth, newHeight, filter);
  const std::vector<float> mask(pixels.begin(), pixels.begin() + size_t(width) * size_t(height));
  for (const float v : resizeGrayF32(mask.data(), width, height, newWidth, newHeight, filter))
    pg::fuzz::must(v > -256 && v < 512, "a mask's values stay near what they were");
  try {  // sides that no picture has
    resizeRgb(pixels.data(), width, height, int32_t(how) << 24, newHeight - 1, filter);
  } catch (const pg::Error&) {}
  return 0;
}
