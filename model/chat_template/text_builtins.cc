#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "model/chat_template/builtins.h"
#include "model/utf8.h"

// Filters and methods, most of them about text.
namespace sauva::chat {
namespace {

using Kind = Value::Kind;

template <class... Parts>
absl::Status Bad(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

enum class Side { kLeft, kRight, kBoth };

// Source: Python, str.isspace: bidirectional type WS, B or S, or category Zs.
bool IsSpace(uint32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

// As str.strip, lstrip and rstrip: white space, or any of the given characters.
std::string Stripped(std::string_view text, const Value& characters, Side side) {
  const auto unwanted = [&](std::string_view character) {
    if (!characters.is(Kind::kString)) return IsSpace(FirstCharacter(character).code_point);
    return characters.as_string().find(character) != std::string::npos;
  };
  while (side != Side::kRight && !text.empty()) {
    const size_t length = FirstCharacter(text).length;
    if (!unwanted(text.substr(0, length))) break;
    text.remove_prefix(length);
  }
  while (side != Side::kLeft && !text.empty()) {
    size_t begin = text.size() - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
    if (!unwanted(text.substr(begin))) break;
    text = text.substr(0, begin);
  }
  return std::string(text);
}

absl::Status CheckSize(uint64_t bytes) {
  if (bytes <= kMaxValueBytes) return absl::OkStatus();
  return Bad("a value of ", bytes, " bytes; at most ", kMaxValueBytes);
}

std::string Lower(const std::string& text) { return absl::AsciiStrToLower(text); }
std::string Upper(const std::string& text) { return absl::AsciiStrToUpper(text); }
std::string Capitalized(const std::string& text) {
  std::string out = Lower(text);
  if (!out.empty()) out[0] = absl::ascii_toupper(out[0]);
  return out;
}
std::string Titled(const std::string& text) {
  std::string out = Lower(text);
  bool begins = true;
  for (char& c : out) {
    if (begins) c = absl::ascii_toupper(c);
    begins = !absl::ascii_isalpha(c);
  }
  return out;
}

absl::StatusOr<Value> Replaced(const std::string& text, const Arguments& arguments) {
  const Value from = arguments.At(0);
  const Value to = arguments.At(1);
  if (!from.is(Kind::kString) || !to.is(Kind::kString) || from.as_string().empty()) {
    return Bad("replace needs two texts, the first not empty");
  }
  RETURN_IF_ERROR(CheckSize(text.size() / from.as_string().size() * to.as_string().size()));
  return Value::String(absl::StrReplaceAll(text, {{from.as_string(), to.as_string()}}));
}

// As str.split: at a separator, or at runs of white space.
absl::StatusOr<Value> Split(const std::string& text, const Arguments& arguments) {
  const Value separator = arguments.At(0, "sep");
  const Value most = arguments.At(1, "maxsplit");
  const int64_t limit = most.is(Kind::kInt) && most.as_int() >= 0 ? most.as_int() : -1;
  Value::List parts;
  const auto add = [&](std::string part) { parts.push_back(Value::String(std::move(part))); };
  if (!separator.is(Kind::kString)) {
    if (text.size() > kMaxItems) return Bad("a text of ", text.size(), " bytes to split");
    if (limit >= 0) return Bad("split at white space with a limit is not supported");
    for (const absl::string_view part :
         absl::StrSplit(text, absl::ByAnyChar(" \t\n\r\v\f"), absl::SkipEmpty())) {
      add(std::string(part));
    }
    return Value::MakeList(std::move(parts));
  }
  const std::string& mark = separator.as_string();
  if (mark.empty()) return Bad("split at an empty text");
  size_t begin = 0;
  for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, begin)) {
    if (limit >= 0 && std::ssize(parts) == limit) break;
    if (parts.size() == kMaxItems) return Bad("split makes more than ", kMaxItems, " parts");
    add(text.substr(begin, at - begin));
    begin = at + mark.size();
  }
  add(text.substr(begin));
  return Value::MakeList(std::move(parts));
}

absl::StatusOr<Value> StartsOrEndsWith(const std::string& name, const std::string& text,
                                       const Value& part) {
  const auto matches = [&](const Value& one) {
    if (!one.is(Kind::kString)) return false;
    return name == "startswith" ? absl::StartsWith(text, one.as_string())
                                : absl::EndsWith(text, one.as_string());
  };
  if (part.is(Kind::kList)) return Value::Bool(std::ranges::any_of(part.as_list(), matches));
  if (!part.is(Kind::kString)) return Bad(name, " needs text");
  return Value::Bool(matches(part));
}

absl::StatusOr<Value> TextMethod(const std::string& name, const std::string& text,
                                 const Arguments& arguments) {
  const Value first = arguments.At(0);
  if (name == "strip") return Value::String(Stripped(text, first, Side::kBoth));
  if (name == "lstrip") return Value::String(Stripped(text, first, Side::kLeft));
  if (name == "rstrip") return Value::String(Stripped(text, first, Side::kRight));
  if (name == "lower") return Value::String(Lower(text));
  if (name == "upper") return Value::String(Upper(text));
  if (name == "title") return Value::String(Titled(text));
  if (name == "capitalize") return Value::String(Capitalized(text));
  if (name == "startswith" || name == "endswith") return StartsOrEndsWith(name, text, first);
  if (name == "replace") return Replaced(text, arguments);
  if (name == "split") return Split(text, arguments);
  return Bad("text has no method '", name, "'");
}

Value PairsOf(const Value& dict) {
  Value::List pairs;
  for (const auto& [key, value] : dict.as_dict()) {
    pairs.push_back(Value::MakeList({Value::String(key), value}));
  }
  return Value::MakeList(std::move(pairs));
}

absl::StatusOr<Value> DictMethod(const std::string& name, const Value& dict,
                                 const Arguments& arguments) {
  if (name == "items") return PairsOf(dict);
  if (name == "get") {
    const Value key = arguments.At(0);
    const Value found = key.is(Kind::kString) ? dict.Get(key.as_string()) : Value();
    if (!found.is(Kind::kUndefined)) return found;
    return arguments.positional.size() > 1 ? arguments.positional[1] : Value::None();
  }
  Value::List items;
  for (const auto& [key, value] : dict.as_dict()) {
    items.push_back(name == "keys" ? Value::String(key) : value);
  }
  if (name == "keys" || name == "values") return Value::MakeList(std::move(items));
  return Bad("a dictionary has no method '", name, "'");
}

// --- Filters

absl::StatusOr<Value> Joined(const Value& subject, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Value::List items, ItemsOf(subject));
  const std::string separator = arguments.At(0, "d").ToText();
  RETURN_IF_ERROR(CheckSize(separator.size() * items.size()));
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    absl::StrAppend(&out, i > 0 ? separator : "", items[i].ToText());
  }
  return Value::String(std::move(out));
}

