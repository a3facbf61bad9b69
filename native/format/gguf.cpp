#include "format/gguf.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/math.h"
#include "format/quantize.h"
#include "format/gguf_reader.h"

namespace pg {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF data is used in place");

// Arrays of arrays: nobody writes more than two levels, and the parser recurses.
constexpr int kMaxArrayDepth = 8;

template <class T>
T load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// Text from a file for a message: quoted, of limited length, control characters as \xNN.
std::string quoted(std::string_view text) {
  constexpr size_t kShown = 64;
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text.substr(0, kShown)) {
    const auto byte = uint8_t(c);
    if (byte < 32 || byte == 127) out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    else out += c;
  }
  return out + (text.size() > kShown ? "...\"" : "\"");
}

// 0 for strings and arrays, which have no fixed size, and for unknown types.
uint64_t fixedBytes(GgufType type) {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::boolean: return 1;
    case GgufType::u16:
    case GgufType::i16: return 2;
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::f32: return 4;
    case GgufType::u64:
    case GgufType::i64:
    case GgufType::f64: return 8;
    case GgufType::string:
    case GgufType::array: return 0;
  }
  return 0;
}

const char* typeName(GgufType type) {
  static constexpr const char* kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                           "bool", "string", "array", "u64", "i64", "f64"};
  return uint32_t(type) < std::size(kNames) ? kNames[uint32_t(type)] : "unknown";
}

// Names the types that the format once had, so that the message can say more than a number.
const char* removedTypeName(uint32_t id) {
  switch (id) {
    case 4: return "Q4_2";
    case 5: return "Q4_3";
    case 9: return "Q8_1";
    case 15: return "Q8_K";
    case 31: return "Q4_0_4_4";
    case 32: return "Q4_0_4_8";
    case 33: return "Q4_0_8_8";
    case 36: return "IQ4_NL_4_4";
    case 37: return "IQ4_NL_4_8";
    case 38: return "IQ4_NL_8_8";
  }
  return nullptr;
}

GgufArray readArray(GgufReader& in, const std::string& key, int depth) {
  const uint64_t at = in.position();
  const auto type = in.number<uint32_t>("the element type of array ", key);
  const auto count = in.number<uint64_t>("the length of array ", key);
  const auto elementType = GgufType(type);
  if (type > uint32_t(GgufType::f64))
    in.invalid("array ", key, " (at byte ", at, ") has the unknown element type ", type);
  GgufArray array{elementType, count, in.here(), 0};
  const uint64_t fixed = fixedBytes(elementType);
  const uint64_t least = fixed ? fixed : elementType == GgufType::string ? 8 : 12;
  if (count > in.left() / least)
    in.invalid("array ", key, " (at byte ", at, ") claims ", count, " elements of type ", typeName(elementType),
               " but only ", in.left(), " bytes are left: the download is incomplete or the file is damaged");
  if (fixed) {
    in.take(count * fixed, "array ", key);
    if (elementType == GgufType::boolean)
      for (uint64_t i = 0; i < count; ++i)
        if (array.data[i] > 1)
          in.invalid("array ", key, ": element ", i, " is ", int(array.data[i]), ", not a bool (0 or 1)");
  } else if (elementType == GgufType::string) {
    for (uint64_t i = 0; i < count; ++i) in.string("string ", i, " of array ", key);
  } else {
    if (depth == kMaxArrayDepth)
      in.invalid("array ", key, " (at byte ", at, ") is nested more than ", kMaxArrayDepth, " levels deep");
    for (uint64_t i = 0; i < count; ++i) readArray(in, key, depth + 1);
  }
  array.bytes = uint64_t(in.here() - array.data);
  return array;
}

