#include "addon/format_objects.h"

#include <algorithm>

#include "addon/js_args.h"
#include "format/gguf.h"
#include "format/quantize.h"
#include "image/mask_decoder.h"
#include "image/mask_encoder.h"
#include "text/tokenizer.h"

namespace pg {

namespace {
constexpr int64_t kMostTensors = int64_t(1) << 31;
}  // namespace

// --- tokenizer -----------------------------------------------------------------------------------------------------
namespace {

constexpr napi_type_tag kTokenizerTag{0x2b7e6d0c94f1483a, 0x93c4f80a5be1d726};
constexpr napi_type_tag kMaskDecoderTag{0xd60b9e2781c34fa5, 0x8e217d46fa9530bc};
constexpr napi_type_tag kMaskEncoderTag{0x47a2c09be5d81f36, 0xb19c5e2f70d3846a};

const Tokenizer& tokenizerOf(const js::Call& call) {
  return js::unwrap<const Tokenizer>(call.env, call.self, kTokenizerTag, "tokenizer");
}
int32_t idArgument(const js::Call& call) {
  return int32_t(js::integer(call.env, call.args[0], "id", 0, js::kInt32Max));
}

napi_value encode(const js::Call& call) {
  const std::string text = js::string(call.env, call.args[0], "text");
  const bool allowControlTokens = js::boolean(call.env, call.args[1], "allowControlTokens");
  const std::vector<int32_t> ids = tokenizerOf(call).encode(text, allowControlTokens);
  return js::arrayOf(call.env, ids.size(), [&](size_t i) { return ids[i]; });
}
napi_value decode(const js::Call& call) {
  const std::vector<int32_t> ids = js::integers(call.env, call.args[0], "ids", 0, js::kInt32Max);
  return js::toJs(call.env, tokenizerOf(call).decode(ids.data(), ids.size()));
}
napi_value pieceBytes(const js::Call& call) {
  const std::string_view bytes = tokenizerOf(call).pieceBytes(idArgument(call));
  return js::toJs(call.env, std::vector<uint8_t>(bytes.begin(), bytes.end()));
}
napi_value pieceText(const js::Call& call) { return js::toJs(call.env, tokenizerOf(call).pieceText(idArgument(call))); }
napi_value vocabularySize(const js::Call& call) { return js::toJs(call.env, tokenizerOf(call).size()); }

}  // namespace

napi_value openTokenizer(const js::Call& call) {
  std::vector<AddedToken> added;
  if (!js::isUndefined(call.env, call.args[1])) added = js::addedTokens(call.env, call.args[1], "tokens");
  return js::runInPool(
      call.env,
      [path = js::path(call.env, call.args[0], "path"), added = std::move(added)] {
        return Tokenizer(GgufFile::open(path), added);
      },
      [](napi_env env, Tokenizer&& tokenizer) {
        const napi_property_descriptor members[] = {
            js::method("encode", js::entry<encode>),         js::method("decode", js::entry<decode>),
            js::method("pieceBytes", js::entry<pieceBytes>), js::method("pieceText", js::entry<pieceText>),
            js::getter("size", js::entry<vocabularySize>),
        };
        const napi_value object = js::newObject(env);
        js::check(napi_define_properties(env, object, std::size(members), members));
        js::wrap(env, object, kTokenizerTag, std::make_unique<const Tokenizer>(std::move(tokenizer)));
        return object;
      });
}

// --- masks ---------------------------------------------------------------------------------------------------------
namespace {

constexpr int64_t kMaxMaskSide = 1 << 16;

using SharedDecoder = std::shared_ptr<const MaskDecoder>;  // shared with the pool task that uses it

napi_value decodeMask(const js::Call& call) {
  std::vector<int32_t> codes = js::maskCodes(call.env, call.args[0]);
  SharedDecoder decoder = js::unwrap<const SharedDecoder>(call.env, call.self, kMaskDecoderTag, "mask decoder");
  return js::runInPool(
      call.env,
      [decoder = std::move(decoder), codes = std::move(codes)] {
        std::vector<float> mask(size_t(kMaskSize) * kMaskSize);
        decoder->decode(codes.data(), mask.data());
        return mask;
      },
      [](napi_env env, std::vector<float>&& mask) { return js::toJs(env, std::move(mask)); });
}

using SharedEncoder = std::shared_ptr<const MaskEncoder>;

// The mask is copied: JavaScript may change it meanwhile.
napi_value encodeMask(const js::Call& call) {
  const js::Bytes data = js::bytes(call.env, call.args[0], "mask");
  const int64_t width = js::integer(call.env, call.args[1], "width", 1, kMaxMaskSide);
  const int64_t height = js::integer(call.env, call.args[2], "height", 1, kMaxMaskSide);
  if (int64_t(data.size) != width * height)
    fail(Code::invalidOption, "Expected ", width * height, " bytes for mask but received ", data.size);
  std::vector<uint8_t> mask(data.data, data.data + data.size);
  SharedEncoder encoder = js::unwrap<const SharedEncoder>(call.env, call.self, kMaskEncoderTag, "mask encoder");
  return js::runInPool(
      call.env,
      [encoder = std::move(encoder), mask = std::move(mask), width, height] {
        std::vector<int32_t> codes(kMaskCodes);
        encoder->encode(mask.data(), int32_t(width), int32_t(height), codes.data());
        return codes;
      },
      [](napi_env env, std::vector<int32_t>&& codes) {
        return js::arrayOf(env, codes.size(), [&](size_t i) { return codes[i]; });
      });
}

}  // namespace

// `Half`: MaskDecoder or MaskEncoder. Source: the path of a GGUF, or tensors.
template <class Half>
static napi_value openHalf(const js::Call& call, const napi_type_tag& tag, const napi_property_descriptor& member) {
  napi_valuetype type;
  js::check(napi_typeof(call.env, call.args[0], &type));
  std::string path;
  MaskTensors tensors;
  if (type == napi_string) path = js::path(call.env, call.args[0], "source");
  else tensors = js::tensorSource(call.env, call.args[0], "source");
  return js::runInPool(
      call.env,
      [path = std::move(path), tensors = std::move(tensors)]() -> std::shared_ptr<const Half> {
        return std::make_shared<const Half>(tensors ? Half(tensors) : Half::fromGguf(*GgufFile::open(path)));
      },
      [tag, member](napi_env env, std::shared_ptr<const Half>&& half) {
        const napi_value object = js::newObject(env);
        js::check(napi_define_properties(env, object, 1, &member));
        js::wrap(env, object, tag, std::make_unique<const std::shared_ptr<const Half>>(std::move(half)));
        return object;
      });
}

napi_value openMaskDecoder(const js::Call& call) {
  return openHalf<MaskDecoder>(call, kMaskDecoderTag, js::method("decode", js::entry<decodeMask>));
}

napi_value openMaskEncoder(const js::Call& call) {
  return openHalf<MaskEncoder>(call, kMaskEncoderTag, js::method("encode", js::entry<encodeMask>));
}

// --- inspect -------------------------------------------------------------------------------------------------------
namespace {

const char* typeName(GgufType type) {
  switch (type) {
    case GgufType::u8: return "uint8";
    case GgufType::i8: return "int8";
    case GgufType::u16: return "uint16";
    case GgufType::i16: return "int16";
    case GgufType::u32: return "uint32";
    case GgufType::i32: return "int32";
    case GgufType::f32: return "float32";
    case GgufType::boolean: return "bool";
    case GgufType::string: return "string";
    case GgufType::array: return "array";
    case GgufType::u64: return "uint64";
    case GgufType::i64: return "int64";
    case GgufType::f64: return "float64";
  }
  return "?";
}

napi_value bigint(napi_env env, int64_t value) {
  napi_value result;
  js::check(napi_create_bigint_int64(env, value, &result));
  return result;
}
napi_value bigint(napi_env env, uint64_t value) {
  napi_value result;
  js::check(napi_create_bigint_uint64(env, value, &result));
  return result;
}

// A file and, of the array that was asked for last, its elements of no fixed size: arrays are read front to back.
struct OpenGguf {
  std::shared_ptr<const GgufFile> file;
  const GgufArray* array = nullptr;
  std::vector<std::string_view> texts;
  std::vector<GgufArray> inner;
};
constexpr napi_type_tag kGgufTag{0x5e0d91c7b82f4a63, 0x8c46a7f13d90e25b};

// Their elements are shown at once, not in parts; what runs here has none.
constexpr uint64_t kMostNestedBytes = 1 << 16;

napi_value describeArray(napi_env env, const GgufArray& array, napi_value values) {
  const napi_value object = js::newObject(env);
  js::set(env, object, "arrayOf", typeName(array.elementType));
  js::set(env, object, "count", array.count);
  js::set(env, object, "values", values);
  return object;
}

napi_value nestedToJs(napi_env env, const GgufArray& array);

// Elements [first, first + count), which there are.
napi_value elementsToJs(napi_env env, OpenGguf& open, const GgufArray& array, size_t first, size_t count) {
  if (open.array != &array) {
    open.array = nullptr;
    if (array.elementType == GgufType::string) open.texts = array.strings();
    if (array.elementType == GgufType::array) open.inner = array.arrays();
    open.array = &array;
  }
  const auto all = [&](const auto& element) {
    return js::arrayOf(env, count, [&](size_t i) { return element(first + i); });
  };
  switch (array.elementType) {
    case GgufType::string: return all([&](size_t i) { return open.texts[i]; });
    case GgufType::array: return all([&](size_t i) { return nestedToJs(env, open.inner[i]); });
    case GgufType::boolean: return all([&](size_t i) { return array.data[i] != 0; });
    case GgufType::u64: return all([&](size_t i) { return bigint(env, uint64_t(array.integer(i))); });
    case GgufType::i64: return all([&](size_t i) { return bigint(env, array.integer(i)); });
    default: return all([&](size_t i) { return array.number(i); });
  }
}

napi_value nestedToJs(napi_env env, const GgufArray& array) {
  if (array.bytes > kMostNestedBytes)
    fail(Code::modelUnsupported, "The metadata holds an array of arrays, one of ", array.bytes, " bytes; at most ",
         kMostNestedBytes, " are read");
  OpenGguf open;
  return describeArray(env, array, elementsToJs(env, open, array, 0, size_t(array.count)));
}

napi_value valueToJs(napi_env env, const GgufValue& value) {
  if (const auto* array = std::get_if<GgufArray>(&value.value)) return describeArray(env, *array, js::newArray(env, 0));
  if (const auto* text = std::get_if<std::string_view>(&value.value)) return js::toJs(env, *text);
  if (const auto* flag = std::get_if<bool>(&value.value)) return js::toJs(env, *flag);
  if (const auto* real = std::get_if<double>(&value.value)) return js::toJs(env, *real);
  if (const auto* number = std::get_if<uint64_t>(&value.value))
    return value.type == GgufType::u64 ? bigint(env, *number) : js::toJs(env, *number);
  const int64_t number = std::get<int64_t>(value.value);
  return value.type == GgufType::i64 ? bigint(env, number) : js::toJs(env, number);
}

napi_value shapeToJs(napi_env env, const GgufTensor& tensor) {
  return js::arrayOf(env, tensor.dims, [&](size_t i) { return tensor.ne[tensor.dims - 1 - i]; });
}

OpenGguf& ggufOf(const js::Call& call) {
  auto& open = js::unwrap<OpenGguf>(call.env, call.self, kGgufTag, "file that inspect opened");
  if (!open.file) fail(Code::invalidOption, "The file is closed");
  return open;
}

// Arguments `at` and `at + 1`: first and count, of `size` things.
std::pair<size_t, size_t> rangeOf(const js::Call& call, size_t at, uint64_t size) {
  const int64_t first = js::integer(call.env, call.args[at], "first", 0, int64_t(size));
  return {size_t(first), size_t(js::integer(call.env, call.args[at + 1], "count", 0, int64_t(size) - first))};
}

napi_value metadataPart(const js::Call& call) {
  const GgufFile& file = *ggufOf(call).file;
  const auto [first, count] = rangeOf(call, 0, file.metadata().size());
  return js::arrayOf(call.env, count, [&, first = first](size_t i) {
    const auto& [key, value] = file.metadata()[first + i];
    const napi_value entry = js::newObject(call.env);
    js::set(call.env, entry, "key", key);
    js::set(call.env, entry, "type", typeName(value.type));
    js::set(call.env, entry, "value", valueToJs(call.env, value));
    return entry;
  });
}

napi_value arrayPart(const js::Call& call) {
  OpenGguf& open = ggufOf(call);
  const auto& metadata = open.file->metadata();
  const size_t entry = size_t(js::integer(call.env, call.args[0], "entry", 0, int64_t(metadata.size()) - 1));
  const auto* array = std::get_if<GgufArray>(&metadata[entry].second.value);
  if (!array) fail(Code::invalidOption, "Expected the number of an array for entry but received ", entry);
  const auto [first, count] = rangeOf(call, 1, array->count);
  return elementsToJs(call.env, open, *array, first, count);
}

napi_value tensorsPart(const js::Call& call) {
  const GgufFile& file = *ggufOf(call).file;
  const auto [first, count] = rangeOf(call, 0, file.tensors().size());
  return js::arrayOf(call.env, count, [&, first = first](size_t i) {
    const GgufTensor& tensor = file.tensors()[first + i];
    const napi_value entry = js::newObject(call.env);
    js::set(call.env, entry, "name", tensor.name);
    js::set(call.env, entry, "type", dtypeName(tensor.type));
    js::set(call.env, entry, "typeId", uint32_t(tensor.type));
    js::set(call.env, entry, "shape", shapeToJs(call.env, tensor));
    js::set(call.env, entry, "offset", tensor.offset);
    js::set(call.env, entry, "bytes", tensor.bytes);
    js::set(call.env, entry, "file", file.pathOf(tensor));
    return entry;
  });
}

napi_value closeGguf(const js::Call& call) {
  ggufOf(call) = {};
  return js::undefined(call.env);
}

}  // namespace

// In parts, as JavaScript asks for them: all of a vocabulary at once would hold up the event loop for 0.2 s.
napi_value inspect(const js::Call& call) {
  using File = std::shared_ptr<const GgufFile>;
  return js::runInPool(
      call.env, [path = js::path(call.env, call.args[0], "path")] { return GgufFile::open(path); },
      [](napi_env env, File&& file) {
        const napi_property_descriptor members[] = {
            js::method("metadata", js::entry<metadataPart>), js::method("values", js::entry<arrayPart>),
            js::method("tensors", js::entry<tensorsPart>), js::method("close", js::entry<closeGguf>)};
        const napi_value object = js::newObject(env);
        js::check(napi_define_properties(env, object, std::size(members), members));
        js::set(env, object, "version", file->version());
        js::set(env, object, "alignment", file->alignment());
        js::set(env, object, "bytes", file->size());
        js::set(env, object, "metadataCount", file->metadata().size());
        js::set(env, object, "tensorCount", file->tensors().size());
        js::wrap(env, object, kGgufTag, std::make_unique<OpenGguf>(OpenGguf{std::move(file)}));
        return object;
      });
}

// Of tensors [first, first + count) those that hold NaN or infinity, also as scales of blocks: a message each.
napi_value checkWeights(const js::Call& call) {
  std::string path = js::path(call.env, call.args[0], "path");
  const size_t first = size_t(js::integer(call.env, call.args[1], "first", 0, kMostTensors)),
               count = size_t(js::integer(call.env, call.args[2], "count", 0, kMostTensors));
  return js::runInPool(
      call.env,
      [path = std::move(path), first, count] {
        const auto file = GgufFile::open(path);
        return file->whole([&] {
          std::vector<std::string> problems;
          const std::vector<GgufTensor>& tensors = file->tensors();
          for (size_t i = first; i < std::min(first + count, tensors.size()); ++i) try {
              file->checkFinite(tensors[i]);
            } catch (const Error& error) {
              problems.push_back(error.message());
            }
          return problems;
        });
      },
      [](napi_env env, std::vector<std::string>&& problems) {
        return js::arrayOf(env, problems.size(), [&](size_t i) { return problems[i]; });
      });
}

napi_value dequantizeTensor(const js::Call& call) {
  struct Dequantized {
    std::vector<int64_t> shape;
    std::vector<float> data;
  };
  std::string path = js::path(call.env, call.args[0], "path"), name = js::string(call.env, call.args[1], "name");
  return js::runInPool(
      call.env,
      [path = std::move(path), name = std::move(name)] {
        const auto file = GgufFile::open(path);
        const GgufTensor* tensor = file->findTensor(name);
        if (!tensor) fail(Code::modelInvalid, path, ": there is no tensor ", name);
        if (!canDequantize(tensor->type))
          fail(Code::modelUnsupported, path, ": tensor ", name, " is of type ", dtypeName(tensor->type),
               ", which holds no real numbers");
        return file->whole([&] {
          Dequantized result;
          for (uint32_t i = tensor->dims; i-- > 0;) result.shape.push_back(tensor->ne[i]);
          result.data.resize(size_t(tensor->elements()));
          const ConstHostView view = file->view(*tensor);
          for (int64_t r = 0; r < view.rows; ++r)
            dequantizeRow(tensor->type, view.row<uint8_t>(r), result.data.data() + r * view.cols, view.cols);
          return result;
        });
      },
      [](napi_env env, Dequantized&& result) {
        const napi_value object = js::newObject(env);
        js::set(env, object, "shape", js::arrayOf(env, result.shape.size(), [&](size_t i) { return result.shape[i]; }));
        js::set(env, object, "data", js::toJs(env, std::move(result.data)));
        return object;
      });
}

}  // namespace pg
