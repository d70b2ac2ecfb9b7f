#include "kernels/host_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/ceil_divide.h"
#include "base/status_macros.h"

namespace sauva {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

// From a huge page's beginning where one fits in; null when the system refuses.
std::byte* MapPages(int64_t bytes) {
  const int64_t spare = bytes >= kHugePage ? kHugePage : 0;
  void* const pages = mmap(nullptr, static_cast<size_t>(bytes + spare), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) return nullptr;
  auto* const data = static_cast<std::byte*>(pages);
  if (spare == 0) return data;
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t before = -static_cast<int64_t>(reinterpret_cast<uintptr_t>(data)) & (spare - 1);
  const int64_t end = CeilDivide(before + bytes, page) * page;
  if (before > 0) munmap(data, static_cast<size_t>(before));
  if (end < bytes + spare) munmap(data + end, static_cast<size_t>(bytes + spare - end));
  return data + before;
}

class HostBuffer : public Buffer {
 public:
  explicit HostBuffer(HostMemory memory) : memory_(std::move(memory)) {}
  std::byte* data() override { return memory_.data(); }
  int64_t size_bytes() const override { return memory_.size_bytes(); }

 private:
  HostMemory memory_;
};

}  // namespace

absl::StatusOr<HostMemory> HostMemory::Allocate(int64_t bytes) {
  if (bytes < 0) {
    return absl::InvalidArgumentError(absl::StrCat("a buffer of ", bytes, " bytes"));
  }
  HostMemory memory;
  if (bytes == 0) return memory;
  std::byte* pages = MapPages(bytes);
  if (pages == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the system refused ", bytes, " bytes of host memory"));
  }
  // Only a hint: without huge pages all works, more slowly.
  if (bytes >= kHugePage) madvise(pages, static_cast<size_t>(bytes), MADV_HUGEPAGE);
  memory.data_ = pages;
  memory.size_bytes_ = bytes;
  return memory;
}

HostMemory::HostMemory(HostMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)) {}

HostMemory& HostMemory::operator=(HostMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

HostMemory::~HostMemory() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(size_bytes_));
}

absl::StatusOr<std::unique_ptr<Buffer>> AllocateHostBuffer(int64_t bytes) {
  ASSIGN_OR_RETURN(HostMemory memory, HostMemory::Allocate(bytes));
  return std::make_unique<HostBuffer>(std::move(memory));
}

}  // namespace sauva
