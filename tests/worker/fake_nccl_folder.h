#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>

#include "tests/temporary_directory.h"
#include "worker/nccl_end.h"

namespace sauva {

// Asks `done` until it is true; false after half a minute.
inline bool SoonTrue(const std::function<bool()>& done) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!done()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

// The stand-in of NCCL (tests/nccl) with a folder of its own, where files make it fail.
class FakeNcclFolder {
 public:
  FakeNcclFolder() {
    setenv("SAUVA_FAKE_NCCL", directory_.path().c_str(), 1);
    auto library = OpenNcclLibrary(SAUVA_FAKE_NCCL_LIBRARY);
    EXPECT_TRUE(library.ok()) << library.status();
    library_ = *std::move(library);
  }

  void Lay(const std::string& file) const {
    std::ofstream(directory_.path() + "/" + file).put('\n');
  }
  void Take(const std::string& file) const {
    std::filesystem::remove(directory_.path() + "/" + file);
  }
  // Ids that were made and whose two ranks have not met.
  int OutstandingIds() const { return Count("id-"); }
  bool AwaitHangingCalls(int count) const {
    return SoonTrue([&] { return Count("hanging-") == count; });
  }
  NcclAccess Access() const {
    return {.functions = library_,
            .device = "cpu",
            .options = {.join_timeout = absl::Seconds(20), .step_timeout = absl::Seconds(20)}};
  }

 private:
  int Count(const std::string& prefix) const {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(directory_.path())) {
      count += entry.path().filename().string().starts_with(prefix) ? 1 : 0;
    }
    return count;
  }

  const TemporaryDirectory directory_;
  NcclLibrary library_;
};

}  // namespace sauva