GgufValue readValue(GgufReader& in, const std::string& key) {
  const auto type = in.number<uint32_t>("the type of key ", key);
  const uint64_t at = in.position();
  const auto value = [&](auto v) { return GgufValue{GgufType(type), at, v}; };
  switch (GgufType(type)) {
    case GgufType::u8: return value(uint64_t(in.number<uint8_t>("key ", key)));
    case GgufType::u16: return value(uint64_t(in.number<uint16_t>("key ", key)));
    case GgufType::u32: return value(uint64_t(in.number<uint32_t>("key ", key)));
    case GgufType::u64: return value(uint64_t(in.number<uint64_t>("key ", key)));
    case GgufType::i8: return value(int64_t(in.number<int8_t>("key ", key)));
    case GgufType::i16: return value(int64_t(in.number<int16_t>("key ", key)));
    case GgufType::i32: return value(int64_t(in.number<int32_t>("key ", key)));
    case GgufType::i64: return value(int64_t(in.number<int64_t>("key ", key)));
    case GgufType::f32: return value(double(in.number<float>("key ", key)));
    case GgufType::f64: return value(in.number<double>("key ", key));
    case GgufType::boolean: {
      const auto byte = in.number<uint8_t>("key ", key);
      if (byte > 1)
        in.invalid("key ", key, " (at byte ", at, ") is a bool but holds ", int(byte), " instead of 0 or 1");
      return value(byte == 1);
    }
    case GgufType::string: return value(in.string("the value of key ", key));
    case GgufType::array: return value(readArray(in, key, 0));
  }
  in.invalid("key ", key, " (at byte ", at - 4, ") has the unknown type ", type);
}

bool startsWith(const uint8_t* data, uint64_t size, std::string_view text) {
  return size >= text.size() && std::memcmp(data, text.data(), text.size()) == 0;
}

// Says what a file without the GGUF magic is, as far as its first bytes tell.
[[noreturn]] void rejectMagic(const GgufReader& in, const uint8_t* data, uint64_t size) {
  if (size < 4)
    in.invalid("the file has only ", size, " bytes, so it cannot be a GGUF model: the download is incomplete");
  if (startsWith(data, size, "version https://git-lfs"))
    in.invalid(
        "this is a git-lfs pointer, not the model itself; run `git lfs pull` or download the file from its web page");
  std::string head(reinterpret_cast<const char*>(data), size_t(std::min<uint64_t>(size, 512)));
  std::transform(head.begin(), head.end(), head.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
  const size_t text = head.find_first_not_of(" \t\r\n\xef\xbb\xbf");
  if (text != std::string::npos && (head.compare(text, 9, "<!doctype") == 0 || head.compare(text, 5, "<html") == 0))
    in.invalid("this is an HTML page, not a model; the download link was wrong or asked for a login");
  if (size >= 9 && data[8] == '{' && load<uint64_t>(data) < (uint64_t(1) << 32))
    in.invalid("this is a safetensors file; convert it to GGUF first (`paligemma convert`)");
  if (startsWith(data, size, "PK\x03\x04"))
    in.invalid("this is a zip archive (.npz or a PyTorch checkpoint); convert it to GGUF first (`paligemma convert`)");
  // 'ggml', 'ggmf', 'ggjt', 'ggla' were stored as little-endian words
  for (const char* legacy : {"lmgg", "fmgg", "tjgg", "algg", "ggml", "GGML"})
    if (startsWith(data, size, legacy))
      in.invalid("this is a file of the old GGML format, from before GGUF; convert the original model again");
  if (startsWith(data, size, "FUGG"))
    in.invalid("the magic is byte-reversed (\"FUGG\"): not a little-endian GGUF file");
  in.invalid("not a GGUF file: it starts with ", quoted({reinterpret_cast<const char*>(data), 4}),
             " instead of \"GGUF\"");
}

GgufTensor readTensor(GgufReader& in, uint64_t index) {
  GgufTensor t{};
  t.name = in.string("the name of tensor ", index);
  if (t.name.empty()) in.invalid("tensor ", index, " (before byte ", in.position(), ") has an empty name");
  const std::string name = quoted(t.name);
  if (t.name.find('\0') != std::string_view::npos)
    in.invalid("tensor ", name, " (before byte ", in.position(), ") has a NUL byte in its name");
  const uint64_t at = in.position();
  t.dims = in.number<uint32_t>("the number of dimensions of tensor ", name);
  if (t.dims < 1 || t.dims > 4)
    in.invalid("tensor ", name, " (at byte ", at, ") has ", t.dims, " dimensions; 1 to 4 are possible");
  uint64_t elements = 1;
  for (uint32_t i = 0; i < 4; ++i) {
    t.ne[i] = 1;
    if (i >= t.dims) continue;
    const uint64_t dimAt = in.position();
    const auto n = in.number<uint64_t>("dimension ", i, " of tensor ", name);
    if (n == 0 || n > uint64_t(INT64_MAX))
      in.invalid("tensor ", name, ": dimension ", i, " (at byte ", dimAt, ") is ", n, ", which no tensor can have");
    if (elements > uint64_t(INT64_MAX) / n)
      in.invalid("tensor ", name, ": its dimensions (up to byte ", dimAt, ") multiply to more than 2^63 elements");
    elements *= n;
    t.ne[i] = int64_t(n);
  }
  const uint64_t typeAt = in.position();
  const auto type = in.number<uint32_t>("the type of tensor ", name);
  t.type = DType(type);
  const DTypeInfo* info = dtypeInfo(t.type);
  if (!info) {
    if (const char* removed = removedTypeName(type))
      in.invalid("tensor ", name, " (at byte ", typeAt, ") has type ", type, " (", removed,
                 "), which files may not use (any more); convert or quantize the model again");
    in.invalid("tensor ", name, " (at byte ", typeAt, ") has the unknown type ", type,
               "; the file is damaged or made for a newer version");
  }
  if (t.ne[0] % info->block)
    in.invalid("tensor ", name, ": rows of ", t.ne[0], " values cannot be ", info->name, ", whose blocks hold ",
               info->block);
  const uint64_t blocks = elements / info->block;
  if (blocks > uint64_t(INT64_MAX) / info->bytes)
    in.invalid("tensor ", name, " (at byte ", at, ") claims more than 2^63 bytes");
  t.bytes = blocks * info->bytes;
  t.offset = in.number<uint64_t>("the offset of tensor ", name);  // still relative to the data section
  return t;
}

}  // namespace

