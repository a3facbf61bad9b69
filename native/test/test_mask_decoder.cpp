// The mask decoder against a plain double-precision version, and pasting; trained weights and the reference's masks
// are compared in test/native.
#include <limits>
#include <map>

#include "check.h"
#include "image/mask_decoder.h"

using namespace pg;

namespace {

using Tensors = std::map<std::string, HostTensor, std::less<>>;
constexpr int kWidths[5] = {10, 9, 5, 6, 3};  // channels: residual blocks, then after each step up; not multiples of 8

Tensors randomWeights() {
  uint32_t random = 7;
  Tensors tensors;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape, float scale) {
    size_t count = 1;
    for (const int64_t n : shape) count *= size_t(n);
    HostTensor& t = tensors[name];
    t.shape = std::move(shape);
    for (size_t i = 0; i < count; ++i) {
      random = random * 1664525u + 1013904223u;
      t.data.push_back(scale * (float(random >> 8) / float(1 << 23) - 1));
    }
  };
  const auto layer = [&](const std::string& name, std::vector<int64_t> shape, int64_t out, float scale) {
    add(name + ".weight", std::move(shape), scale);
    add(name + ".bias", {out}, 0.2f);
  };
  const int64_t width = kWidths[0];
  add("_vq_vae._embedding", {128, 12}, 1);
  layer("decoder.0", {width, 12, 1, 1}, width, 0.5f);
  for (const char* block : {"decoder.2.net.", "decoder.3.net."}) {
    layer(block + std::string("0"), {width, width, 3, 3}, width, 0.2f);
    layer(block + std::string("2"), {width, width, 3, 3}, width, 0.2f);
    layer(block + std::string("4"), {width, width, 1, 1}, width, 0.5f);
  }
  for (int i = 0; i < 4; ++i)
    layer("decoder." + std::to_string(4 + 2 * i), {kWidths[i], kWidths[i + 1], 4, 4}, kWidths[i + 1], 0.4f);
  layer("decoder.12", {1, kWidths[4], 1, 1}, 1, 1);
  return tensors;
}

MaskDecoder::Lookup lookupIn(const Tensors& tensors) {
  return [&tensors](std::string_view name) {
    const auto it = tensors.find(name);
    return it == tensors.end() ? HostTensor{} : it->second;
  };
}

struct Map {  // [channels, size, size]
  int channels, size;
  std::vector<double> v;
  double& at(int c, int y, int x) { return v[size_t((c * size + y) * size + x)]; }
};

Map conv(Map in, const Tensors& tensors, const std::string& name) {
  const auto& w = tensors.at(name + ".weight");
  const auto& bias = tensors.at(name + ".bias");
  const int out = int(w.shape[0]), k = int(w.shape[2]);
  Map made{out, in.size, std::vector<double>(size_t(out * in.size * in.size))};
  for (int o = 0; o < out; ++o)
    for (int y = 0; y < in.size; ++y)
      for (int x = 0; x < in.size; ++x) {
        double sum = bias.data[size_t(o)];
        for (int c = 0; c < in.channels; ++c)
          for (int i = 0; i < k; ++i)
            for (int j = 0; j < k; ++j) {
              const int yy = y + i - k / 2, xx = x + j - k / 2;
              if (yy < 0 || yy >= in.size || xx < 0 || xx >= in.size) continue;
              sum += in.at(c, yy, xx) * w.data[size_t(((o * in.channels + c) * k + i) * k + j)];
            }
        made.at(o, y, x) = sum;
      }
  return made;
}

// As the definition has it: every input is scattered.
Map transposed(Map in, const Tensors& tensors, const std::string& name) {
  const auto& w = tensors.at(name + ".weight");
  const auto& bias = tensors.at(name + ".bias");
  const int out = int(w.shape[1]), size = 2 * in.size;
  Map made{out, size, std::vector<double>(size_t(out * size * size))};
  for (int o = 0; o < out; ++o) {
    for (int i = 0; i < size * size; ++i) made.v[size_t(o * size * size + i)] = bias.data[size_t(o)];
    for (int c = 0; c < in.channels; ++c)
      for (int y = 0; y < in.size; ++y)
        for (int x = 0; x < in.size; ++x)
          for (int i = 0; i < 4; ++i)
            for (int j = 0; j < 4; ++j) {
              const int yy = 2 * y + i - 1, xx = 2 * x + j - 1;
              if (yy < 0 || yy >= size || xx < 0 || xx >= size) continue;
              made.at(o, yy, xx) += in.at(c, y, x) * w.data[size_t(((c * out + o) * 4 + i) * 4 + j)];
            }
  }
  return made;
}

Map relu(Map m) {
  for (double& v : m.v) v = std::max(v, 0.0);
  return m;
}

std::vector<double> expectedMask(const Tensors& tensors, const int32_t* codes) {
  const auto& book = tensors.at("_vq_vae._embedding");
  const int width = int(book.shape[1]);
  Map x{width, 4, std::vector<double>(size_t(width) * 16)};
  for (int i = 0; i < 16; ++i)
    for (int c = 0; c < width; ++c) x.at(c, i / 4, i % 4) = book.data[size_t(codes[i] * width + c)];
  x = relu(conv(x, tensors, "decoder.0"));
  for (const std::string block : {"decoder.2.net.", "decoder.3.net."}) {
    const Map branch =
        conv(relu(conv(relu(conv(x, tensors, block + "0")), tensors, block + "2")), tensors, block + "4");
    for (size_t i = 0; i < x.v.size(); ++i) x.v[i] += branch.v[i];
  }
  for (int i = 0; i < 4; ++i) x = relu(transposed(x, tensors, "decoder." + std::to_string(4 + 2 * i)));
  return conv(x, tensors, "decoder.12").v;
}

}  // namespace

