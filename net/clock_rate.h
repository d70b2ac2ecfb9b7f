#pragma once

namespace sauva {

// Has abseil find out the clock's rate now. It does so when a thread first queues for a lock behind
// another, by opening a file that virtual machines do not have; where that happens inside gRPC's
// connect, gRPC 1.51 takes the errno it leaves for connect's own, and a connection that was coming
// up has failed with "No such file or directory".
// Thread: any. Idempotent.
void FindClockRate();

}  // namespace sauva
