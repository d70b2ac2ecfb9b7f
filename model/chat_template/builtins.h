#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "model/chat_template/value.h"

// The filters, tests, methods and functions that templates may use, with Python's and
// Jinja's meaning.
// Source: Jinja 3.1, "List of Builtin Filters" and "List of Builtin Tests"; Python 3,
// "String Methods".
namespace sauva::chat {

// What one value may hold; larger ones are refused.
inline constexpr uint64_t kMaxValueBytes = 32 << 20;
inline constexpr size_t kMaxItems = 50'000;  // made of one text, by split or for

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at a place or of a name; undefined when it is not given.
  Value At(size_t index, std::string_view name = "") const;
};

bool IsFilter(std::string_view name);
bool IsTest(std::string_view name);
bool TestTakesArgument(std::string_view name);
bool IsMethod(std::string_view name);

// All errors are INVALID_ARGUMENT and say what is wrong, not where.
absl::StatusOr<Value> ApplyFilter(const std::string& name, const Value& subject,
                                  const Arguments& arguments);
absl::StatusOr<bool> ApplyTest(const std::string& name, const Value& subject,
                               const Arguments& arguments);
absl::StatusOr<Value> CallMethod(const std::string& name, const Value& object,
                                 const Arguments& arguments);

// left OP right for the operators of Node::kBinary.
absl::StatusOr<Value> ApplyOperator(const std::string& op, const Value& left, const Value& right);

// object[key] and object.name; undefined when there is nothing.
absl::StatusOr<Value> GetItem(const Value& object, const Value& key);

// object[begin:end:step] as Python slices; undefined and none stand for what is left out.
struct SliceRange {
  Value begin;
  Value end;
  Value step;
};
absl::StatusOr<Value> GetSlice(const Value& object, const SliceRange& range);

// What a for loop, `list` and `join` go through: the items of a list, the keys of a
// dictionary, the characters of a text, nothing for undefined.
absl::StatusOr<Value::List> ItemsOf(const Value& value);

}  // namespace sauva::chat