TEST(mask_decoder_equals_its_definition) {
  const Tensors tensors = randomWeights();
  const MaskDecoder decoder(lookupIn(tensors));
  std::vector<int32_t> codes;
  for (int i = 0; i < 16; ++i) codes.push_back(i * 37 % 128);
  std::vector<float> mask(64 * 64);
  decoder.decode(codes.data(), mask.data());
  const auto expected = expectedMask(tensors, codes.data());
  double largest = 0;
  for (size_t i = 0; i < mask.size(); ++i) {
    CHECK_CLOSE(mask[i], expected[i], 1e-4);
    largest = std::max(largest, std::fabs(expected[i]));
  }
  CHECK(largest > 0.1);
}

TEST(mask_decoder_takes_filters_in_one_row) {
  Tensors tensors = randomWeights();
  const std::vector<int32_t> codes(16, 7);
  std::vector<float> before(64 * 64), after(64 * 64);
  MaskDecoder(lookupIn(tensors)).decode(codes.data(), before.data());
  for (auto& [name, tensor] : tensors)
    if (auto& shape = tensor.shape; shape.size() == 4) shape = {shape[0], shape[1] * shape[2] * shape[3]};
  MaskDecoder(lookupIn(tensors)).decode(codes.data(), after.data());
  CHECK(after == before);
  tensors["decoder.4.weight"].shape[1] -= 1;
  CHECK_FAILS(MaskDecoder(lookupIn(tensors)), Code::modelInvalid, "decoder.4.weight");
}

TEST(mask_decoder_names_what_is_wrong) {
  Tensors tensors = randomWeights();
  const MaskDecoder decoder(lookupIn(tensors));
  std::vector<int32_t> codes(16, 0);
  std::vector<float> mask(64 * 64);
  codes[5] = 128;
  CHECK_FAILS(decoder.decode(codes.data(), mask.data()), Code::invalidOption, "Mask code 5 is 128");

  tensors.erase("decoder.8.bias");
  CHECK_FAILS(MaskDecoder(lookupIn(tensors)), Code::modelInvalid, "decoder.8.bias");
  tensors = randomWeights();
  tensors["decoder.2.net.2.weight"].shape[1] = 4;
  CHECK_FAILS(MaskDecoder(lookupIn(tensors)), Code::modelInvalid,
              "decoder.2.net.2.weight of the mask decoder has shape [10, 4, 3, 3]");
  tensors = randomWeights();
  tensors["decoder.6.weight"].data.pop_back();
  CHECK_FAILS(MaskDecoder(lookupIn(tensors)), Code::modelInvalid, "decoder.6.weight");
}

TEST(mask_decoder_refuses_weights_that_are_not_finite) {
  for (const char* name : {"_vq_vae._embedding", "decoder.3.net.0.weight", "decoder.8.bias", "decoder.12.weight"})
    for (const float value : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
      Tensors tensors = randomWeights();
      tensors[name].data.back() = value;
      CHECK_FAILS(MaskDecoder(lookupIn(tensors)), Code::modelInvalid, name);
    }
}

TEST(paste_mask_fills_the_box_and_cuts_it_at_the_picture) {
  const std::vector<float> full(64 * 64, 1.0f);
  for (const auto convention : {MaskConvention::training, MaskConvention::demo}) {
    const auto picture = pasteMask(full.data(), {-3, 2, 5, 40}, 10, 8, convention);
    for (int y = 0; y < 8; ++y)
      for (int x = 0; x < 10; ++x) CHECK_EQUAL(int(picture[size_t(y * 10 + x)]), y >= 2 && x < 5 ? 255 : 0);
  }
}

TEST(paste_mask_thresholds_or_scales_by_convention) {
  const std::vector<float> faint(64 * 64, 0.25f), negative(64 * 64, -0.5f);
  CHECK_EQUAL(int(pasteMask(faint.data(), {0, 0, 4, 4}, 4, 4, MaskConvention::training)[0]), 255);
  CHECK_EQUAL(int(pasteMask(faint.data(), {0, 0, 4, 4}, 4, 4, MaskConvention::demo)[0]), 159);
  CHECK_EQUAL(int(pasteMask(negative.data(), {0, 0, 4, 4}, 4, 4, MaskConvention::training)[0]), 0);
  CHECK_EQUAL(int(pasteMask(negative.data(), {0, 0, 4, 4}, 4, 4, MaskConvention::demo)[0]), 63);
}

TEST(paste_mask_of_an_empty_or_inverted_box_is_empty) {
  const std::vector<float> full(64 * 64, 1.0f);
  for (const PixelBox box : {PixelBox{3, 3, 3, 6}, {6, 1, 2, 5}, {1, 6, 5, 2}, {20, 20, 30, 30}, {-9, -9, -1, -1}})
    for (const uint8_t v : pasteMask(full.data(), box, 8, 8, MaskConvention::training)) CHECK_EQUAL(int(v), 0);
  CHECK_FAILS(pasteMask(full.data(), {0, 0, 1 << 30, 4}, 8, 8, MaskConvention::demo), Code::invalidOption, "too large");
  CHECK_FAILS(pasteMask(full.data(), {0, 0, 4, 4}, 0, 8, MaskConvention::demo), Code::invalidOption, "sides");
}
