#include "model/chat_template/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "model/utf8.h"

namespace sauva::chat {
namespace {

using Kind = Value::Kind;

std::string FloatText(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  std::string text(buffer, end);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string Quoted(const std::string& text) {
  const bool has_single = text.find('\'') != std::string::npos;
  const char quote = has_single && text.find('"') == std::string::npos ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else {
      if (c == quote || c == '\\') out += '\\';
      out += c;
    }
  }
  return out + quote;
}

std::string JsonString(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          absl::StrAppend(&out, "\\u", absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad4));
        } else {
          out += c;
        }
    }
  }
  return out + '"';
}

void AppendJson(const Value& value, int indent, int depth, std::string& out);

// The items between the brackets of a list or dictionary.
template <class Items, class AppendItem>
void AppendItems(const Items& items, int indent, int depth, std::string& out,
                 const AppendItem& append) {
  const auto line = [&](int level) {
    if (indent >= 0) out += '\n' + std::string(static_cast<size_t>(indent * level), ' ');
  };
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += indent < 0 ? ", " : ",";
    line(depth + 1);
    append(items[i]);
  }
  if (!items.empty()) line(depth);
}

void AppendJson(const Value& value, int indent, int depth, std::string& out) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      out += "null";
      return;
    case Kind::kBool:
      out += value.as_bool() ? "true" : "false";
      return;
    case Kind::kInt:
    case Kind::kFloat:
      out += value.ToText();
      return;
    case Kind::kString:
      out += JsonString(value.as_string());
      return;
    case Kind::kList:
      out += '[';
      AppendItems(value.as_list(), indent, depth, out,
                  [&](const Value& item) { AppendJson(item, indent, depth + 1, out); });
      out += ']';
      return;
    case Kind::kNamespace:
      out += "null";  // Jinja cannot write it either
      return;
    case Kind::kDict:
      out += '{';
      AppendItems(value.as_dict(), indent, depth, out, [&](const auto& entry) {
        out += JsonString(entry.first) + ": ";
        AppendJson(entry.second, indent, depth + 1, out);
      });
      out += '}';
      return;
  }
}

bool EqualDicts(const Value::Dict& a, const Value& other) {
  return a.size() == other.as_dict().size() && std::ranges::all_of(a, [&](const auto& entry) {
           return entry.second.Equals(other.Get(entry.first));
         });
}

}  // namespace

Value Value::None() { return {Kind::kNone, std::monostate()}; }
Value Value::Bool(bool value) { return {Kind::kBool, value}; }
Value Value::Int(int64_t value) { return {Kind::kInt, value}; }
Value Value::Float(double value) { return {Kind::kFloat, value}; }
Value Value::String(std::string value) {
  const uint64_t size = value.size();
  Value out(Kind::kString, std::make_shared<const std::string>(std::move(value)));
  out.weight_ += size;
  return out;
}
Value Value::MakeList(List items) {
  Value out;
  out.kind_ = Kind::kList;
  out.depth_ = 1;
  for (const Value& item : items) out.Count(item);
  out.data_ = std::make_shared<const List>(std::move(items));
  return out;
}
Value Value::MakeDict(Dict items) {
  Value out;
  out.kind_ = Kind::kDict;
  out.depth_ = 1;
  for (const auto& [key, value] : items) {
    out.Count(value);
    out.weight_ += key.size();
  }
  out.data_ = std::make_shared<Dict>(std::move(items));
  return out;
}
void Value::Count(const Value& held) {
  depth_ = std::max(depth_, held.depth_ + 1);
  weight_ += held.weight_;
}
Value Value::MakeNamespace(Dict items) {
  return {Kind::kNamespace, std::make_shared<Dict>(std::move(items))};
}

int64_t Value::as_int() const {
  return is(Kind::kBool) ? static_cast<int64_t>(as_bool()) : std::get<int64_t>(data_);
}
double Value::as_float() const {
  return is(Kind::kFloat) ? std::get<double>(data_) : static_cast<double>(as_int());
}

Value Value::Get(std::string_view key) const {
  if (!is(Kind::kDict) && !is(Kind::kNamespace)) return {};
  for (const auto& [name, value] : as_dict()) {
    if (name == key) return value;
  }
  return {};
}

