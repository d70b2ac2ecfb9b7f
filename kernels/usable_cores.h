#pragma once

#include <optional>
#include <string>

namespace sauva {

// The processors' worth of time the control groups of a process allow it: the least of its
// group and the groups above, cgroup v1 and v2. Nothing when no group sets a limit.
// `proc_cgroup` is /proc/self/cgroup and `root` /sys/fs/cgroup, but for tests.
std::optional<double> CgroupCores(const std::string& proc_cgroup, const std::string& root);

}  // namespace sauva
