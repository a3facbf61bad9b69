#include "base/mapped_file.h"

#include <algorithm>
#include <cerrno>
#include <system_error>
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
    : path_(std::move(other.path_)),
      access_(other.access_),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      opened_(std::move(other.opened_)),
      guard_(std::move(other.guard_)) {}

void MappedFile::throwIfChanged(bool atPath) const {
  const std::string what = change(atPath);
  if (!what.empty())
    fail(Code::modelChanged, path_, ": the file was changed while it was in use: ", what,
         ". Load it again when it is whole; put new files beside old ones and rename them, or load with weights: "
         "\"copy\"");
}

#ifdef _WIN32

namespace {

struct Handle {
  HANDLE h;
  explicit Handle(HANDLE handle) : h(handle) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
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

// Nobody may write or cut a file that is open like this, so nothing can change until it is closed.
struct MappedFile::Opened {
  Handle file;
};

MappedFile::MappedFile(const std::string& path, FileAccess access) : path_(path), access_(access) {
  const std::wstring wide = widen(path);
  const DWORD attributes = GetFileAttributesW(wide.c_str());
  if (attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY))
    fail(Code::modelNotFound, path, ": is a directory; give the path of the .gguf file in it");
  opened_.reset(new Opened{Handle(CreateFileW(wide.c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, nullptr,
                                              OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr))});
  const HANDLE file = opened_->file.h;
  if (file == INVALID_HANDLE_VALUE) {
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
  if (!GetFileSizeEx(file, &size)) fail(Code::modelNotFound, path, ": is not a regular file");
  size_ = size_t(size.QuadPart);
  if (size_ == 0) return;
  if (access == FileAccess::copy) copy();
  else map();
}

void MappedFile::map() {
  const Handle section(CreateFileMappingW(opened_->file.h, nullptr, PAGE_READONLY, 0, 0, nullptr));
  if (!section.h) fail(Code::outOfMemory, path_, ": cannot be mapped (Windows error ", GetLastError(), ")");
  data_ = static_cast<const uint8_t*>(MapViewOfFile(section.h, FILE_MAP_READ, 0, 0, 0));
  if (!data_)
    fail(Code::outOfMemory, path_, ": ", size_, " bytes cannot be mapped (Windows error ", GetLastError(), ")");
}

void MappedFile::copy() {
  auto* memory = static_cast<uint8_t*>(VirtualAlloc(nullptr, size_, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE));
  if (!memory) fail(Code::outOfMemory, path_, ": there is no memory for a copy of its ", size_, " bytes");
  constexpr size_t kMost = size_t(1) << 26;
  for (size_t done = 0; done < size_;) {
    DWORD got = 0;
    if (!ReadFile(opened_->file.h, memory + done, DWORD(std::min(kMost, size_ - done)), &got, nullptr) || !got) {
      VirtualFree(memory, 0, MEM_RELEASE);
      fail(Code::modelNotFound, path_, ": cannot be read at byte ", done, " (Windows error ", GetLastError(), ")");
    }
    done += got;
  }
  data_ = memory;
  opened_.reset();
}

MappedFile::~MappedFile() {
  if (data_ && copied()) VirtualFree(const_cast<uint8_t*>(data_), 0, MEM_RELEASE);
  else if (data_) UnmapViewOfFile(data_);
}

std::string MappedFile::change(bool) const { return {}; }

void MappedFile::adviseSequential() const {
  if (!data_ || copied()) return;
  WIN32_MEMORY_RANGE_ENTRY range{const_cast<uint8_t*>(data_), size_};
  PrefetchVirtualMemory(GetCurrentProcess(), 1, &range, 0);
}

void MappedFile::release(size_t offset, size_t size) const {
  // Unlocking pages that were never locked takes them out of the working set.
  if (data_ && !copied() && offset < size_)
    VirtualUnlock(const_cast<uint8_t*>(data_) + offset, size < size_ - offset ? size : size_ - offset);
}

#else

namespace {

// strerror's text may be another thread's
std::string reasonOf(int error) { return std::generic_category().message(error); }

// mtime in nanoseconds
int64_t changedAt(const struct stat& info) {
#ifdef __APPLE__
  const timespec& time = info.st_mtimespec;
#else
  const timespec& time = info.st_mtim;
#endif
  return int64_t(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

std::string difference(const struct stat& then, const struct stat& now) {
  if (now.st_size != then.st_size)
    return "it has " + std::to_string(now.st_size) + " bytes now, not " + std::to_string(then.st_size);
  return changedAt(now) != changedAt(then) ? "it was written to" : "";
}

}  // namespace

struct MappedFile::Opened {
  int fd = -1;
  struct stat info{};
  ~Opened() {
    if (fd >= 0) close(fd);
  }
};

MappedFile::MappedFile(const std::string& path, FileAccess access)
    : path_(path), access_(access), opened_(std::make_unique<Opened>()) {
  if (path.empty()) fail(Code::modelNotFound, "The path of the model is empty");
  // O_NONBLOCK: opening a named pipe must not wait for a writer.
  opened_->fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (opened_->fd < 0) {
    const int error = errno;
    if (error == ENOENT || error == ENOTDIR)
      fail(Code::modelNotFound, path, ": no such file; check the path, or download the model first");
    if (error == EACCES || error == EPERM)
      fail(Code::modelNotFound, path, ": permission denied; make the file and its folders readable for this user");
    if (error == EMFILE || error == ENFILE)
      fail(Code::outOfMemory, path, ": cannot be opened (", reasonOf(error),
           "); raise the limit of open files (ulimit -n), or do fewer things at once");
    fail(Code::modelNotFound, path, ": cannot be opened (", reasonOf(error), ")");
  }
  struct stat& info = opened_->info;
  if (fstat(opened_->fd, &info) != 0)
    fail(Code::modelNotFound, path, ": its size cannot be read (", reasonOf(errno), ")");
  if (S_ISDIR(info.st_mode)) fail(Code::modelNotFound, path, ": is a directory; give the path of the .gguf file in it");
  if (!S_ISREG(info.st_mode))
    fail(Code::modelNotFound, path, ": is not a regular file and cannot be mapped; copy the model to a file first");
  if (info.st_size == 0) return;
  if (uint64_t(info.st_size) > SIZE_MAX)
    fail(Code::outOfMemory, path, ": ", info.st_size, " bytes do not fit the address space of this process");
  size_ = size_t(info.st_size);
  if (access == FileAccess::copy) copy();
  else map();
}

void MappedFile::map() {
  void* map = mmap(nullptr, size_, PROT_READ, MAP_SHARED, opened_->fd, 0);
  if (map == MAP_FAILED) {
    const int error = errno;
    fail(error == ENOMEM ? Code::outOfMemory : Code::modelNotFound, path_, ": ", size_, " bytes cannot be mapped (",
         reasonOf(error), ")");
  }
  data_ = static_cast<const uint8_t*>(map);
  guard_ = std::make_unique<FaultGuard>(map, size_);
}

// Not read into the heap: pages come as they are filled, and a system that is short of memory says so here.
void MappedFile::copy() {
  struct Memory {
    void* begin;
    size_t size;
    ~Memory() {
      if (begin != MAP_FAILED) munmap(begin, size);
    }
  } memory{mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), size_};
  if (memory.begin == MAP_FAILED)
    fail(Code::outOfMemory, path_, ": there is no memory for a copy of its ", size_, " bytes");
  constexpr size_t kMost = size_t(1) << 26;
  for (size_t done = 0; done < size_;) {
    const ssize_t got =
        pread(opened_->fd, static_cast<char*>(memory.begin) + done, std::min(kMost, size_ - done), off_t(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(Code::modelNotFound, path_, ": cannot be read at byte ", done, " (", reasonOf(errno), ")");
    if (got == 0) break;  // shorter than it was: throwIfChanged() says so
    done += size_t(got);
  }
  throwIfChanged();
  mprotect(memory.begin, size_, PROT_READ);
  data_ = static_cast<const uint8_t*>(std::exchange(memory.begin, MAP_FAILED));
  opened_.reset();
}

MappedFile::~MappedFile() {
  guard_.reset();
  if (data_) munmap(const_cast<uint8_t*>(data_), size_);
}

std::string MappedFile::change(bool atPath) const {
  if (!opened_) return {};
  struct stat now;
  if (fstat(opened_->fd, &now) != 0) return "it is gone (" + reasonOf(errno) + ")";
  std::string what = difference(opened_->info, now);
  if (what.empty() && atPath && stat(path_.c_str(), &now) == 0 && now.st_dev == opened_->info.st_dev &&
      now.st_ino == opened_->info.st_ino)
    what = difference(opened_->info, now);
  if (what.empty() && guard_ && guard_->faulted()) what = "a part of it could not be read";
  return what;
}

void MappedFile::adviseSequential() const {
  if (data_ && !copied()) posix_madvise(const_cast<uint8_t*>(data_), size_, POSIX_MADV_SEQUENTIAL);
}

void MappedFile::release(size_t offset, size_t size) const {
  if (!data_ || copied() || offset >= size_) return;  // of a copy the pages would be lost
  if (size > size_ - offset) size = size_ - offset;
  // whole pages inside the range only: their neighbours may still be in use
  const size_t page = size_t(sysconf(_SC_PAGESIZE));
  const size_t begin = roundUp(offset, page), end = (offset + size) / page * page;
  // posix_madvise(DONTNEED) does nothing on Linux
  if (begin < end) madvise(const_cast<uint8_t*>(data_) + begin, end - begin, MADV_DONTNEED);
}

#endif

}  // namespace pg
