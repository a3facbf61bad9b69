// Split models: several files, each a GGUF with some of the tensors, that count as one. The first holds the metadata;
// all say how many there are (split.count) and which one they are (split.no), and their names number them.
#include <algorithm>

#include "base/error.h"
#include "format/gguf.h"

namespace pg {
namespace {

// "dir/name-00002-of-00003.gguf": what stands around the numbers, and the numbers.
struct PartName {
  std::string before, after;  // "dir/name-", "-of-00003.gguf"
  size_t digits = 0;
  uint64_t number = 0, count = 0;

  std::string path(uint64_t part) const {
    const std::string text = std::to_string(part);
    return before + std::string(digits > text.size() ? digits - text.size() : 0, '0') + text + after;
  }
};

constexpr size_t kMostDigits = 9;

bool isDigit(char c) { return c >= '0' && c <= '9'; }

std::optional<PartName> partName(const std::string& path) {
  static constexpr std::string_view kOf = "-of-";
  const size_t of = path.rfind(kOf);
  if (of == std::string::npos || of == 0) return std::nullopt;
  size_t countEnd = of + kOf.size();
  while (countEnd < path.size() && isDigit(path[countEnd])) ++countEnd;
  size_t numberBegin = of;
  while (numberBegin > 0 && isDigit(path[numberBegin - 1])) --numberBegin;
  const size_t countDigits = countEnd - of - kOf.size(), digits = of - numberBegin;
  const std::string_view rest = std::string_view(path).substr(countEnd);
  const bool ends = rest.empty() || (rest[0] == '.' && rest.find_first_of("/\\") == std::string_view::npos);
  if (!countDigits || countDigits > kMostDigits || !digits || digits > kMostDigits || !ends) return std::nullopt;
  if (numberBegin == 0 || path[numberBegin - 1] != '-') return std::nullopt;
  PartName name{path.substr(0, numberBegin), path.substr(of), digits, std::stoull(path.substr(numberBegin, digits)),
                std::stoull(path.substr(of + kOf.size(), countDigits))};
  if (name.number < 1 || name.number > name.count) return std::nullopt;
  return name;
}

// 0 where the file is no part of a split model; a file that was merged again says 0 or 1 itself.
uint64_t splitCount(const GgufFile& file, const std::optional<PartName>& name) {
  const std::optional<int64_t> count = file.integer("split.count");
  if (count && *count > 1) return uint64_t(*count);
  const int64_t index = file.integer("split.no").value_or(0);
  const int64_t tensors = file.integer("split.tensors.count").value_or(0);
  const auto refuse = [&](const auto&... why) {
    const std::string is = count ? "is " + std::to_string(*count) : "is missing";
    fail(Code::modelInvalid, file.path(), ": key \"split.count\", the number of parts of a split model, ", is, ", but ",
         why..., ". Get the parts again or split the model again (llama-gguf-split)");
  };
  if (count && *count < 0) refuse("a model has no fewer than one");
  if (index > 0) refuse("key \"split.no\" says that this is part ", index + 1);
  if (tensors > int64_t(file.tensors().size()))
    refuse("of the ", tensors, " tensors that key \"split.tensors.count\" counts this file holds ",
           file.tensors().size());
  if (!count && name && name->count > 1)
    refuse("by its name this is part ", name->number, " of ", name->count,
           "; a file that is a whole model needs "
           "another name");
  return 0;
}

void checkPart(const GgufFile& part, const PartName& name, uint64_t number) {
  const uint64_t count = splitCount(part, name);
  if (count != name.count)
    fail(Code::modelInvalid, part.path(), ": by its name it is one of ", name.count,
         " parts, but key \"split.count\" is ", part.integer("split.count").value_or(0),
         "; the parts belong to different models or were renamed");
  const int64_t index = part.integer("split.no").value_or(int64_t(number) - 1);
  if (index != int64_t(number) - 1)
    fail(Code::modelInvalid, part.path(), ": by its name it is part ", number, ", but key \"split.no\" says part ",
         index + 1, "; the parts were renamed");
}

}  // namespace

std::shared_ptr<const GgufFile> GgufFile::open(const std::string& path, FileAccess access) {
  return joined(openPart(path, access));
}

std::shared_ptr<GgufFile> GgufFile::openPart(const std::string& path, FileAccess access) {
  std::shared_ptr<GgufFile> file(new GgufFile(path, access));
  const MappedFile& map = file->map_;
  try {
    file->parse(map.data(), map.size());
    if (!map.copied()) {
      // Once more, from memory of our own: lengths that were checked stay what they are, whoever writes to the file.
      file->head_.assign(map.data(), map.data() + file->headBytes_);
      file->parse(file->head_.data(), file->head_.size());
    }
  } catch (const Error&) {
    map.throwIfChanged();  // says more than what is wrong with half a file
    throw;
  }
  map.throwIfChanged();
  return file;
}

void GgufFile::throwIfChanged(bool atPath) const {
  map_.throwIfChanged(atPath);
  for (const auto& part : parts_) part->map_.throwIfChanged(atPath);
}

uint64_t GgufFile::size() const {
  uint64_t bytes = map_.size();
  for (const auto& part : parts_) bytes += part->map_.size();
  return bytes;
}

const MappedFile* GgufFile::mapOf(const uint8_t* data) const {
  if (data >= map_.data() && data < map_.data() + map_.size()) return &map_;
  for (const auto& part : parts_)
    if (const MappedFile* map = part->mapOf(data)) return map;
  return nullptr;
}

void GgufFile::append(std::shared_ptr<const GgufFile> part) {
  parts_.push_back(std::move(part));
  const GgufFile& added = *parts_.back();
  for (GgufTensor tensor : added.tensors_) {
    if (!tensorIndex_.emplace(tensor.name, tensors_.size()).second)
      fail(Code::modelInvalid, added.path_, ": tensor \"", tensor.name, "\" is in ",
           pathOf(tensors_[tensorIndex_.at(tensor.name)]), " as well; the parts belong to different models");
    tensor.part = uint32_t(parts_.size());
    tensors_.push_back(tensor);
  }
}

std::shared_ptr<GgufFile> GgufFile::joined(std::shared_ptr<GgufFile> file) {
  const std::optional<PartName> name = partName(file->path_);
  const uint64_t count = splitCount(*file, name);
  if (!count) return file;
  if (!name)
    fail(Code::modelInvalid, file->path_, ": this is part ", file->integer("split.no").value_or(0) + 1, " of ", count,
         ", and the others cannot be found: keep the names as they were made, ending in the part's number and the "
         "number of parts (-00001-of-00002.gguf)");
  checkPart(*file, *name, name->number);

  const FileAccess access = file->map_.copied() ? FileAccess::copy : FileAccess::mapped;
  const auto open = [&](uint64_t number) {
    try {
      std::shared_ptr<GgufFile> part = openPart(name->path(number), access);
      checkPart(*part, *name, number);
      return part;
    } catch (const Error& error) {
      if (error.code() != Code::modelNotFound) throw;
      fail(Code::modelNotFound, "Part ", number, " of ", count, " of the model cannot be read: ", error.message(),
           ". All parts must lie in one folder");
    }
  };
  const auto whole = name->number == 1 ? file : open(1);
  for (uint64_t number = 2; number <= count; ++number) whole->append(number == name->number ? file : open(number));
  const int64_t stated = whole->integer("split.tensors.count").value_or(int64_t(whole->tensors_.size()));
  if (stated != int64_t(whole->tensors_.size()))
    fail(Code::modelInvalid, whole->path_, ": key \"split.tensors.count\" is ", stated, ", but the ", count,
         " parts hold ", whole->tensors_.size(), " tensors; the parts belong to different models");
  return whole;
}

}  // namespace pg