double GgufArray::number(uint64_t i) const {
  switch (elementType) {
    case GgufType::f32: return load<float>(data + 4 * i);
    case GgufType::f64: return load<double>(data + 8 * i);
    case GgufType::u64: return double(load<uint64_t>(data + 8 * i));
    default: return double(integer(i));
  }
}

int64_t GgufArray::integer(uint64_t i) const {
  switch (elementType) {
    case GgufType::u8:
    case GgufType::boolean: return data[i];
    case GgufType::i8: return int8_t(data[i]);
    case GgufType::u16: return load<uint16_t>(data + 2 * i);
    case GgufType::i16: return load<int16_t>(data + 2 * i);
    case GgufType::u32: return load<uint32_t>(data + 4 * i);
    case GgufType::i32: return load<int32_t>(data + 4 * i);
    case GgufType::u64:
    case GgufType::i64: return load<int64_t>(data + 8 * i);
    default: fail(Code::modelInvalid, "An array of ", typeName(elementType), " was read as integers");
  }
}

std::vector<std::string_view> GgufArray::strings() const {
  if (elementType != GgufType::string)
    fail(Code::modelInvalid, "An array of ", typeName(elementType), " was read as strings");
  std::vector<std::string_view> all;
  all.reserve(count);  // checked while parsing: every string takes at least eight bytes of the file
  const uint8_t* p = data;
  for (uint64_t i = 0; i < count; ++i) {
    const auto length = load<uint64_t>(p);
    all.emplace_back(reinterpret_cast<const char*>(p + 8), size_t(length));
    p += 8 + length;
  }
  return all;
}

std::vector<GgufArray> GgufArray::arrays() const {
  if (elementType != GgufType::array)
    fail(Code::modelInvalid, "An array of ", typeName(elementType), " was read as arrays");
  std::vector<GgufArray> all;
  const std::string path, key;
  GgufReader in(path, data, bytes);
  for (uint64_t i = 0; i < count; ++i) all.push_back(readArray(in, key, 0));
  return all;
}

