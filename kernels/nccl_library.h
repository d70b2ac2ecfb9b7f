#pragma once

#include <array>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/nccl_abi.h"

namespace sauva {

// What both ranks of a communicator are made with; one of them makes it.
using NcclId = std::array<char, 128>;

// The functions of an opened libnccl.so.2; binaries start on machines without it. A value:
// the library stays open as long as the process.
struct NcclLibrary {
  std::string version;             // as "2.28.9"
  bool moves_host_memory = false;  // a stand-in for tests; NCCL moves memory of GPUs only
  nccl::GetUniqueId get_unique_id = nullptr;
  nccl::CommInitRankConfig init = nullptr;
  nccl::CommGetAsyncError async_error = nullptr;
  nccl::Send send = nullptr;
  nccl::Receive receive = nullptr;
  nccl::CommAbort abort = nullptr;
  nccl::GetErrorString error_string = nullptr;
  nccl::GetLastError last_error = nullptr;

  // Errors: as Check.
  absl::StatusOr<NcclId> MakeId() const;
  // OK for what was done or begun. Errors, naming `call` with what NCCL says: UNAVAILABLE where
  // the other rank went away, INTERNAL where the call failed at this end.
  absl::Status Check(nccl::Result result, const char* call) const;
};

inline constexpr const char* kDefaultNcclLibrary = "libnccl.so.2";

// Opens a library by name, as the loader finds it, or by path. NCCL's limits for ranks that
// send now and then (1 MiB of buffers) are set unless the environment says others.
// Errors: FAILED_PRECONDITION naming the file and why it does not do.
absl::StatusOr<NcclLibrary> OpenNcclLibrary(const std::string& path);

}  // namespace sauva
