#include "model/safetensors_header.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace sauva {
namespace {

using nlohmann::json;

constexpr std::array<std::pair<std::string_view, uint64_t>, 15> kElementBytes = {{
    {"BOOL", 1},
    {"U8", 1},
    {"I8", 1},
    {"F8_E5M2", 1},
    {"F8_E4M3", 1},
    {"I16", 2},
    {"U16", 2},
    {"F16", 2},
    {"BF16", 2},
    {"I32", 4},
    {"U32", 4},
    {"F32", 4},
    {"F64", 8},
    {"I64", 8},
    {"U64", 8},
}};

absl::Status Bad(const std::string& file, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", what));
}

// Builds entries straight from parser events, so that a hostile header cannot make a tree
// many times its own size, and duplicate keys are seen. Offsets are left as the header has
// them, from the start of the data section.
class HeaderHandler {
 public:
  explicit HeaderHandler(const std::string& file) : file_(file) {}

  bool null() { return Unexpected("null"); }
  bool boolean(bool) { return Unexpected("a boolean"); }
  bool number_integer(json::number_integer_t value) {
    return Unexpected(absl::StrCat("the negative number ", value));
  }
  bool number_float(json::number_float_t, const std::string& text) {
    return Unexpected(absl::StrCat("the number ", text));
  }
  bool binary(json::binary_t&) { return Unexpected("binary data"); }

  bool number_unsigned(json::number_unsigned_t value) {
    if (!in_array_) return Unexpected(absl::StrCat("the number ", value));
    if (field_ == Field::kOffsets) return AddOffset(value);
    return AddDimension(value);
  }

  bool string(std::string& value) {
    if (where_ == Where::kMetadata) return true;
    if (where_ != Where::kTensor || field_ != Field::kDtype) return Unexpected("a string");
    entry_.dtype = std::move(value);
    field_ = Field::kNone;
    return true;
  }

  bool start_object(size_t) {
    if (where_ == Where::kStart) {
      where_ = Where::kTop;
      return true;
    }
    if (where_ != Where::kTop) return Unexpected("an object");
    where_ = is_metadata_ ? Where::kMetadata : Where::kTensor;
    return true;
  }

  bool key(std::string& name) {
    if (where_ == Where::kMetadata) return true;
    if (where_ == Where::kTensor) return StartField(name);
    is_metadata_ = name == "__metadata__";
    if (is_metadata_ && std::exchange(has_metadata_, true)) return Fail("two __metadata__ objects");
    entry_ = {};
    entry_.name = std::move(name);
    seen_ = {};
    num_offsets_ = 0;
    return true;
  }

  bool end_object() {
    if (where_ == Where::kTop) {
      where_ = Where::kEnd;
      return true;
    }
    const bool was_tensor = where_ == Where::kTensor;
    where_ = Where::kTop;
    return was_tensor ? FinishTensor() : true;
  }

  bool start_array(size_t) {
    const bool holds_numbers = field_ == Field::kShape || field_ == Field::kOffsets;
    if (where_ != Where::kTensor || in_array_ || !holds_numbers) return Unexpected("an array");
    in_array_ = true;
    return true;
  }

  bool end_array() {
    in_array_ = false;
    field_ = Field::kNone;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const json::exception&) {
    return Fail(absl::StrCat("header is not valid JSON near its byte ", position));
  }

  const absl::Status& status() const { return status_; }
  std::vector<SafetensorsEntry> TakeEntries() { return std::move(entries_); }

 private:
  enum class Where { kStart, kTop, kTensor, kMetadata, kEnd };
  enum class Field { kNone, kDtype, kShape, kOffsets };

  bool Fail(const std::string& what) {
    if (status_.ok()) status_ = Bad(file_, what);
    return false;
  }

  bool Unexpected(const std::string& what) {
    if (where_ == Where::kStart) return Fail(absl::StrCat("header is ", what, ", not an object"));
    return Fail(absl::StrCat("header entry '", entry_.name, "' holds ", what,
                             " where the format has none"));
  }

