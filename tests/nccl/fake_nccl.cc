// The C interface of the stand-in. SAUVA_FAKE_NCCL names a folder that all processes share:
//   other-version  makes the first process that asks another version
//   no-connect     while it is there, no two ranks meet: each says so at once
//   hang-id, hang-abort  while they are there, ncclGetUniqueId or ncclCommAbort does not return
//   hanging-…      a call that does not
//   id-…           an id that was made and whose two ranks have not met: NCCL keeps a thread and
//                  a socket for each
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <thread>

#include "tests/nccl/fake_communicator.h"

namespace {

using namespace sauva::nccl;

std::string Folder() {
  const char* folder = std::getenv("SAUVA_FAKE_NCCL");
  return folder == nullptr ? "" : folder;
}

int Version() {
  static const int version = unlink((Folder() + "/other-version").c_str()) == 0 ? 22703 : 22809;
  return version;
}

void HangWhileThere(const char* file) {
  static std::atomic<int> calls = 0;
  const std::string path = Folder() + "/" + file;
  if (access(path.c_str(), F_OK) != 0) return;
  const std::string mark =
      Folder() + "/hanging-" + std::to_string(getpid()) + "-" + std::to_string(++calls);
  std::ofstream(mark).put('\n');
  while (access(path.c_str(), F_OK) == 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  unlink(mark.c_str());
}

}  // namespace

extern "C" {

extern const int sauvaNcclMovesHostMemory;
const int sauvaNcclMovesHostMemory = 1;

Result ncclGetVersion(int* version) {
  *version = Version();
  return kSuccess;
}

const char* ncclGetErrorString(Result result) {
  switch (result) {
    case kSuccess:
      return "no error";
    case kSystemError:
      return "unhandled system error";
    case kInvalidUsage:
      return "invalid usage";
    case kRemoteError:
      return "remote process exited or there was a network error";
    case kInProgress:
      return "NCCL operation in progress";
  }
  return "unknown result code";
}

Result ncclGetUniqueId(UniqueId* id) {
  if (Folder().empty()) return kSystemError;
  HangWhileThere("hang-id");
  std::random_device random;
  const std::string name = "id-" + std::to_string(random()) + std::to_string(random());
  std::memset(id->internal, 0, sizeof id->internal);
  name.copy(id->internal, sizeof id->internal - 1);
  std::ofstream(Folder() + "/" + name).put('\n');
  return kSuccess;
}

Result ncclCommInitRankConfig(Communicator** made, int ranks, UniqueId id, int rank,
                              Config* config) {
  if (ranks != 2 || config->magic != 0xcafebeef || config->blocking != 0) return kInvalidUsage;
  *made = new Communicator(Folder(), id.internal, rank);
  return kInProgress;
}

Result ncclCommGetAsyncError(Communicator* communicator, Result* state) {
  *state = communicator->State();
  return kSuccess;
}

Result ncclSend(const void* from, size_t count, DataType type, int, Communicator* communicator,
                void* stream) {
  if (type != kUint8) return kInvalidUsage;
  return communicator->Begin(true, const_cast<void*>(from), count,
                             static_cast<sauva::HostStream*>(stream));
}

Result ncclRecv(void* to, size_t count, DataType type, int, Communicator* communicator,
                void* stream) {
  if (type != kUint8) return kInvalidUsage;
  return communicator->Begin(false, to, count, static_cast<sauva::HostStream*>(stream));
}

const char* ncclGetLastError(Communicator*) { return Communicator::LastError(); }

Result ncclCommAbort(Communicator* communicator) {
  HangWhileThere("hang-abort");
  delete communicator;
  return kSuccess;
}

}  // extern "C"
