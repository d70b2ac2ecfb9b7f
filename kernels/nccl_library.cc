#include "kernels/nccl_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace sauva {
namespace {

static_assert(sizeof(NcclId) == sizeof(nccl::UniqueId));

template <class F>
absl::Status Find(void* library, const std::string& path, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  if (function != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(path, " has no function ", name, "; NCCL 2.18 or newer is needed"));
}

// 22809 is 2.28.9.
std::string VersionText(int code) {
  return absl::StrCat(code / 10000, ".", code % 10000 / 100, ".", code % 100);
}

}  // namespace

absl::StatusOr<NcclLibrary> OpenNcclLibrary(const std::string& path) {
  // Two ranks that send now and then need little; a small card has none to spare.
  setenv("NCCL_BUFFSIZE", "1048576", 0);
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("NCCL cannot be used: ", dlerror()));
  }
  NcclLibrary nccl;
  nccl::GetVersion get_version = nullptr;
  RETURN_IF_ERROR(Find(library, path, "ncclGetVersion", get_version));
  RETURN_IF_ERROR(Find(library, path, "ncclGetErrorString", nccl.error_string));
  RETURN_IF_ERROR(Find(library, path, "ncclGetLastError", nccl.last_error));
  RETURN_IF_ERROR(Find(library, path, "ncclGetUniqueId", nccl.get_unique_id));
  RETURN_IF_ERROR(Find(library, path, "ncclCommInitRankConfig", nccl.init));
  RETURN_IF_ERROR(Find(library, path, "ncclCommGetAsyncError", nccl.async_error));
  RETURN_IF_ERROR(Find(library, path, "ncclSend", nccl.send));
  RETURN_IF_ERROR(Find(library, path, "ncclRecv", nccl.receive));
  RETURN_IF_ERROR(Find(library, path, "ncclCommAbort", nccl.abort));
  nccl.moves_host_memory = dlsym(library, nccl::kMovesHostMemorySymbol) != nullptr;
  int version = 0;
  RETURN_IF_ERROR(nccl.Check(get_version(&version), "ncclGetVersion"));
  // Earlier ones read a configuration of another layout.
  if (version < 21800) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is NCCL ", VersionText(version), "; 2.18 or newer is needed"));
  }
  nccl.version = VersionText(version);
  return nccl;
}

absl::StatusOr<NcclId> NcclLibrary::MakeId() const {
  nccl::UniqueId made;
  RETURN_IF_ERROR(Check(get_unique_id(&made), "ncclGetUniqueId"));
  NcclId id;
  std::memcpy(id.data(), made.internal, id.size());
  return id;
}

absl::Status NcclLibrary::Check(nccl::Result result, const char* call) const {
  if (result == nccl::kSuccess || result == nccl::kInProgress) return absl::OkStatus();
  std::string text = absl::StrCat(call, ": ", error_string(result));
  // NCCL keeps it in a buffer of this size, which other calls may just write to.
  constexpr size_t kMostDetail = 1024;
  const char* detail = last_error(nullptr);
  const size_t length = detail == nullptr ? 0 : strnlen(detail, kMostDetail);
  if (length > 0) absl::StrAppend(&text, " (", std::string(detail, length), ")");
  if (result == nccl::kRemoteError) return absl::UnavailableError(text);
  return absl::InternalError(text);
}

}  // namespace sauva