  bool StartField(const std::string& name) {
    field_ = name == "dtype"          ? Field::kDtype
             : name == "shape"        ? Field::kShape
             : name == "data_offsets" ? Field::kOffsets
                                      : Field::kNone;
    if (field_ == Field::kNone) {
      return Fail(absl::StrCat("tensor '", entry_.name, "' has an unknown field '", name, "'"));
    }
    if (std::exchange(seen_[static_cast<size_t>(field_)], true)) {
      return Fail(absl::StrCat("tensor '", entry_.name, "' has two fields '", name, "'"));
    }
    return true;
  }

  bool AddDimension(uint64_t value) {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Fail(absl::StrCat("tensor '", entry_.name, "' has a dimension of ", value));
    }
    if (entry_.shape.size() == kMaxTensorRank) {
      return Fail(
          absl::StrCat("tensor '", entry_.name, "' has more than ", kMaxTensorRank, " dimensions"));
    }
    entry_.shape.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool AddOffset(uint64_t value) {
    if (num_offsets_ == 2) {
      return Fail(absl::StrCat("tensor '", entry_.name, "' has more than 2 data_offsets"));
    }
    (num_offsets_ == 0 ? entry_.begin : entry_.end) = value;
    ++num_offsets_;
    return true;
  }

  bool FinishTensor() {
    for (const Field field : {Field::kDtype, Field::kShape, Field::kOffsets}) {
      if (seen_[static_cast<size_t>(field)]) continue;
      return Fail(
          absl::StrCat("tensor '", entry_.name, "' lacks one of dtype, shape and data_offsets"));
    }
    if (num_offsets_ != 2) {
      return Fail(absl::StrCat("tensor '", entry_.name, "' has ", num_offsets_,
                               " data_offsets, expected 2"));
    }
    entries_.push_back(std::move(entry_));
    return true;
  }

  const std::string file_;
  Where where_ = Where::kStart;
  Field field_ = Field::kNone;
  bool in_array_ = false;
  bool is_metadata_ = false;
  bool has_metadata_ = false;
  std::array<bool, 4> seen_ = {};
  int num_offsets_ = 0;
  SafetensorsEntry entry_;
  std::vector<SafetensorsEntry> entries_;
  absl::Status status_;
};

// Bytes of the tensor by shape and dtype; nothing when the product does not fit.
std::optional<uint64_t> TensorBytes(const SafetensorsEntry& entry, uint64_t element_bytes) {
  uint64_t bytes = element_bytes;
  for (const int64_t dimension : entry.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(dimension), &bytes)) return {};
  }
  return bytes;
}

absl::Status VerifySize(const std::string& file, const SafetensorsEntry& entry,
                        uint64_t data_bytes) {
  const std::string tensor = absl::StrCat("tensor '", entry.name, "'");
  const uint64_t element_bytes = SafetensorsElementBytes(entry.dtype);
  if (element_bytes == 0) {
    return Bad(file, absl::StrCat(tensor, " has the unknown dtype '", entry.dtype, "'"));
  }
  if (entry.begin > entry.end || entry.end > data_bytes) {
    return Bad(file, absl::StrCat(tensor, " has data_offsets [", entry.begin, ", ", entry.end,
                                  "], expected a range within the ", data_bytes, " bytes of data"));
  }
  const std::optional<uint64_t> expected = TensorBytes(entry, element_bytes);
  if (!expected) {
    return Bad(file, absl::StrCat(tensor, " has shape ", ShapeText(entry.shape),
                                  ", whose size in bytes overflows"));
  }
  if (*expected != entry.end - entry.begin) {
    return Bad(file, absl::StrCat(tensor, " of dtype ", entry.dtype, " and shape ",
                                  ShapeText(entry.shape), " has ", entry.end - entry.begin,
                                  " bytes of data, expected ", *expected));
  }
  return absl::OkStatus();
}

