// Resizing against Pillow 9.4: the expected numbers are its output for the same pictures.
#include "check.h"
#include "image/image.h"

using namespace pg;

namespace {

// A picture that any language can make: the top byte of a multiplicative hash of the position.
std::vector<uint8_t> pattern(int width, int height, int channels) {
  std::vector<uint8_t> data;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < channels; ++c)
        data.push_back(uint8_t(uint32_t(y * 131 + x * 71 + c * 37) * 2654435761u >> 24));
  return data;
}

uint32_t fnv(const std::vector<uint8_t>& data) {
  uint32_t hash = 2166136261u;
  for (const uint8_t v : data) hash = (hash ^ v) * 16777619u;
  return hash;
}

Rgb8 resized(int width, int height, int newWidth, int newHeight, ResizeFilter filter, ThreadPool* pool = nullptr) {
  return resizeRgb(pattern(width, height, 3).data(), width, height, newWidth, newHeight, filter, pool);
}

}  // namespace

TEST(resize_equals_pillow_when_reducing) {
  const std::vector<uint8_t> bicubic{189, 189, 155, 149, 106, 68,  57,  79,  133, 136, 199, 181, 175, 132, 96,
                                     205, 168, 133, 124, 83,  57,  51,  114, 173, 186, 196, 159, 148, 109, 75,
                                     180, 146, 106, 96,  59,  69,  82,  165, 204, 198, 172, 131, 122, 87,  50,
                                     159, 123, 80,  73,  55,  118, 122, 173, 198, 186, 148, 105, 100, 66,  66};
  const std::vector<uint8_t> bilinear{186, 181, 147, 145, 111, 77,  68,  89,  136, 138, 190, 171, 169, 135, 101,
                                      195, 161, 127, 125, 91,  67,  66,  114, 166, 176, 186, 152, 149, 115, 81,
                                      173, 139, 105, 103, 69,  79,  88,  162, 189, 188, 164, 130, 127, 93,  59,
                                      154, 120, 86,  84,  64,  117, 119, 166, 187, 178, 144, 110, 108, 74,  68};
  CHECK(resized(13, 9, 5, 4, ResizeFilter::bicubic).data == bicubic);
  CHECK(resized(13, 9, 5, 4, ResizeFilter::bilinear).data == bilinear);
}

TEST(resize_equals_pillow_when_enlarging) {
  const std::vector<uint8_t> expected{0,   225, 191, 66,  214, 180, 226, 192, 158, 217, 170, 136, 193, 159, 125,
                                      51,  222, 188, 112, 211, 177, 223, 189, 155, 211, 167, 133, 190, 156, 122,
                                      197, 216, 182, 204, 204, 170, 217, 183, 149, 198, 162, 128, 185, 151, 117,
                                      255, 213, 179, 250, 201, 167, 214, 180, 146, 192, 159, 125, 182, 148, 114};
  CHECK(resized(3, 2, 5, 4, ResizeFilter::bicubic).data == expected);
}

TEST(resize_equals_pillow_on_a_picture_with_any_number_of_threads) {
  ThreadPool pool(3);
  for (ThreadPool* threads : {static_cast<ThreadPool*>(nullptr), &pool}) {
    CHECK_EQUAL(fnv(resized(301, 157, 64, 64, ResizeFilter::bicubic, threads).data), 2698435542u);
    CHECK_EQUAL(fnv(resized(301, 157, 64, 64, ResizeFilter::bilinear, threads).data), 1531732529u);
    CHECK_EQUAL(fnv(resized(301, 157, 448, 448, ResizeFilter::bicubic, threads).data), 2443046865u);
  }
}

TEST(resize_leaves_a_picture_of_the_right_size_alone) {
  CHECK(resized(7, 5, 7, 5, ResizeFilter::bicubic).data == pattern(7, 5, 3));
}

