#pragma once
// Files of one run of the tests, in a folder of its own that goes with it: two runs at once do not meet.
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <system_error>

namespace pg::test {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::random_device random;
    path_ = std::filesystem::temp_directory_path() /
            ("paligemma-tests-" + std::to_string(random()) + "-" + std::to_string(random()));
    std::filesystem::create_directory(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::string temporaryPath(const std::string& name) {
  static const TemporaryFolder folder;
  return (folder.path() / name).string();
}

// A file with this content, until the object goes.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& content) {
    static int count = 0;
    path_ = temporaryPath("file-" + std::to_string(count++));
    write(content);
  }
  ~TemporaryFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  void write(const std::string& content) const { std::ofstream(path_, std::ios::binary | std::ios::trunc) << content; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace pg::test
