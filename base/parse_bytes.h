#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace sauva {

// The multiplier a size's unit stands for, or 0 for an unknown unit. Both GB and GiB style
// units exist: K, M, G, T, KB … are powers of 1000; KiB, MiB, GiB, TiB are powers of 1024.
inline double BytesOfUnit(std::string_view unit) {
  struct Unit {
    std::string_view name;
    double bytes;
  };
  static constexpr Unit kUnits[] = {
      {"", 1},
      {"B", 1},
      {"K", 1e3},
      {"KB", 1e3},
      {"KiB", 1024.0},
      {"M", 1e6},
      {"MB", 1e6},
      {"MiB", 1048576.0},
      {"G", 1e9},
      {"GB", 1e9},
      {"GiB", 1073741824.0},
      {"T", 1e12},
      {"TB", 1e12},
      {"TiB", 1099511627776.0},
  };
  for (const Unit& known : kUnits) {
    if (known.name == unit) return known.bytes;
  }
  return 0;
}

// Reads a size as people write it: "1048576", "512MiB", "1.5GB", "2G".
// Errors: INVALID_ARGUMENT naming the text, for anything else, negative or above 2^53.
inline absl::StatusOr<uint64_t> ParseBytes(std::string_view text) {
  double number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number, std::chars_format::fixed);
  const double unit = BytesOfUnit({rest, static_cast<size_t>(end - rest)});
  if (error != std::errc() || unit == 0 || !std::isfinite(number) || number < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", std::string(text),
        "' is not a size in bytes; write a number with an optional unit, as in 512MiB or 2GB"));
  }
  const double bytes = number * unit;
  if (bytes > 9007199254740992.0) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", std::string(text), "' is more than 2^53 bytes"));
  }
  return static_cast<uint64_t>(std::llround(bytes));
}

// A size for people, in binary units: "0 B", "14.0 MiB".
inline std::string FormatBytes(uint64_t bytes) {
  static constexpr const char* kNames[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  const auto tenths = std::llround(value * 10);
  return absl::StrCat(tenths / 10, ".", tenths % 10, " ", kNames[unit]);
}

}  // namespace sauva