// As Jinja's indent: every line but the first, and no empty ones, unless told otherwise.
absl::StatusOr<Value> Indented(const Value& subject, const Arguments& arguments) {
  const Value width = arguments.At(0, "width");
  if (!width.is(Kind::kUndefined) && !width.is(Kind::kInt)) return Bad("indent needs a number");
  const int64_t count = width.is(Kind::kInt) ? width.as_int() : 4;
  if (count < 0 || count > 64) return Bad("indent by ", count, "; supported are 0 to 64");
  const std::string space(static_cast<size_t>(count), ' ');
  RETURN_IF_ERROR(CheckSize(space.size() * subject.ToText().size()));
  std::string out;
  bool first = !arguments.At(1, "first").IsTrue();
  const std::string text = subject.ToText();
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    absl::StrAppend(&out, first || line.empty() ? "" : space, line, "\n");
    first = false;
  }
  out.pop_back();
  return Value::String(std::move(out));
}

absl::StatusOr<Value> Selected(const std::string& name, const Value& subject,
                               const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Value::List items, ItemsOf(subject));
  const Value attribute = arguments.At(0);
  Arguments rest;
  for (size_t i = 2; i < arguments.positional.size(); ++i) {
    rest.positional.push_back(arguments.positional[i]);
  }
  Value::List chosen;
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(const Value value, GetItem(item, attribute));
    bool passes = value.IsTrue();
    if (arguments.positional.size() > 1) {
      ASSIGN_OR_RETURN(passes, ApplyTest(arguments.positional[1].ToText(), value, rest));
    }
    if (passes == (name == "selectattr")) chosen.push_back(item);
  }
  return Value::MakeList(std::move(chosen));
}

absl::StatusOr<Value> Mapped(const Value& subject, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Value::List items, ItemsOf(subject));
  const Value attribute = arguments.At(~size_t{0}, "attribute");
  Value::List out;
  for (const Value& item : items) {
    if (attribute.is(Kind::kUndefined)) {
      const std::string filter = arguments.At(0).ToText();
      if (!IsFilter(filter) || filter == "map") return Bad("map by '", filter, "'");
      ASSIGN_OR_RETURN(Value changed, ApplyFilter(filter, item, {}));
      out.push_back(std::move(changed));
    } else {
      ASSIGN_OR_RETURN(Value value, GetItem(item, attribute));
      out.push_back(std::move(value));
    }
  }
  return Value::MakeList(std::move(out));
}

