#pragma once

#include <climits>
#include <cstddef>

// The part of NCCL's C interface that is used here, so that every build can open the library
// and none needs its header. Names and layouts are NCCL's; kernels/cuda/nccl_abi_check.cc
// compares them with the toolkit's header.
// Source: nccl.h of NCCL 2.18, which later ones read as it is.
namespace sauva::nccl {

struct Communicator;  // opaque

struct UniqueId {
  char internal[128];
};

enum Result : int {
  kSuccess = 0,
  kSystemError = 2,
  kInvalidUsage = 5,
  kRemoteError = 6,
  kInProgress = 7,
};

enum DataType : int { kUint8 = 1 };

struct Config {
  size_t size = sizeof(Config);
  unsigned int magic = 0xcafebeef;
  unsigned int version = 21800;
  int blocking = INT_MIN;  // INT_MIN and nullptr: NCCL's own choice
  int cga_cluster_size = INT_MIN;
  int min_ctas = INT_MIN;
  int max_ctas = INT_MIN;
  const char* net_name = nullptr;
  int split_share = INT_MIN;
};

// `stream` is a cudaStream_t.
using GetVersion = Result (*)(int* version);
using GetUniqueId = Result (*)(UniqueId* id);
using CommInitRankConfig = Result (*)(Communicator** made, int ranks, UniqueId id, int rank,
                                      Config* config);
using CommGetAsyncError = Result (*)(Communicator* communicator, Result* state);
using Send = Result (*)(const void* from, size_t count, DataType type, int peer,
                        Communicator* communicator, void* stream);
using Receive = Result (*)(void* to, size_t count, DataType type, int peer,
                           Communicator* communicator, void* stream);
using CommAbort = Result (*)(Communicator* communicator);
using GetErrorString = const char* (*)(Result result);
using GetLastError = const char* (*)(Communicator* communicator);

// What a stand-in of the library for tests exports beside: it moves memory of the host, its
// streams are HostStreams. NCCL has no such symbol.
inline constexpr const char* kMovesHostMemorySymbol = "sauvaNcclMovesHostMemory";

}  // namespace sauva::nccl
