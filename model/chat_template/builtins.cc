#include "model/chat_template/builtins.h"

#include <algorithm>
#include <array>
#include <map>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/utf8.h"
namespace sauva::chat {
namespace {

using Kind = Value::Kind;

template <class... Parts>
absl::Status Bad(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

using Test = bool (*)(const Value& subject, const Value& argument);

const std::map<std::string_view, Test>& Tests() {
  static const auto& tests = *new std::map<std::string_view, Test>{
      {"defined", [](const Value& v, const Value&) { return !v.is(Kind::kUndefined); }},
      {"undefined", [](const Value& v, const Value&) { return v.is(Kind::kUndefined); }},
      {"none", [](const Value& v, const Value&) { return v.is(Kind::kNone); }},
      {"string", [](const Value& v, const Value&) { return v.is(Kind::kString); }},
      {"number", [](const Value& v, const Value&) { return v.IsNumber(); }},
      {"integer", [](const Value& v, const Value&) { return v.is(Kind::kInt); }},
      {"float", [](const Value& v, const Value&) { return v.is(Kind::kFloat); }},
      {"boolean", [](const Value& v, const Value&) { return v.is(Kind::kBool); }},
      {"true", [](const Value& v, const Value&) { return v.is(Kind::kBool) && v.as_bool(); }},
      {"false", [](const Value& v, const Value&) { return v.is(Kind::kBool) && !v.as_bool(); }},
      {"mapping", [](const Value& v, const Value&) { return v.is(Kind::kDict); }},
      {"iterable", [](const Value& v, const Value&) { return v.Length().has_value(); }},
      {"sequence", [](const Value& v, const Value&) { return v.Length().has_value(); }},
      {"equalto", [](const Value& v, const Value& other) { return v.Equals(other); }},
      {"eq", [](const Value& v, const Value& other) { return v.Equals(other); }},
      {"ne", [](const Value& v, const Value& other) { return !v.Equals(other); }},
      {"odd", [](const Value& v, const Value&) { return v.is(Kind::kInt) && v.as_int() % 2 != 0; }},
      {"even",
       [](const Value& v, const Value&) { return v.is(Kind::kInt) && v.as_int() % 2 == 0; }},
  };
  return tests;
}

// Exact, or an error, where Python's integers would grow.
absl::StatusOr<Value> IntegerArithmetic(const std::string& op, int64_t a, int64_t b) {
  int64_t out = 0;
  bool overflow = false;
  if (op == "+") overflow = __builtin_add_overflow(a, b, &out);
  if (op == "-") overflow = __builtin_sub_overflow(a, b, &out);
  if (op == "*") overflow = __builtin_mul_overflow(a, b, &out);
  if (op == "//" || op == "%") {
    if (b == 0) return Bad("division by zero");
    if (b == -1) {
      overflow = __builtin_sub_overflow(int64_t{0}, a, &out);
      if (op == "%") return Value::Int(0);
    } else {
      const bool rounds_up = a % b != 0 && (a < 0) != (b < 0);
      out = op == "%" ? a % b + (rounds_up ? b : 0) : a / b - (rounds_up ? 1 : 0);
    }
  }
  if (overflow) return Bad(a, " ", op, " ", b, " is too large");
  return Value::Int(out);
}

absl::StatusOr<Value> Arithmetic(const std::string& op, const Value& left, const Value& right) {
  if (!left.is(Kind::kFloat) && !right.is(Kind::kFloat) && op != "/") {
    return IntegerArithmetic(op, left.as_int(), right.as_int());
  }
  const double a = left.as_float();
  const double b = right.as_float();
  if (op == "+") return Value::Float(a + b);
  if (op == "-") return Value::Float(a - b);
  if (op == "*") return Value::Float(a * b);
  if (op != "/") return Bad("'", op, "' of fractions is not supported");
  if (b == 0) return Bad("division by zero");
  return Value::Float(a / b);
}

absl::StatusOr<bool> Contains(const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kUndefined:
      return false;
    case Kind::kString:
      if (!item.is(Kind::kString)) return Bad("text holds no ", item.KindName());
      return container.as_string().find(item.as_string()) != std::string::npos;
    case Kind::kList:
      return std::ranges::any_of(container.as_list(),
                                 [&](const Value& known) { return known.Equals(item); });
    case Kind::kDict:
      return std::ranges::any_of(container.as_dict(), [&](const auto& entry) {
        return item.is(Kind::kString) && entry.first == item.as_string();
      });
    default:
      return Bad("'in' ", container.KindName());
  }
}

absl::StatusOr<Value> Concatenate(const Value& left, const Value& right) {
  if (left.is(Kind::kString) && right.is(Kind::kString)) {
    return Value::String(left.as_string() + right.as_string());
  }
  if (left.is(Kind::kList) && right.is(Kind::kList)) {
    Value::List items = left.as_list();
    items.insert(items.end(), right.as_list().begin(), right.as_list().end());
    return Value::MakeList(std::move(items));
  }
  return Bad("cannot add ", right.KindName(), " to ", left.KindName());
}

// Where a slice begins or ends; `absent` when it does not say.
absl::StatusOr<int64_t> Bound(const Value& bound, int64_t size, int64_t lowest, int64_t absent) {
  if (bound.is(Kind::kUndefined) || bound.is(Kind::kNone)) return absent;
  if (!bound.is(Kind::kInt)) return Bad("a slice needs integers, not ", bound.KindName());
  const int64_t index = bound.as_int() < 0 ? bound.as_int() + size : bound.as_int();
  return std::clamp(index, lowest, size + lowest);
}

// The chosen indices. Source: Python, "slice.indices".
absl::StatusOr<std::vector<size_t>> SliceIndices(const SliceRange& range, int64_t size) {
  int64_t step = 1;
  if (range.step.is(Kind::kInt)) step = range.step.as_int();
  if (step == 0 || step < -size - 1) step = step == 0 ? 0 : -size - 1;
  if (step == 0) return Bad("the step of a slice is 0");
  step = std::min(step, size + 1);
  const int64_t lowest = step < 0 ? -1 : 0;
  ASSIGN_OR_RETURN(const int64_t begin, Bound(range.begin, size, lowest, step < 0 ? size - 1 : 0));
  ASSIGN_OR_RETURN(const int64_t end, Bound(range.end, size, lowest, step < 0 ? -1 : size));
  std::vector<size_t> indices;
  for (int64_t i = begin; step < 0 ? i > end : i < end; i += step) {
    indices.push_back(static_cast<size_t>(i));
  }
  return indices;
}

}  // namespace

Value Arguments::At(size_t index, std::string_view name) const {
  if (index < positional.size()) return positional[index];
  for (const auto& [known, value] : named) {
    if (known == name) return value;
  }
  return {};
}

bool IsTest(std::string_view name) { return name == "in" || Tests().contains(name); }
bool TestTakesArgument(std::string_view name) {
  return name == "in" || name == "equalto" || name == "eq" || name == "ne";
}

absl::StatusOr<bool> ApplyTest(const std::string& name, const Value& subject,
                               const Arguments& arguments) {
  const Value argument = arguments.At(0);
  if (name == "in") return Contains(argument, subject);
  const auto test = Tests().find(name);
  if (test == Tests().end()) return Bad("the test '", name, "' is not supported");
  return test->second(subject, argument);
}

absl::StatusOr<Value> ApplyOperator(const std::string& op, const Value& left, const Value& right) {
  if (op == "==") return Value::Bool(left.Equals(right));
  if (op == "!=") return Value::Bool(!left.Equals(right));
  if (op == "~") return Value::String(left.ToText() + right.ToText());
  if (op == "in") {
    ASSIGN_OR_RETURN(const bool found, Contains(right, left));
    return Value::Bool(found);
  }
  if (op[0] == '<' || op[0] == '>') {
    const std::optional<int> order = left.Compare(right);
    if (!order) return Bad("cannot compare ", left.KindName(), " with ", right.KindName());
    if (op == "<") return Value::Bool(*order < 0);
    if (op == "<=") return Value::Bool(*order <= 0);
    if (op == ">") return Value::Bool(*order > 0);
    return Value::Bool(*order >= 0);
  }
  if (left.IsNumber() && right.IsNumber()) return Arithmetic(op, left, right);
  if (op == "+") return Concatenate(left, right);
  return Bad("cannot compute ", left.KindName(), " ", op, " ", right.KindName());
}

absl::StatusOr<Value> GetItem(const Value& object, const Value& key) {
  if (object.is(Kind::kUndefined)) {
    return Bad("nothing can be taken from an undefined value (", key.ToText().substr(0, 40), ")");
  }
  if (object.is(Kind::kDict) || object.is(Kind::kNamespace)) {
    return key.is(Kind::kString) ? object.Get(key.as_string()) : Value();
  }
  const std::optional<size_t> length = object.Length();
  if (!key.is(Kind::kInt) || !length) return Value();
  const auto size = static_cast<int64_t>(*length);
  const int64_t index = key.as_int() < 0 ? key.as_int() + size : key.as_int();
  if (index < 0 || index >= size) return Value();
  if (object.is(Kind::kList)) return object.as_list()[static_cast<size_t>(index)];
  if (!object.is(Kind::kString)) return Value();
  std::string_view text = object.as_string();
  for (int64_t i = 0; i < index; ++i) text.remove_prefix(FirstCharacter(text).length);
  return Value::String(std::string(text.substr(0, FirstCharacter(text).length)));
}

absl::StatusOr<Value> GetSlice(const Value& object, const SliceRange& range) {
  if (!object.is(Kind::kList) && !object.is(Kind::kString)) {
    return Bad(object.KindName(), " has no slices");
  }
  ASSIGN_OR_RETURN(const Value::List all, ItemsOf(object));
  ASSIGN_OR_RETURN(const std::vector<size_t> indices,
                   SliceIndices(range, static_cast<int64_t>(all.size())));
  if (object.is(Kind::kString)) {
    std::string text;
    for (const size_t i : indices) text += all[i].as_string();
    return Value::String(std::move(text));
  }
  Value::List items;
  for (const size_t i : indices) items.push_back(all[i]);
  return Value::MakeList(std::move(items));
}

absl::StatusOr<Value::List> ItemsOf(const Value& value) {
  Value::List items;
  switch (value.kind()) {
    case Kind::kUndefined:
      return items;
    case Kind::kList:
      return value.as_list();
    case Kind::kDict:
      for (const auto& entry : value.as_dict()) items.push_back(Value::String(entry.first));
      return items;
    case Kind::kString:
      if (value.as_string().size() > kMaxItems) {
        return Bad("a text of ", value.as_string().size(), " bytes is too long to go through");
      }
      for (std::string& c : Characters(value.as_string())) {
        items.push_back(Value::String(std::move(c)));
      }
      return items;
    default:
      return Bad(value.KindName(), " holds no items to go through");
  }
}

}  // namespace sauva::chat
