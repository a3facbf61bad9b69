#include "base/mapped_file.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/math.h"

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace pg {

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

#ifdef _WIN32

namespace {

struct Handle {
  HANDLE h;
  ~Handle() {
    if (h && h != INVALID_HANDLE_VALUE) CloseHandle(h);
  }
};

std::wstring widen(const std::string& path) {
  const int length = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path.data(), int(path.size()), nullptr, 0);
  if (length <= 0) fail(Code::modelNotFound, "The path is empty or not valid UTF-8: \"", path, "\"");
  std::wstring wide(size_t(length), L'\0');
  MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path.data(), int(path.size()), wide.data(), length);
  return wide;
}

}  // namespace

MappedFile::MappedFile(const std::string& path) {
  const std::wstring wide = widen(path);
  const DWORD attributes = GetFileAttributesW(wide.c_str());
  if (attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY))
    fail(Code::modelNotFound, path, ": is a directory; give the path of the .gguf file in it");
  const Handle file{CreateFileW(wide.c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, nullptr, OPEN_EXISTING,
                                FILE_ATTRIBUTE_NORMAL, nullptr)};
  if (file.h == INVALID_HANDLE_VALUE) {
    const DWORD error = GetLastError();
    if (error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND)
      fail(Code::modelNotFound, path, ": no such file; check the path, or download the model first");
    if (error == ERROR_ACCESS_DENIED)
      fail(Code::modelNotFound, path, ": permission denied; make the file readable for this user");
    if (error == ERROR_SHARING_VIOLATION)
      fail(Code::modelNotFound, path, ": another program is writing this file; wait until it has finished");
    fail(Code::modelNotFound, path, ": cannot be opened (Windows error ", error, ")");
  }
  LARGE_INTEGER size;
  if (!GetFileSizeEx(file.h, &size)) fail(Code::modelNotFound, path, ": is not a regular file");
  if (size.QuadPart == 0) return;
  // The view keeps the section alive: both handles can be closed.
  const Handle section{CreateFileMappingW(file.h, nullptr, PAGE_READONLY, 0, 0, nullptr)};
  if (!section.h) fail(Code::outOfMemory, path, ": cannot be mapped (Windows error ", GetLastError(), ")");
  data_ = static_cast<const uint8_t*>(MapViewOfFile(section.h, FILE_MAP_READ, 0, 0, 0));
  if (!data_)
    fail(Code::outOfMemory, path, ": ", size.QuadPart, " bytes cannot be mapped (Windows error ", GetLastError(), ")");
  size_ = size_t(size.QuadPart);
}

MappedFile::~MappedFile() {
  if (data_) UnmapViewOfFile(data_);
}

void MappedFile::adviseSequential() const {
  if (!data_) return;
  WIN32_MEMORY_RANGE_ENTRY range{const_cast<uint8_t*>(data_), size_};
  PrefetchVirtualMemory(GetCurrentProcess(), 1, &range, 0);
}

void MappedFile::release(size_t offset, size_t size) const {
  // Unlocking pages that were never locked takes them out of the working set.
  if (data_ && offset < size_)
    VirtualUnlock(const_cast<uint8_t*>(data_) + offset, size < size_ - offset ? size : size_ - offset);
}

#else

MappedFile::MappedFile(const std::string& path) {
  struct Descriptor {
    int fd;
    ~Descriptor() {
      if (fd >= 0) close(fd);
    }
  };
  if (path.empty()) fail(Code::modelNotFound, "The path of the model is empty");
  // O_NONBLOCK: opening a named pipe must not wait for a writer.
  const Descriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) {
    const int error = errno;
    if (error == ENOENT || error == ENOTDIR)
      fail(Code::modelNotFound, path, ": no such file; check the path, or download the model first");
    if (error == EACCES || error == EPERM)
      fail(Code::modelNotFound, path, ": permission denied; make the file and its folders readable for this user");
    fail(Code::modelNotFound, path, ": cannot be opened (", std::strerror(error), ")");
  }
  struct stat info;
  if (fstat(file.fd, &info) != 0)
    fail(Code::modelNotFound, path, ": its size cannot be read (", std::strerror(errno), ")");
  if (S_ISDIR(info.st_mode)) fail(Code::modelNotFound, path, ": is a directory; give the path of the .gguf file in it");
  if (!S_ISREG(info.st_mode))
    fail(Code::modelNotFound, path, ": is not a regular file and cannot be mapped; copy the model to a file first");
  if (info.st_size == 0) return;
  if (uint64_t(info.st_size) > SIZE_MAX)
    fail(Code::outOfMemory, path, ": ", info.st_size, " bytes do not fit the address space of this process");
  void* map = mmap(nullptr, size_t(info.st_size), PROT_READ, MAP_SHARED, file.fd, 0);
  if (map == MAP_FAILED) {
    const int error = errno;
    fail(error == ENOMEM ? Code::outOfMemory : Code::modelNotFound, path, ": ", info.st_size,
         " bytes cannot be mapped (", std::strerror(error), ")");
  }
  data_ = static_cast<const uint8_t*>(map);
  size_ = size_t(info.st_size);
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<uint8_t*>(data_), size_);
}

void MappedFile::adviseSequential() const {
  if (data_) posix_madvise(const_cast<uint8_t*>(data_), size_, POSIX_MADV_SEQUENTIAL);
}

void MappedFile::release(size_t offset, size_t size) const {
  if (!data_ || offset >= size_) return;
  if (size > size_ - offset) size = size_ - offset;
  // whole pages inside the range only: their neighbours may still be in use
  const size_t page = size_t(sysconf(_SC_PAGESIZE));
  const size_t begin = roundUp(offset, page), end = (offset + size) / page * page;
  // posix_madvise(DONTNEED) does nothing on Linux
  if (begin < end) madvise(const_cast<uint8_t*>(data_) + begin, end - begin, MADV_DONTNEED);
}

#endif

}  // namespace pg
