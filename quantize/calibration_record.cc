#include "quantize/calibration_record.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "model/json.h"
#include "model/mapped_file.h"

namespace sauva {
namespace {

constexpr uint64_t kBase = 0x9e3779b97f4a7c15;  // of a polynomial over the bytes

std::string WithoutSpace(std::string_view text) {
  std::string letters;
  for (const char c : text) {
    if (c != ' ' && c != '\t' && c != '\n' && c != '\r') letters += c;
  }
  return letters;
}

// Calls visit(hash) for the window that begins at each byte.
template <class F>
void ForEachWindow(std::string_view letters, const F& visit) {
  constexpr auto kWindow = static_cast<size_t>(CalibrationRecord::kWindowBytes);
  const auto value = [](char c) { return uint64_t{static_cast<unsigned char>(c)} + 1; };
  uint64_t hash = 0;
  uint64_t leaving = 1;  // what the byte that leaves the window was multiplied by
  for (size_t i = 0; i < kWindow; ++i) leaving *= kBase;
  for (size_t i = 0; i < letters.size(); ++i) {
    hash = hash * kBase + value(letters[i]);
    if (i >= kWindow) hash -= leaving * value(letters[i - kWindow]);
    if (i + 1 >= kWindow) visit(hash);
  }
}

void SortAndUnite(std::vector<uint64_t>& hashes) {
  std::ranges::sort(hashes);
  hashes.erase(std::ranges::unique(hashes).begin(), hashes.end());
}

}  // namespace

CalibrationRecord CalibrationRecord::Of(const std::vector<std::string>& samples) {
  std::vector<std::string> letters;
  int64_t positions = 0;
  for (const std::string& sample : samples) {
    letters.push_back(WithoutSpace(sample));
    const auto size = static_cast<int64_t>(letters.back().size());
    positions += std::max<int64_t>(0, size - kWindowBytes + 1);
  }
  const int64_t distance = std::max(kWindowBytes, (positions + kMaxWindows - 1) / kMaxWindows);
  CalibrationRecord record;
  int64_t seen = 0;  // positions, of all samples
  for (const std::string& sample : letters) {
    ForEachWindow(sample, [&](uint64_t hash) {
      if (seen++ % distance == 0) record.windows_.push_back(hash);
    });
  }
  SortAndUnite(record.windows_);
  return record;
}

int64_t CalibrationRecord::CountIn(std::string_view text) const {
  std::vector<uint64_t> found;
  ForEachWindow(WithoutSpace(text), [&](uint64_t hash) {
    if (std::ranges::binary_search(windows_, hash)) found.push_back(hash);
  });
  SortAndUnite(found);
  return static_cast<int64_t>(found.size());
}

std::string CalibrationRecord::Json() const {
  nlohmann::ordered_json json = {{"window_bytes", kWindowBytes}};
  json["windows"] = nlohmann::json::array();
  for (const uint64_t hash : windows_) json["windows"].push_back(absl::StrFormat("%016x", hash));
  return json.dump() + "\n";
}

absl::StatusOr<std::optional<CalibrationRecord>> CalibrationRecord::Read(
    const std::string& directory) {
  const std::string path = absl::StrCat(directory, "/", kFileName);
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::nullopt;
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  ASSIGN_OR_RETURN(
      const nlohmann::json json,
      ParseJson(path, {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()}));
  const nlohmann::json window =
      json.is_object() ? json.value("window_bytes", nlohmann::json()) : json;
  if (window != kWindowBytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": window_bytes is ", ShortText(window),
                                                   "; ", kWindowBytes, " is known"));
  }
  const nlohmann::json hashes = json.value("windows", nlohmann::json());
  if (!hashes.is_array() || static_cast<int64_t>(hashes.size()) > kMaxWindows) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": windows is no list of at most ", kMaxWindows));
  }
  CalibrationRecord record;
  for (const nlohmann::json& hash : hashes) {
    uint64_t value = 0;
    if (!hash.is_string() || !absl::SimpleHexAtoi(hash.get<std::string>(), &value)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": window ", ShortText(hash), " is no hexadecimal number"));
    }
    record.windows_.push_back(value);
  }
  SortAndUnite(record.windows_);
  return record;
}

}  // namespace sauva