TEST(resize_gray_equals_pillow) {
  const auto gray = pattern(7, 6, 1);
  const std::vector<uint8_t> expected{133, 180, 220, 191, 170, 148, 126, 105, 81,  65,  242, 221, 192, 172, 150,
                                      128, 107, 87,  63,  46,  214, 198, 174, 153, 132, 110, 88,  67,  43,  27};
  CHECK(resizeGray8(gray.data(), 7, 6, 10, 3, ResizeFilter::bicubic) == expected);

  std::vector<float> values;
  for (const uint8_t v : gray) values.push_back((float(v) - 128) / 16);
  const std::vector<float> expectedF32{
      0.696428597f, 3.40714288f,  5.14732122f,  3.80982161f,  2.47232151f,  1.12857139f, -0.22053571f, -1.55803573f,
      -2.89151788f, -3.9375f,     6.46875f,     5.41601562f,  4.07421875f,  2.72890615f, 1.38867188f,  0.0515624993f,
      -1.28281248f, -2.6171875f,  -3.95507812f, -5.0078125f,  5.38392878f,  4.33303547f, 2.99553561f,  1.65803564f,
      0.326339275f, -1.00803578f, -2.34642863f, -3.69642854f, -5.03839254f, -6.08928585f};
  CHECK(resizeGrayF32(values.data(), 7, 6, 10, 3, ResizeFilter::bilinear) == expectedF32);
}

TEST(resize_works_on_one_pixel_and_on_one_row) {
  const std::vector<uint8_t> pixel{10, 20, 30};
  const Rgb8 grown = resizeRgb(pixel.data(), 1, 1, 3, 2, ResizeFilter::bicubic);
  for (size_t i = 0; i < grown.data.size(); ++i) CHECK_EQUAL(int(grown.data[i]), int(pixel[i % 3]));
  CHECK_EQUAL(resized(1000, 1, 4, 4, ResizeFilter::bicubic).data.size(), size_t(48));
  CHECK_EQUAL(resized(1, 1000, 4, 4, ResizeFilter::bicubic).data.size(), size_t(48));
  CHECK_FAILS(resized(1, 1, 0, 1, ResizeFilter::bicubic), Code::imageInvalid, "1 x 1");
}

TEST(resize_to_square_can_keep_the_aspect_ratio) {
  ResizeTransform transform;
  const auto rgb = pattern(20, 10, 3);
  const Rgb8 square = resizeToSquare(rgb.data(), 20, 10, 8, ResizeFilter::bicubic, Fit::pad, &transform);
  CHECK_EQUAL(square.width, 8);
  CHECK_EQUAL(transform.scaleX, 0.4);
  CHECK_EQUAL(transform.scaleY, 0.4);
  CHECK_EQUAL(transform.offsetX, 0.0);
  CHECK_EQUAL(transform.offsetY, 2.0);
  const Rgb8 inner = resizeRgb(rgb.data(), 20, 10, 8, 4, ResizeFilter::bicubic);
  for (size_t i = 0; i < square.data.size(); ++i) {
    const size_t y = i / 24;
    CHECK_EQUAL(int(square.data[i]), y < 2 || y >= 6 ? 127 : int(inner.data[i - 48]));
  }
  const Rgb8 squashed = resizeToSquare(rgb.data(), 20, 10, 8, ResizeFilter::bicubic, Fit::squash, &transform);
  CHECK(squashed.data == resizeRgb(rgb.data(), 20, 10, 8, 8, ResizeFilter::bicubic).data);
  CHECK_EQUAL(transform.scaleX, 0.4);
  CHECK_EQUAL(transform.scaleY, 0.8);
}

TEST(patchify_is_channel_major_inside_a_patch) {
  const auto rgb = pattern(4, 4, 3);
  const float half[3] = {0.5f, 0.5f, 0.5f};
  std::vector<float> out(48);
  patchify(rgb.data(), 4, 2, half, half, HostView(reinterpret_cast<uint8_t*>(out.data()), DType::f32, 4, 12));
  for (int n = 0; n < 4; ++n)
    for (int c = 0; c < 3; ++c)
      for (int y = 0; y < 2; ++y)
        for (int x = 0; x < 2; ++x)
          CHECK_EQUAL(out[size_t(n * 12 + c * 4 + y * 2 + x)],
                      float(rgb[size_t(((n / 2 * 2 + y) * 4 + n % 2 * 2 + x) * 3 + c)]) / 127.5f - 1);
  CHECK_FAILS(patchify(rgb.data(), 4, 3, half, half, HostView()), Code::modelInvalid, "patches of 3");
}
