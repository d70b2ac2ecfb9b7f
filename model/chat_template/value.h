#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace sauva::chat {

// What a template's expressions are made of, with the meaning that Python and Jinja give
// them. Lists and dictionaries are shared and never change once they are made, except a
// namespace, which templates may write to.
// Thread: values of one rendering stay on one thread.
class Value {
 public:
  using List = std::vector<Value>;
  using Dict = std::vector<std::pair<std::string, Value>>;  // in order of insertion
  enum class Kind { kUndefined, kNone, kBool, kInt, kFloat, kString, kList, kDict, kNamespace };

  Value() = default;  // undefined
  static Value None();
  static Value Bool(bool value);
  static Value Int(int64_t value);
  static Value Float(double value);
  static Value String(std::string value);
  static Value MakeList(List items);
  static Value MakeDict(Dict items);
  static Value MakeNamespace(Dict items);

  Kind kind() const { return kind_; }
  // How deeply lists and dictionaries lie in each other; 0: it is neither.
  int depth() const { return depth_; }
  // About the memory it would take with nothing shared; bounds the work of comparing,
  // printing and copying it. Units: bytes.
  uint64_t weight() const { return weight_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool IsNumber() const { return is(Kind::kInt) || is(Kind::kFloat) || is(Kind::kBool); }

  // Only of the kind that has it.
  bool as_bool() const { return std::get<bool>(data_); }
  int64_t as_int() const;   // kInt, kBool
  double as_float() const;  // any number
  const std::string& as_string() const { return *std::get<SharedString>(data_); }
  const List& as_list() const { return *std::get<SharedList>(data_); }
  const Dict& as_dict() const { return *std::get<SharedDict>(data_); }  // kNamespace too

  // An entry of a dictionary or namespace; undefined when there is none.
  Value Get(std::string_view key) const;
  // Only of a namespace.
  void SetEntry(const std::string& key, Value value);

  bool IsTrue() const;                                   // as Python's bool()
  bool Equals(const Value& other) const;                 // as ==
  std::optional<int> Compare(const Value& other) const;  // nothing: they have no order
  std::string ToText() const;                            // as str(); "" for undefined
  std::string ToLiteral() const;                         // as repr()
  std::optional<size_t> Length() const;                  // in characters; nothing: it has none
  const char* KindName() const;

 private:
  // Shared: by all copies of the value.
  using SharedString = std::shared_ptr<const std::string>;
  using SharedList = std::shared_ptr<const List>;
  using SharedDict = std::shared_ptr<Dict>;
  static constexpr uint64_t kOwnWeight = 128;

  template <class Data>
  Value(Kind kind, Data data) : kind_(kind), data_(std::move(data)) {}
  void Count(const Value& held);

  Kind kind_ = Kind::kUndefined;
  int depth_ = 0;
  uint64_t weight_ = kOwnWeight;
  std::variant<std::monostate, bool, int64_t, double, SharedString, SharedList, SharedDict> data_;
};

// As Python's json.dumps(value, ensure_ascii=False); indent < 0: on one line.
std::string ToJson(const Value& value, int indent);

// The characters of valid UTF-8, one string each.
std::vector<std::string> Characters(std::string_view text);

}  // namespace sauva::chat
