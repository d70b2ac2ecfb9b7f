// Runs a libFuzzer target without libFuzzer: `TARGET [SECONDS [SEED]]` changes the target's
// seed inputs at random for so long. Equal seeds make the same inputs in the same order.
// `TARGET FILE…` runs files instead, such as the last_input that a crash left behind.

#include "tests/fuzz/driver.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
// There only where a sanitizer is.
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace sauva {
namespace {

constexpr size_t kMaxInputBytes = 1 << 16;

void Run(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

// Makes inputs out of others by a few random changes each.
class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  std::string Next(const std::vector<std::string>& pool) {
    std::string input = pool[Below(pool.size())];
    for (size_t i = 0, changes = 1 + Below(6); i < changes; ++i) Change(input, pool);
    if (input.size() > kMaxInputBytes) input.resize(kMaxInputBytes);
    return input;
  }

  size_t Below(size_t limit) { return limit == 0 ? 0 : static_cast<size_t>(random_() % limit); }

 private:
  void Change(std::string& input, const std::vector<std::string>& pool) {
    const size_t at = Below(input.size() + 1);
    const size_t count = std::min(input.size() - at, Below(32));
    switch (Below(7)) {
      case 0:  // a bit
        if (at < input.size()) input[at] = static_cast<char>(input[at] ^ (1 << Below(8)));
        return;
      case 1:  // a byte
        if (at < input.size()) input[at] = static_cast<char>(Below(256));
        return;
      case 2:
        input.erase(at, count);
        return;
      case 3:  // a part twice
        input.insert(at, input.substr(Below(input.size()), count));
        return;
      case 4: {  // a part of another input
        const std::string& other = pool[Below(pool.size())];
        input.insert(at, other.substr(Below(other.size()), 1 + Below(64)));
        return;
      }
      case 5:
        input.insert(at, Word());
        return;
      default:
        input.resize(at);
    }
  }

  // What parsers of numbers, text and JSON find hard.
  std::string Word() {
    static const std::vector<std::string> kWords = {"0",
                                                    "-1",
                                                    "1e999",
                                                    "18446744073709551615",
                                                    "9223372036854775808",
                                                    "4294967296",
                                                    "{",
                                                    "}",
                                                    "[",
                                                    "]",
                                                    "\"",
                                                    "\\",
                                                    "\\u0000",
                                                    "\\ud800",
                                                    "null",
                                                    "true",
                                                    "\xff",
                                                    "\xc0\x80",
                                                    std::string(8, '\xff'),
                                                    std::string(8, '\0'),
                                                    "[[[[[[[[",
                                                    "0.5",
                                                    ",",
                                                    ":"};
    return kWords[Below(kWords.size())];
  }

  std::mt19937_64 random_;
};

// The input under way and where it is left after a crash. Signal handlers read them, so
// they are plain memory of the program.
const std::string* current_input = nullptr;
std::string last_input_path;

void LeaveInput() {
  if (current_input == nullptr) return;
  const int file = ::open(last_input_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  const ssize_t written = ::write(file, current_input->data(), current_input->size());
  std::fprintf(stderr, "%zd bytes of input left in %s\n", written, last_input_path.c_str());
}

void OnSignal(int signal) {
  LeaveInput();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void WatchForCrashes(const std::string& path) {
  last_input_path = path;
  std::signal(SIGABRT, OnSignal);
  // A sanitizer ends the process without a signal.
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(LeaveInput);
}

void RunFor(double seconds, uint64_t seed) {
  const std::vector<std::string> seeds = SeedInputs();
  for (const std::string& input : seeds) Run(input);
  std::vector<std::string> pool = seeds;
  Mutator mutator(seed);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  uint64_t runs = 0;
  for (; std::chrono::steady_clock::now() < end; ++runs) {
    const std::string input = mutator.Next(pool);
    current_input = &input;
    Run(input);
    current_input = nullptr;
    // Some of what was made is changed further; the seeds stay.
    if (runs % 16 == 0 && pool.size() < 256) pool.push_back(input);
    if (runs % 16 == 8 && pool.size() > seeds.size()) {
      pool[seeds.size() + mutator.Below(pool.size() - seeds.size())] = input;
    }
  }
  std::printf("%llu inputs in %.0f s, seed %llu\n", static_cast<unsigned long long>(runs), seconds,
              static_cast<unsigned long long>(seed));
}

int Main(int argc, char** argv) {
  char* end = nullptr;
  const double seconds = argc > 1 ? std::strtod(argv[1], &end) : 5;
  if (argc > 1 && *end != '\0') {
    for (int i = 1; i < argc; ++i) {
      std::ifstream file(argv[i], std::ios::binary);
      if (!file) std::fprintf(stderr, "%s: cannot open\n", argv[i]);
      if (!file) return 1;
      Run({std::istreambuf_iterator<char>(file), {}});
    }
    return 0;
  }
  WatchForCrashes(std::string(argv[0]) + ".last_input");
  RunFor(seconds, argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  return 0;
}

}  // namespace
}  // namespace sauva

int main(int argc, char** argv) { return sauva::Main(argc, argv); }