absl::StatusOr<Value> ToInteger(const Value& subject) {
  int64_t number = 0;
  if (subject.IsNumber() && !subject.is(Kind::kFloat)) return Value::Int(subject.as_int());
  if (subject.is(Kind::kFloat) && std::abs(subject.as_float()) < 9e15) {
    return Value::Int(static_cast<int64_t>(subject.as_float()));
  }
  if (subject.is(Kind::kString) && absl::SimpleAtoi(subject.as_string(), &number)) {
    return Value::Int(number);
  }
  return Value::Int(0);
}

absl::StatusOr<Value> ListFilter(const std::string& name, const Value& subject) {
  ASSIGN_OR_RETURN(Value::List items, ItemsOf(subject));
  if (name == "list") return Value::MakeList(std::move(items));
  if (name == "first") return items.empty() ? Value() : items.front();
  if (name == "last") return items.empty() ? Value() : items.back();
  std::ranges::reverse(items);
  return Value::MakeList(std::move(items));
}

absl::StatusOr<Value> TextFilter(const std::string& name, const Value& subject,
                                 const Arguments& arguments) {
  const std::string text = subject.ToText();
  if (name == "trim") return Value::String(Stripped(text, arguments.At(0), Side::kBoth));
  if (name == "lower") return Value::String(Lower(text));
  if (name == "upper") return Value::String(Upper(text));
  if (name == "title") return Value::String(Titled(text));
  if (name == "capitalize") return Value::String(Capitalized(text));
  if (name == "replace") return Replaced(text, arguments);
  return Value::String(text);  // string, safe
}

absl::StatusOr<Value> ToJsonText(const Value& subject, const Arguments& arguments) {
  const Value indent = arguments.At(0, "indent");
  if (!indent.is(Kind::kInt)) return Value::String(ToJson(subject, -1));
  if (indent.as_int() < 0 || indent.as_int() > 16) return Bad("tojson with such an indent");
  return Value::String(ToJson(subject, static_cast<int>(indent.as_int())));
}

bool IsOneOf(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::ranges::find(names, name) != names.end();
}

}  // namespace

bool IsFilter(std::string_view name) {
  return IsOneOf(name, {"trim",   "lower", "upper",  "title",      "capitalize", "replace",
                        "string", "safe",  "list",   "first",      "last",       "reverse",
                        "length", "count", "join",   "default",    "d",          "tojson",
                        "items",  "int",   "indent", "selectattr", "rejectattr", "map"});
}

bool IsMethod(std::string_view name) {
  return IsOneOf(
      name, {"strip", "lstrip", "rstrip", "lower", "upper", "title", "capitalize", "startswith",
             "endswith", "replace", "split", "items", "keys", "values", "get"});
}

absl::StatusOr<Value> CallMethod(const std::string& name, const Value& object,
                                 const Arguments& arguments) {
  if (object.is(Kind::kString)) return TextMethod(name, object.as_string(), arguments);
  if (object.is(Kind::kDict)) return DictMethod(name, object, arguments);
  return Bad(object.KindName(), " has no method '", name, "'");
}

absl::StatusOr<Value> ApplyFilter(const std::string& name, const Value& subject,
                                  const Arguments& arguments) {
  if (name == "default" || name == "d") {
    const bool also_false = arguments.At(1, "boolean").IsTrue();
    const bool use = subject.is(Kind::kUndefined) || (also_false && !subject.IsTrue());
    return use ? arguments.At(0, "default_value") : subject;
  }
  if (name == "length" || name == "count") {
    const std::optional<size_t> length = subject.Length();
    if (!length) return Bad(subject.KindName(), " has no length");
    return Value::Int(static_cast<int64_t>(*length));
  }
  if (name == "items") {
    if (subject.is(Kind::kUndefined)) return Value::MakeList({});
    if (!subject.is(Kind::kDict)) return Bad("items of ", subject.KindName());
    return PairsOf(subject);
  }
  if (name == "join") return Joined(subject, arguments);
  if (name == "tojson") return ToJsonText(subject, arguments);
  if (name == "int") return ToInteger(subject);
  if (name == "indent") return Indented(subject, arguments);
  if (name == "selectattr" || name == "rejectattr") return Selected(name, subject, arguments);
  if (name == "map") return Mapped(subject, arguments);
  if (IsOneOf(name, {"list", "first", "last", "reverse"})) return ListFilter(name, subject);
  return TextFilter(name, subject, arguments);
}

}  // namespace sauva::chat
