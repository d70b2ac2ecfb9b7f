#include "base/process_metrics.h"

#include <prometheus/metric_family.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "base/build_id.h"

namespace sauva {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

MetricFamily One(const std::string& name, const std::string& help, MetricType type, double value) {
  MetricFamily family{.name = name, .help = help, .type = type, .metric = {}};
  prometheus::ClientMetric metric;
  (type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
  family.metric.push_back(metric);
  return family;
}

// Fields of proc(5)'s /proc/self/stat behind the command's name, from the state on.
struct ProcStat {
  double user_ticks = 0;
  double system_ticks = 0;
  double num_threads = 0;
  double start_ticks = 0;
  double resident_pages = 0;
};

ProcStat ReadStat() {
  std::ifstream file("/proc/self/stat");
  std::string text;
  std::getline(file, text);
  const size_t end_of_name = text.rfind(')');
  ProcStat stat;
  if (end_of_name == std::string::npos) return stat;
  std::istringstream fields(text.substr(end_of_name + 2));
  std::string field;
  for (int number = 3; fields >> field; ++number) {
    if (number == 14) stat.user_ticks = std::stod(field);
    if (number == 15) stat.system_ticks = std::stod(field);
    if (number == 20) stat.num_threads = std::stod(field);
    if (number == 22) stat.start_ticks = std::stod(field);
    if (number == 24) stat.resident_pages = std::stod(field);
  }
  return stat;
}

double BootTime() {
  std::ifstream file("/proc/stat");
  std::string word;
  double seconds = 0;
  while (file >> word) {
    if (word == "btime" && file >> seconds) return seconds;
  }
  return 0;
}

double CountOpenFiles() {
  std::error_code error;
  double count = 0;
  for (std::filesystem::directory_iterator entry("/proc/self/fd", error), end;
       !error && entry != end; entry.increment(error)) {
    ++count;
  }
  return count;
}

}  // namespace

std::vector<MetricFamily> ProcessMetrics::Collect() const {
  const ProcStat stat = ReadStat();
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const auto page = static_cast<double>(sysconf(_SC_PAGESIZE));
  MetricFamily build = One("sauva_build_info", "1; which build this is", MetricType::Gauge, 1);
  build.metric[0].label.push_back({"build_id", BuildId()});
  return {build,
          One("process_resident_memory_bytes", "Memory of this process that is in RAM",
              MetricType::Gauge, stat.resident_pages * page),
          One("process_cpu_seconds_total", "Processor time, user and system", MetricType::Counter,
              (stat.user_ticks + stat.system_ticks) / ticks),
          One("process_start_time_seconds", "Start of this process, unix time", MetricType::Gauge,
              BootTime() + stat.start_ticks / ticks),
          One("process_open_fds", "Open file descriptors", MetricType::Gauge, CountOpenFiles()),
          One("process_threads", "Threads of this process", MetricType::Gauge, stat.num_threads)};
}

}  // namespace sauva
