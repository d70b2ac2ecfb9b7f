#include "kernels/usable_cores.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string_view>
#include <vector>

#include "absl/strings/str_split.h"
#include "kernels/factory.h"

namespace sauva {
namespace {

std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// quota / period of two numbers in microseconds; a quota that is no positive number, such
// as "max" or "-1", is none.
std::optional<double> Ratio(const std::string& quota, const std::string& period) {
  double q = 0;
  double p = 0;
  if (!(std::istringstream(quota) >> q) || !(std::istringstream(period) >> p)) return std::nullopt;
  if (q <= 0 || p <= 0) return std::nullopt;
  return q / p;
}

std::optional<double> CoresOfGroup(const std::string& directory) {
  const std::string v2 = FirstLine(directory + "/cpu.max");
  if (!v2.empty()) {
    const std::vector<std::string> fields = absl::StrSplit(v2, ' ');
    return fields.size() == 2 ? Ratio(fields[0], fields[1]) : std::nullopt;
  }
  return Ratio(FirstLine(directory + "/cpu.cfs_quota_us"),
               FirstLine(directory + "/cpu.cfs_period_us"));
}

void KeepLeast(std::optional<double> candidate, std::optional<double>& least) {
  if (candidate && (!least || *candidate < *least)) least = candidate;
}

// The group at `path` below `mount` and each group above it.
void WalkUp(const std::string& mount, std::string path, std::optional<double>& least) {
  while (true) {
    KeepLeast(CoresOfGroup(mount + path), least);
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) return;
    path.resize(slash);
  }
}

}  // namespace

std::optional<double> CgroupCores(const std::string& proc_cgroup, const std::string& root) {
  std::optional<double> least;
  std::ifstream file(proc_cgroup);
  std::string line;
  while (std::getline(file, line)) {  // "hierarchy:controllers:path"
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    const std::vector<std::string> controllers = absl::StrSplit(fields[1], ',');
    const bool v2 = fields[1].empty();
    if (!v2 && std::find(controllers.begin(), controllers.end(), "cpu") == controllers.end()) {
      continue;
    }
    const std::string path = fields[2] == "/" ? "" : fields[2];
    // v1 mounts the controllers together or alone; a container sees its group as the root.
    for (const std::string& mount :
         v2 ? std::vector<std::string>{root}
            : std::vector<std::string>{root + "/" + fields[1], root + "/cpu"}) {
      WalkUp(mount, path, least);
    }
  }
  return least;
}

int UsableCores() {
  cpu_set_t allowed;
  int cores = 1;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) cores = CPU_COUNT(&allowed);
  const std::optional<double> quota = CgroupCores("/proc/self/cgroup", "/sys/fs/cgroup");
  if (quota) cores = std::min(cores, static_cast<int>(std::ceil(*quota)));
  return std::max(1, cores);
}

}  // namespace sauva