void Value::SetEntry(const std::string& key, Value value) {
  Dict& entries = *std::get<SharedDict>(data_);
  const auto known =
      std::ranges::find_if(entries, [&](const auto& entry) { return entry.first == key; });
  if (known != entries.end()) {
    known->second = std::move(value);
  } else {
    entries.emplace_back(key, std::move(value));
  }
}

bool Value::IsTrue() const {
  switch (kind_) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
      return as_float() != 0;
    case Kind::kString:
      return !as_string().empty();
    case Kind::kList:
      return !as_list().empty();
    case Kind::kDict:
      return !as_dict().empty();
    case Kind::kNamespace:
      return true;
  }
  return false;
}

bool Value::Equals(const Value& other) const {
  if (IsNumber() && other.IsNumber()) {
    if (is(Kind::kFloat) || other.is(Kind::kFloat)) return as_float() == other.as_float();
    return as_int() == other.as_int();
  }
  if (kind_ != other.kind_) return false;
  switch (kind_) {
    case Kind::kString:
      return as_string() == other.as_string();
    case Kind::kList:
      return std::ranges::equal(as_list(), other.as_list(),
                                [](const Value& a, const Value& b) { return a.Equals(b); });
    case Kind::kDict:
      return EqualDicts(as_dict(), other);
    case Kind::kNamespace:
      return std::get<SharedDict>(data_) == std::get<SharedDict>(other.data_);
    default:
      return true;  // both undefined, or both none
  }
}

std::optional<int> Value::Compare(const Value& other) const {
  const auto order = [](const auto& a, const auto& b) { return a < b ? -1 : a > b ? 1 : 0; };
  if (IsNumber() && other.IsNumber()) {
    if (is(Kind::kFloat) || other.is(Kind::kFloat)) return order(as_float(), other.as_float());
    return order(as_int(), other.as_int());
  }
  // The bytes of UTF-8 have the order of the characters.
  if (is(Kind::kString) && other.is(Kind::kString)) return order(as_string(), other.as_string());
  return std::nullopt;
}

std::string Value::ToText() const {
  if (is(Kind::kUndefined)) return "";
  if (is(Kind::kString)) return as_string();
  return ToLiteral();
}

std::string Value::ToLiteral() const {
  switch (kind_) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return as_bool() ? "True" : "False";
    case Kind::kInt:
      return absl::StrCat(as_int());
    case Kind::kFloat:
      return FloatText(as_float());
    case Kind::kString:
      return Quoted(as_string());
    case Kind::kList: {
      std::string out = "[";
      for (const Value& item : as_list()) {
        absl::StrAppend(&out, out.size() > 1 ? ", " : "", item.ToLiteral());
      }
      return out + "]";
    }
    case Kind::kNamespace:
      return "<Namespace>";
    case Kind::kDict: {
      std::string out = "{";
      for (const auto& [key, value] : as_dict()) {
        absl::StrAppend(&out, out.size() > 1 ? ", " : "", Quoted(key), ": ", value.ToLiteral());
      }
      return out + "}";
    }
  }
  return "";
}

std::optional<size_t> Value::Length() const {
  switch (kind_) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      return static_cast<size_t>(std::ranges::count_if(
          as_string(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
    case Kind::kList:
      return as_list().size();
    case Kind::kDict:
      return as_dict().size();
    default:
      return std::nullopt;
  }
}

const char* Value::KindName() const {
  static constexpr const char* kNames[] = {"undefined",  "none",         "a boolean",
                                           "an integer", "a number",     "text",
                                           "a list",     "a dictionary", "a namespace"};
  return kNames[static_cast<size_t>(kind_)];
}

std::string ToJson(const Value& value, int indent) {
  std::string out;
  AppendJson(value, indent, 0, out);
  return out;
}

std::vector<std::string> Characters(std::string_view text) {
  std::vector<std::string> characters;
  while (!text.empty()) {
    const size_t length = FirstCharacter(text).length;
    characters.emplace_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return characters;
}

}  // namespace sauva::chat