void GgufFile::parse(const uint8_t* data, size_t size) {
  metadata_.clear();
  tensors_.clear();
  keyIndex_.clear();
  tensorIndex_.clear();
  GgufReader in(path_, data, size);
  if (!startsWith(data, size, "GGUF")) rejectMagic(in, data, size);
  in.take(4, "the magic");
  readVersion(in);
  const auto tensorCount = in.number<uint64_t>("the number of tensors");
  const auto keyCount = in.number<uint64_t>("the number of metadata keys");
  // An entry takes many bytes; refusing absurd counts here gives a better message than the entry that runs out of file.
  const auto checkCount = [&](uint64_t count, const char* what, int at) {
    if (count > in.left())
      in.invalid("the header claims ", count, " ", what, " (at byte ", at, ") but only ", in.left(),
                 " bytes follow: the download is incomplete or the file is damaged");
  };
  checkCount(keyCount, "metadata keys", 16);
  checkCount(tensorCount, "tensors", 8);
  // Models have some hundreds; what is made of them would take long where a file has millions.
  constexpr uint64_t kMost = 1 << 16;
  if (keyCount > kMost) in.invalid("it claims ", keyCount, " metadata keys (at byte 16); at most ", kMost, " are read");
  if (tensorCount > kMost) in.invalid("it claims ", tensorCount, " tensors (at byte 8); at most ", kMost, " are read");
  readMetadata(in, keyCount);
  readTensors(in, tensorCount);
  headBytes_ = size_t(in.position());
  if (tensors_.empty()) return;
  placeTensors(in);
  checkOverlap(in);
}

void GgufFile::readVersion(GgufReader& in) {
  version_ = in.number<uint32_t>("the version");
  if (version_ == 2 || version_ == 3) return;
  if (version_ && !(version_ & 0xffff))
    in.invalid("this is a big-endian GGUF file (version field 0x", std::hex, version_,
               "); convert the model again for little-endian machines");
  in.invalid("GGUF version ", version_, " (at byte 4) cannot be read; versions 2 and 3 can",
             version_ > 3 ? ": update this package" : ": convert the model again");
}

void GgufFile::readMetadata(GgufReader& in, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t at = in.position();
    const std::string_view key = in.string("metadata key ", i);
    if (key.empty()) in.invalid("metadata key ", i, " (at byte ", at, ") is empty");
    const std::string name = quoted(key);
    if (!keyIndex_.emplace(key, metadata_.size()).second)
      in.invalid("metadata key ", name, " (at byte ", at, ") occurs twice");
    metadata_.emplace_back(key, readValue(in, name));
  }
  if (const GgufValue* value = find("general.alignment")) {
    const auto* alignment = std::get_if<uint64_t>(&value->value);
    // The format asks for a multiple of 8; numbers of 8 bytes are then never misaligned in the map.
    if (!alignment || *alignment < 8 || *alignment > UINT32_MAX || !std::has_single_bit(*alignment))
      in.invalid(
          "general.alignment (at byte ", value->offset, ") must be an unsigned power of two of at least 8",
          alignment ? " but is " + std::to_string(*alignment) : std::string(" but has type ") + typeName(value->type));
    alignment_ = *alignment;
  }
}

void GgufFile::readTensors(GgufReader& in, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t at = in.position();
    const GgufTensor t = readTensor(in, i);
    if (!tensorIndex_.emplace(t.name, tensors_.size()).second)
      in.invalid("tensor name ", quoted(t.name), " (at byte ", at, ") occurs twice");
    if (t.offset % alignment_)
      in.invalid("tensor ", quoted(t.name), ": offset ", t.offset, " (before byte ", in.position(),
                 ") is not a multiple of the alignment ", alignment_);
    tensors_.push_back(t);
  }
}

void GgufFile::placeTensors(const GgufReader& in) {
  const uint64_t dataStart = roundUp(in.position(), alignment_);
  uint64_t needed = 0;
  const GgufTensor* last = nullptr;
  for (GgufTensor& t : tensors_) {
    // offset is < 2^64, bytes < 2^63 and dataStart tiny: test before each addition
    if (t.offset > uint64_t(INT64_MAX) - dataStart || t.bytes > uint64_t(INT64_MAX) - dataStart - t.offset)
      in.invalid("tensor ", quoted(t.name), ": offset ", t.offset, " plus ", t.bytes,
                 " bytes is more than any file holds");
    t.offset += dataStart;
    if (t.offset + t.bytes > needed) {
      needed = t.offset + t.bytes;
      last = &t;
    }
  }
  if (needed > map_.size())
    in.invalid("tensor ", quoted(last->name), " (", last->bytes, " bytes from byte ", last->offset, ") ends at byte ",
               needed, " but the file at byte ", map_.size(), ": ", needed - map_.size(),
               " bytes are missing, so the download is incomplete or the file is damaged");
}

