#include "quantize/shard_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/safetensors_header.h"

namespace sauva {
namespace {

// A file that has its name only once it is whole.
class PendingFile {
 public:
  explicit PendingFile(const std::string& path)
      : path_(path),
        temporary_(path + ".tmp"),
        file_(::open(temporary_.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644)) {}
  ~PendingFile() {
    if (file_ < 0) return;
    ::close(file_);
    if (!done_) ::unlink(temporary_.c_str());
  }
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;

  absl::Status Write(std::span<const std::byte> bytes) {
    constexpr size_t kAtOnce = size_t{1} << 26;
    while (file_ >= 0 && !bytes.empty()) {
      const ssize_t done = ::write(file_, bytes.data(), std::min(bytes.size(), kAtOnce));
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) return Failed("written");
      bytes = bytes.subspan(static_cast<size_t>(done));
    }
    return file_ < 0 ? Failed("made") : absl::OkStatus();
  }

  absl::Status Finish() {
    if (file_ < 0) return Failed("made");
    if (::fsync(file_) != 0) return Failed("written");
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) return Failed("renamed");
    done_ = true;
    return absl::OkStatus();
  }

 private:
  absl::Status Failed(const char* what) const {
    const std::string message =
        absl::StrCat(temporary_, " cannot be ", what, ": ", std::strerror(errno));
    const bool full = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
    return full ? absl::ResourceExhaustedError(message) : absl::InternalError(message);
  }

  const std::string path_;
  const std::string temporary_;
  const int file_;
  bool done_ = false;
};

// Wide elements first, so that every tensor is aligned.
std::vector<const ShardTensor*> Arranged(const std::vector<ShardTensor>& tensors) {
  std::vector<const ShardTensor*> arranged;
  for (const ShardTensor& tensor : tensors) arranged.push_back(&tensor);
  std::ranges::stable_sort(arranged, std::greater<>(), [](const ShardTensor* tensor) {
    return SafetensorsElementBytes(tensor->dtype);
  });
  return arranged;
}

std::string HeaderOf(const std::vector<const ShardTensor*>& tensors) {
  nlohmann::ordered_json header = {{"__metadata__", {{"format", "pt"}}}};
  size_t at = 0;
  for (const ShardTensor* tensor : tensors) {
    const size_t end = at + tensor->bytes().size();
    header[tensor->name] = {
        {"dtype", tensor->dtype}, {"shape", tensor->shape}, {"data_offsets", {at, end}}};
    at = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // tensors begin at a multiple of 8
  const uint64_t length = text.size();
  std::string prefix(sizeof length, '\0');
  std::memcpy(prefix.data(), &length, sizeof length);
  return prefix + text;
}

}  // namespace

absl::Status WriteShard(const std::string& path, const std::vector<ShardTensor>& tensors) {
  PendingFile file(path);
  const std::vector<const ShardTensor*> arranged = Arranged(tensors);
  const std::string header = HeaderOf(arranged);
  RETURN_IF_ERROR(file.Write(std::as_bytes(std::span(header))));
  for (const ShardTensor* tensor : arranged) RETURN_IF_ERROR(file.Write(tensor->bytes()));
  return file.Finish();
}

absl::Status WriteWhole(const std::string& path, const std::string& content) {
  PendingFile file(path);
  RETURN_IF_ERROR(file.Write(std::as_bytes(std::span(content))));
  return file.Finish();
}

}  // namespace sauva