// The tensors in order of offset must follow each other exactly and end with the file.
absl::Status VerifyCover(const std::string& file, const std::vector<SafetensorsEntry>& entries,
                         uint64_t data_bytes) {
  std::vector<const SafetensorsEntry*> by_offset;
  for (const SafetensorsEntry& entry : entries) by_offset.push_back(&entry);
  std::sort(by_offset.begin(), by_offset.end(), [](const auto* left, const auto* right) {
    return std::pair(left->begin, left->end) < std::pair(right->begin, right->end);
  });
  uint64_t covered = 0;
  for (const SafetensorsEntry* entry : by_offset) {
    if (entry->begin != covered) {
      return Bad(file, absl::StrCat("tensor '", entry->name, "' begins at data offset ",
                                    entry->begin, ", expected ", covered,
                                    entry->begin < covered ? " (overlap)" : " (gap)"));
    }
    covered = entry->end;
  }
  if (covered != data_bytes) {
    return Bad(file, absl::StrCat("has ", data_bytes - covered,
                                  " bytes after the last tensor, expected none"));
  }
  return absl::OkStatus();
}

absl::Status VerifyUniqueNames(const std::string& file,
                               const std::vector<SafetensorsEntry>& sorted) {
  const auto twin = std::adjacent_find(
      sorted.begin(), sorted.end(),
      [](const auto& left, const auto& right) { return left.name == right.name; });
  if (twin == sorted.end()) return absl::OkStatus();
  return Bad(file, absl::StrCat("tensor '", twin->name, "' is there twice"));
}

absl::StatusOr<uint64_t> ReadHeaderLength(const std::string& file_name,
                                          std::span<const std::byte> file) {
  uint64_t length = 0;
  if (file.size() < sizeof(length)) {
    return Bad(file_name, absl::StrCat("is truncated: ", file.size(),
                                       " bytes, expected at least the 8 of the header length"));
  }
  std::memcpy(&length, file.data(), sizeof(length));
  if (length > kMaxSafetensorsHeaderBytes) {
    return Bad(file_name, absl::StrCat("has a header of ", length, " bytes, limit ",
                                       kMaxSafetensorsHeaderBytes));
  }
  if (length > file.size() - sizeof(length)) {
    return Bad(file_name, absl::StrCat("is truncated: the header should have ", length,
                                       " bytes, the file has ", file.size() - sizeof(length),
                                       " after the header length"));
  }
  return length;
}

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(const std::string& file_name,
                                                         std::span<const std::byte> file) {
  ASSIGN_OR_RETURN(const uint64_t length, ReadHeaderLength(file_name, file));
  const auto* text = reinterpret_cast<const char*>(file.data()) + sizeof(uint64_t);
  HeaderHandler handler(file_name);
  const bool parsed = json::sax_parse(text, text + length, &handler);
  RETURN_IF_ERROR(handler.status());
  if (!parsed) return Bad(file_name, "header is not valid JSON");

  SafetensorsHeader header;
  header.entries = handler.TakeEntries();
  header.data_begin = sizeof(uint64_t) + length;
  const uint64_t data_bytes = file.size() - header.data_begin;
  std::sort(header.entries.begin(), header.entries.end(),
            [](const auto& left, const auto& right) { return left.name < right.name; });
  RETURN_IF_ERROR(VerifyUniqueNames(file_name, header.entries));
  for (const SafetensorsEntry& entry : header.entries) {
    RETURN_IF_ERROR(VerifySize(file_name, entry, data_bytes));
  }
  RETURN_IF_ERROR(VerifyCover(file_name, header.entries, data_bytes));
  for (SafetensorsEntry& entry : header.entries) {
    entry.begin += header.data_begin;
    entry.end += header.data_begin;
  }
  return header;
}

uint64_t SafetensorsElementBytes(std::string_view dtype) {
  for (const auto& [name, bytes] : kElementBytes) {
    if (name == dtype) return bytes;
  }
  return 0;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

}  // namespace sauva