void GgufFile::checkOverlap(const GgufReader& in) const {
  std::vector<const GgufTensor*> order;
  for (const GgufTensor& t : tensors_) order.push_back(&t);
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); ++i)
    if (order[i - 1]->offset + order[i - 1]->bytes > order[i]->offset)
      in.invalid("tensors ", quoted(order[i - 1]->name), " and ", quoted(order[i]->name), " overlap at byte ",
                 order[i]->offset);
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto it = keyIndex_.find(key);
  return it == keyIndex_.end() ? nullptr : &metadata_[it->second].second;
}

const GgufTensor* GgufFile::findTensor(std::string_view name) const {
  const auto it = tensorIndex_.find(name);
  return it == tensorIndex_.end() ? nullptr : &tensors_[it->second];
}

ConstHostView GgufFile::view(const GgufTensor& tensor) const {
  return {holder(tensor).map_.data() + tensor.offset, tensor.type, tensor.rows(), tensor.cols()};
}

namespace {

[[noreturn]] void wrongType(const std::string& path, std::string_view key, const GgufValue& value,
                            const char* expected) {
  fail(Code::modelInvalid, path, ": key ", quoted(key), " (at byte ", value.offset, ") must be ", expected,
       " but has type ", typeName(value.type));
}

}  // namespace

std::optional<int64_t> GgufFile::integer(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* i = std::get_if<int64_t>(&value->value)) return *i;
  const auto* u = std::get_if<uint64_t>(&value->value);
  if (!u) wrongType(path_, key, *value, "an integer");
  if (*u > uint64_t(INT64_MAX))
    fail(Code::modelInvalid, path_, ": key ", quoted(key), " (at byte ", value->offset, ") is ", *u,
         ", which is out of range");
  return int64_t(*u);
}

std::optional<double> GgufFile::number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* f = std::get_if<double>(&value->value)) return *f;
  if (const auto* i = std::get_if<int64_t>(&value->value)) return double(*i);
  if (const auto* u = std::get_if<uint64_t>(&value->value)) return double(*u);
  wrongType(path_, key, *value, "a number");
}

std::optional<bool> GgufFile::boolean(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* b = std::get_if<bool>(&value->value)) return *b;
  wrongType(path_, key, *value, "a bool");
}

std::optional<std::string_view> GgufFile::string(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* s = std::get_if<std::string_view>(&value->value)) return *s;
  wrongType(path_, key, *value, "a string");
}

const GgufArray* GgufFile::array(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return nullptr;
  if (const auto* a = std::get_if<GgufArray>(&value->value)) return a;
  wrongType(path_, key, *value, "an array");
}

void GgufFile::checkFinite(const GgufTensor& tensor) const {
  if (!canDequantize(tensor.type)) return;  // integers
  const DTypeInfo& info = *dtypeInfo(tensor.type);
  // in pieces of whole blocks, so that a tensor that is one long row needs no row of memory
  const int64_t piece =
      std::min<int64_t>(tensor.elements(), int64_t(info.block) * std::max<int64_t>(1, 4096 / info.block));
  std::vector<float> values(static_cast<size_t>(piece));
  for (int64_t begin = 0; begin < tensor.elements(); begin += piece) {
    const int64_t n = std::min(piece, tensor.elements() - begin);
    const uint64_t at = tensor.offset + bytesFor(tensor.type, begin);
    dequantizeRow(tensor.type, holder(tensor).map_.data() + at, values.data(), n);
    for (int64_t i = 0; i < n; ++i)
      if (!std::isfinite(values[size_t(i)]))
        fail(Code::modelInvalid, pathOf(tensor), ": tensor ", quoted(tensor.name), " holds ",
             std::isnan(values[size_t(i)]) ? "NaN" : "infinity", " in element ", begin + i, " (the block at byte ",
             at + bytesFor(tensor.type, i / info.block * info.block), "): the file is damaged");
  }
}

}  // namespace pg
