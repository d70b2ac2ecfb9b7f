#pragma once

namespace sauva {

// Makes abseil's mutexes, which gRPC is full of, ready for service:
//   - Debian and Ubuntu build abseil with its deadlock detector: each lock passes through one graph
//     of all mutexes, which takes half a kilobyte for each, and a mere cycle in their order ends
//     the process. It is turned off.
//   - The clock's rate is found out now. abseil does so when a thread first queues for a lock
//   behind
//     another, by opening a file that virtual machines do not have; where that happens inside
//     gRPC's connect, gRPC 1.51 takes the errno it leaves for connect's own, and a connection that
//     was coming up has failed with "No such file or directory".
// Thread: any. Idempotent. Before the first channel or server.
void PrepareMutexes();

}  // namespace sauva
