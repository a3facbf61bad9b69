#pragma once
// GGUF v2/v3: metadata and tensor index over a memory map. docs/gguf.md lists the keys and tensors PaliGemma uses.
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/host_view.h"

namespace pg {

enum class GgufType : uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12,
};

struct GgufValue;

// Arrays stay where they are in the file's head; elements are decoded on access, so a vocabulary costs no copy.
struct GgufArray {
  GgufType elementType;
  uint64_t count;
  const uint8_t* data;   // first element
  uint64_t bytes;        // of all elements, as stored

  // Plain numbers only: element i widened. Checked in the parser, so never out of the map.
  double number(uint64_t i) const;
  int64_t integer(uint64_t i) const;
  // Strings only, in order (they have no fixed size).
  std::vector<std::string_view> strings() const;
  // Arrays of arrays only: the inner ones, in order.
  std::vector<GgufArray> arrays() const;
};

struct GgufValue {
  GgufType type;
  uint64_t offset;   // bytes from the start of the file, for error messages
  std::variant<uint64_t, int64_t, double, bool, std::string_view, GgufArray> value;
};

struct GgufTensor {
  std::string_view name;
  DType type;
  uint32_t dims;          // 1..4
  int64_t ne[4];          // GGUF order: fastest first; unused ones are 1
  uint64_t offset;        // bytes from the start of the file that holds it
  uint64_t bytes;
  uint32_t part;          // of a split model: which file, from 0
  int64_t rows() const { return ne[1] * ne[2] * ne[3]; }
  int64_t cols() const { return ne[0]; }
  int64_t elements() const { return ne[0] * rows(); }
};

class GgufReader;  // of the head's bytes, in gguf.cpp

class GgufFile {
 public:
  // Checks magic, version, every count, length, offset and alignment before use. Fails with modelNotFound or
  // modelInvalid (path, field or tensor, byte offset). Never allocates in proportion to a claimed count.
  // A part of a split model (name-00002-of-00003.gguf) opens the whole: the first part's metadata, all parts' tensors.
  // Metadata and the index are copied into memory: only tensors change with a file that is written to.
  static std::shared_ptr<const GgufFile> open(const std::string& path, FileAccess access = FileAccess::mapped);

  // Fails with modelChanged where a part was cut or written to since it was opened: what was read of the tensors may be
  // anything. To be asked after reading.
  void throwIfChanged(bool atPath = true) const;

  // What work(), which reads tensors, gives; whether it fails or not, modelChanged comes first.
  template <class Work>
  auto whole(Work&& work) const {
    try {
      auto result = work();
      throwIfChanged();
      return result;
    } catch (const Error&) {
      throwIfChanged();
      throw;
    }
  }

  const std::string& path() const { return path_; }
  uint32_t version() const { return version_; }
  uint64_t alignment() const { return alignment_; }
  uint64_t size() const;  // of all parts
  // The map that holds this byte; nullptr where none does.
  const MappedFile* mapOf(const uint8_t* data) const;
  const std::string& pathOf(const GgufTensor& tensor) const { return holder(tensor).path_; }

  // In file order.
  const std::vector<std::pair<std::string_view, GgufValue>>& metadata() const { return metadata_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }

  const GgufValue* find(std::string_view key) const;
  const GgufTensor* findTensor(std::string_view name) const;
  ConstHostView view(const GgufTensor& tensor) const;  // [rows, cols] in the map

  // Typed access. The optional forms give nullopt for a missing key; a key of another type is modelInvalid.
  std::optional<int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string_view> string(std::string_view key) const;
  const GgufArray* array(std::string_view key) const;

  // Fails with modelInvalid where floating-point data or a block scale of this tensor is NaN or infinite. Reads and
  // decodes the whole tensor: for `verify`, not for loading.
  void checkFinite(const GgufTensor& tensor) const;

 private:
  GgufFile(const std::string& path, FileAccess access) : path_(path), map_(path, access) {}
  static std::shared_ptr<GgufFile> openPart(const std::string& path, FileAccess access);
  void parse(const uint8_t* data, size_t size);
  void readVersion(GgufReader& in);
  void readMetadata(GgufReader& in, uint64_t count);
  void readTensors(GgufReader& in, uint64_t count);
  void placeTensors(const GgufReader& in);  // from offsets in the data to those in the file
  void checkOverlap(const GgufReader& in) const;
  // The whole model that this file is a part of; the file itself where it is no part.
  static std::shared_ptr<GgufFile> joined(std::shared_ptr<GgufFile> file);
  void append(std::shared_ptr<const GgufFile> part);
  const GgufFile& holder(const GgufTensor& tensor) const { return tensor.part ? *parts_[tensor.part - 1] : *this; }

  std::string path_;
  MappedFile map_;
  std::vector<uint8_t> head_;  // everything before the tensors' data
  size_t headBytes_ = 0;
  uint32_t version_ = 0;
  uint64_t alignment_ = 32;
  std::vector<std::pair<std::string_view, GgufValue>> metadata_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, size_t> keyIndex_, tensorIndex_;
  std::vector<std::shared_ptr<const GgufFile>> parts_;  // the second and later ones
};

}  // namespace pg
