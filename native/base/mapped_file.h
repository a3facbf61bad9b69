#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/fault_guard.h"

namespace pg {

// mapped: the file's own pages, which all processes share and the system may drop. copy: read into own memory once.
enum class FileAccess { mapped, copy };

// A file's bytes, read-only. Several maps of one file share its pages, so a model opened twice is in memory once.
class MappedFile {
 public:
  // UTF-8 path. Fails with modelNotFound (no such file, not a file, no permission), modelChanged (while it was copied).
  explicit MappedFile(const std::string& path, FileAccess access = FileAccess::mapped);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const uint8_t* data() const { return data_; }  // nullptr for an empty file
  size_t size() const { return size_; }
  bool copied() const { return access_ == FileAccess::copy; }

  // What happened to the file since it was mapped ("it has 4096 bytes now, not 65536"); empty: nothing that shows in
  // its size and the time of its last change. A file that was deleted or replaced by another of its name stays as it
  // was for us. Some microseconds; `atPath`: also by what the path says, which network file systems know better.
  std::string change(bool atPath = true) const;
  // Fails with modelChanged, for people who read a whole file: all bytes so far were the file's own.
  void throwIfChanged(bool atPath = true) const;

  // Hints; failing is not an error.
  void adviseSequential() const;  // read-ahead, before a load that touches everything
  void release(size_t offset, size_t size) const;  // the pages are not needed in memory any more

 private:
  struct Opened;  // the open file and what it was like
  void map();
  void copy();

  std::string path_;
  FileAccess access_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  std::unique_ptr<Opened> opened_;  // of a mapped file
  std::unique_ptr<FaultGuard> guard_;
};

}  // namespace pg
