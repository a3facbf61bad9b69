#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace pg {

// A file mapped read-only. Several maps of one file share its pages, so a model opened twice is in memory once.
class MappedFile {
 public:
  // UTF-8 path. Fails with modelNotFound (no such file, not a file, no permission).
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const uint8_t* data() const { return data_; }  // nullptr for an empty file
  size_t size() const { return size_; }

  // Hints; failing is not an error.
  void adviseSequential() const;             // read-ahead, before a load that touches everything
  void release(size_t offset, size_t size) const;  // the pages are not needed in memory any more

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace pg
