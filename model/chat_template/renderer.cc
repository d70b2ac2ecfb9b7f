#include "model/chat_template/renderer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "model/chat_template/lexer.h"

namespace sauva::chat {
namespace {

using Kind = Node::Kind;
using VKind = Value::Kind;

// What a for loop's body knows as `loop`.
Value LoopVariable(const Value::List& items, size_t i) {
  const auto index = static_cast<int64_t>(i);
  const auto count = static_cast<int64_t>(items.size());
  return Value::MakeDict({{"index", Value::Int(index + 1)},
                          {"index0", Value::Int(index)},
                          {"revindex", Value::Int(count - index)},
                          {"revindex0", Value::Int(count - index - 1)},
                          {"first", Value::Bool(i == 0)},
                          {"last", Value::Bool(i + 1 == items.size())},
                          {"length", Value::Int(count)},
                          {"previtem", i == 0 ? Value() : items[i - 1]},
                          {"nextitem", i + 1 == items.size() ? Value() : items[i + 1]}});
}

}  // namespace

Renderer::Renderer(const std::string& source, const Variables& globals, const RenderLimits& limits)
    : source_(source), limits_(limits), scopes_{globals} {}

absl::StatusOr<std::string> Renderer::Run(const Node& root) {
  RETURN_IF_ERROR(Execute(root).status());
  return std::move(output_);
}

absl::Status Renderer::Error(const Node& node, const std::string& what) const {
  return ErrorAt(source_, node.offset, what);
}

absl::StatusOr<Value> Renderer::At(const Node& node, absl::StatusOr<Value> result) const {
  if (result.ok()) return result;
  return Error(node, std::string(result.status().message()));
}

absl::Status Renderer::Charge(const Node& node, uint64_t bytes) {
  work_bytes_ += bytes;
  if (work_bytes_ <= limits_.work_bytes) return absl::OkStatus();
  return Error(node, absl::StrCat("rendering takes more than ", limits_.work_bytes, " bytes"));
}

Value Renderer::Lookup(const std::string& name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const auto found = scope->find(name);
    if (found != scope->end()) return found->second;
  }
  return {};
}

// --- Statements

absl::StatusOr<Renderer::Flow> Renderer::Execute(const Node& node) {
  if (++steps_ > limits_.steps) {
    return Error(node, absl::StrCat("rendering takes more than ", limits_.steps, " steps"));
  }
  switch (node.kind) {
    case Kind::kBlock:
      for (const NodePtr& child : node.children) {
        ASSIGN_OR_RETURN(const Flow flow, Execute(*child));
        if (flow != Flow::kNext) return flow;
      }
      return Flow::kNext;
    case Kind::kText:
      RETURN_IF_ERROR(Write(node, node.name));
      return Flow::kNext;
    case Kind::kOutput: {
      ASSIGN_OR_RETURN(const Value value, Evaluate(*node.children[0]));
      RETURN_IF_ERROR(Write(node, value.ToText()));
      return Flow::kNext;
    }
    case Kind::kIf:
      return ExecuteIf(node);
    case Kind::kFor:
      return ExecuteFor(node);
    case Kind::kSet:
    case Kind::kSetEntry:
      RETURN_IF_ERROR(ExecuteSet(node));
      return Flow::kNext;
    case Kind::kSetBlock:
      RETURN_IF_ERROR(ExecuteSetBlock(node));
      return Flow::kNext;
    case Kind::kMacro:
      macros_[node.name] = &node;
      return Flow::kNext;
    case Kind::kBreak:
      return Flow::kBreak;
    case Kind::kContinue:
      return Flow::kContinue;
    default:
      break;
  }
  Check(false, "a block holds statements only");
  return Flow::kNext;
}

absl::Status Renderer::Write(const Node& node, const std::string& text) {
  RETURN_IF_ERROR(Charge(node, text.size()));
  if (output_.size() + text.size() > limits_.output_bytes) {
    return Error(node, absl::StrCat("the text is longer than ", limits_.output_bytes, " bytes"));
  }
  output_ += text;
  return absl::OkStatus();
}

absl::StatusOr<Renderer::Flow> Renderer::ExecuteIf(const Node& node) {
  size_t i = 0;
  for (; i + 1 < node.children.size(); i += 2) {
    ASSIGN_OR_RETURN(const Value condition, Evaluate(*node.children[i]));
    if (condition.IsTrue()) return Execute(*node.children[i + 1]);
  }
  if (i < node.children.size()) return Execute(*node.children[i]);
  return Flow::kNext;
}

// The items that a loop's `if` lets through.
absl::StatusOr<Value::List> Renderer::FilteredItems(const Node& loop) {
  ASSIGN_OR_RETURN(const Value iterable, Evaluate(*loop.children[0]));
  absl::StatusOr<Value::List> items = ItemsOf(iterable);
  if (!items.ok()) return Error(loop, std::string(items.status().message()));
  if (loop.children[1] == nullptr) return items;
  Value::List kept;
  for (const Value& item : *items) {
    scopes_.emplace_back();
    absl::StatusOr<Value> passes = Value();
    if (const absl::Status bound = Bind(loop, item); !bound.ok()) passes = bound;
    if (passes.ok()) passes = Evaluate(*loop.children[1]);
    scopes_.pop_back();
    RETURN_IF_ERROR(passes.status());
    if (passes->IsTrue()) kept.push_back(item);
  }
  return kept;
}

absl::StatusOr<Renderer::Flow> Renderer::ExecuteFor(const Node& node) {
  ASSIGN_OR_RETURN(const Value::List items, FilteredItems(node));
  RETURN_IF_ERROR(Charge(node, items.size() * sizeof(Value)));
  if (items.empty() && node.children[3] != nullptr) return Execute(*node.children[3]);
  for (size_t i = 0; i < items.size(); ++i) {
    scopes_.emplace_back();
    scopes_.back()["loop"] = LoopVariable(items, i);
    absl::StatusOr<Flow> flow = Flow::kNext;
    if (const absl::Status bound = Bind(node, items[i]); !bound.ok()) flow = bound;
    if (flow.ok()) flow = Execute(*node.children[2]);
    scopes_.pop_back();
    if (!flow.ok()) return flow;
    if (*flow == Flow::kBreak) break;
  }
  return Flow::kNext;
}

// Sets the targets of a for or set in the innermost scope.
absl::Status Renderer::Bind(const Node& node, const Value& value) {
  Variables& scope = scopes_.back();
  if (node.targets.size() == 1) {
    scope[node.targets[0]] = value;
    return absl::OkStatus();
  }
  absl::StatusOr<Value::List> parts = ItemsOf(value);
  if (!parts.ok() || parts->size() != node.targets.size()) {
    return Error(node,
                 absl::StrCat(value.KindName(), " does not make ", node.targets.size(), " values"));
  }
  for (size_t i = 0; i < parts->size(); ++i) scope[node.targets[i]] = (*parts)[i];
  return absl::OkStatus();
}

absl::Status Renderer::ExecuteSet(const Node& node) {
  ASSIGN_OR_RETURN(const Value value, Evaluate(*node.children[0]));
  if (node.kind == Kind::kSet) return Bind(node, value);
  Value target = Lookup(node.targets[0]);
  if (!target.is(VKind::kNamespace)) {
    return Error(node, absl::StrCat("'", node.targets[0], "' is no namespace"));
  }
  if (value.is(VKind::kNamespace)) return Error(node, "a namespace holds no namespaces");
  target.SetEntry(node.targets[1], value);
  return absl::OkStatus();
}

absl::Status Renderer::ExecuteSetBlock(const Node& node) {
  const std::string outer = std::exchange(output_, {});
  const absl::StatusOr<Flow> flow = Execute(*node.children[0]);
  Value text = Value::String(std::exchange(output_, outer));
  RETURN_IF_ERROR(flow.status());
  return Bind(node, text);
}

// --- Expressions

absl::StatusOr<Value> Renderer::Evaluate(const Node& node) {
  if (++steps_ > limits_.steps) {
    return Error(node, absl::StrCat("rendering takes more than ", limits_.steps, " steps"));
  }
  ASSIGN_OR_RETURN(Value value, EvaluateKind(node));
  if (value.depth() > limits_.value_depth) {
    return Error(node, absl::StrCat("lists in lists more than ", limits_.value_depth, " deep"));
  }
  if (value.weight() > kMaxValueBytes) {
    return Error(node, absl::StrCat("a value of more than ", kMaxValueBytes, " bytes"));
  }
  return value;
}

absl::StatusOr<Value> Renderer::EvaluateKind(const Node& node) {
  switch (node.kind) {
    case Kind::kConstant:
      return node.value;
    case Kind::kName:
      return Lookup(node.name);
    case Kind::kAttribute: {
      ASSIGN_OR_RETURN(const Value object, Evaluate(*node.children[0]));
      return At(node, GetItem(object, Value::String(node.name)));
    }
    case Kind::kIndex: {
      ASSIGN_OR_RETURN(const Value object, Evaluate(*node.children[0]));
      ASSIGN_OR_RETURN(const Value key, Evaluate(*node.children[1]));
      return At(node, GetItem(object, key));
    }
    case Kind::kSlice:
      return EvaluateSlice(node);
    case Kind::kCall:
      return EvaluateCall(node);
    case Kind::kFilter:
    case Kind::kTest:
    case Kind::kBinary:
    case Kind::kNegate: {
      ASSIGN_OR_RETURN(Value value, EvaluateOperation(node));
      RETURN_IF_ERROR(Charge(node, value.weight()));
      return value;
    }
    case Kind::kNot:
    case Kind::kAnd:
    case Kind::kOr:
    case Kind::kConditional:
      return EvaluateBoolean(node);
    case Kind::kList:
      return EvaluateList(node);
    case Kind::kDict:
      return EvaluateDict(node);
    default:
      break;
  }
  Check(false, "an expression holds expressions only");
  return Value();
}

absl::StatusOr<Value> Renderer::EvaluateOperation(const Node& node) {
  ASSIGN_OR_RETURN(const Value subject, Evaluate(*node.children[0]));
  switch (node.kind) {
    case Kind::kBinary: {
      ASSIGN_OR_RETURN(const Value right, Evaluate(*node.children[1]));
      return At(node, ApplyOperator(node.name, subject, right));
    }
    case Kind::kNegate:
      return At(node, ApplyOperator("-", Value::Int(0), subject));
    case Kind::kFilter: {
      ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(node));
      return At(node, ApplyFilter(node.name, subject, arguments));
    }
    default:
      break;
  }
  ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(node));
  const absl::StatusOr<bool> passes = ApplyTest(node.name, subject, arguments);
  if (!passes.ok()) return Error(node, std::string(passes.status().message()));
  return Value::Bool(*passes);
}

// As in Python, `and` and `or` give one of their operands.
absl::StatusOr<Value> Renderer::EvaluateBoolean(const Node& node) {
  ASSIGN_OR_RETURN(Value first, Evaluate(*node.children[0]));
  switch (node.kind) {
    case Kind::kNot:
      return Value::Bool(!first.IsTrue());
    case Kind::kAnd:
      return first.IsTrue() ? Evaluate(*node.children[1]) : first;
    case Kind::kOr:
      return first.IsTrue() ? first : Evaluate(*node.children[1]);
    default:
      break;
  }
  if (first.IsTrue()) return Evaluate(*node.children[1]);
  if (node.children[2] == nullptr) return Value();
  return Evaluate(*node.children[2]);
}

absl::StatusOr<Value> Renderer::EvaluateList(const Node& node) {
  Value::List items;
  for (const NodePtr& child : node.children) {
    ASSIGN_OR_RETURN(Value item, Evaluate(*child));
    if (item.is(VKind::kNamespace)) return Error(node, "a list holds no namespaces");
    items.push_back(std::move(item));
  }
  Value list = Value::MakeList(std::move(items));
  RETURN_IF_ERROR(Charge(node, list.weight()));
  return list;
}

absl::StatusOr<Value> Renderer::EvaluateDict(const Node& node) {
  Value::Dict entries;
  for (size_t i = 0; i + 1 < node.children.size(); i += 2) {
    ASSIGN_OR_RETURN(const Value key, Evaluate(*node.children[i]));
    ASSIGN_OR_RETURN(Value value, Evaluate(*node.children[i + 1]));
    if (!key.is(VKind::kString)) return Error(node, "a dictionary's keys are text");
    if (value.is(VKind::kNamespace)) return Error(node, "a dictionary holds no namespaces");
    const auto known = std::ranges::find_if(
        entries, [&](const auto& entry) { return entry.first == key.as_string(); });
    if (known != entries.end()) {
      known->second = std::move(value);
    } else {
      entries.emplace_back(key.as_string(), std::move(value));
    }
  }
  Value dict = Value::MakeDict(std::move(entries));
  RETURN_IF_ERROR(Charge(node, dict.weight()));
  return dict;
}

absl::StatusOr<Value> Renderer::EvaluateSlice(const Node& node) {
  ASSIGN_OR_RETURN(const Value object, Evaluate(*node.children[0]));
  Value parts[3];
  for (size_t i = 0; i < 3; ++i) {
    if (node.children[i + 1] == nullptr) continue;
    ASSIGN_OR_RETURN(parts[i], Evaluate(*node.children[i + 1]));
  }
  RETURN_IF_ERROR(Charge(node, object.weight()));
  return At(node, GetSlice(object, {.begin = parts[0], .end = parts[1], .step = parts[2]}));
}

absl::StatusOr<Arguments> Renderer::EvaluateArguments(const Node& node) {
  Arguments arguments;
  for (size_t i = 1; i < node.children.size(); ++i) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*node.children[i]));
    arguments.positional.push_back(std::move(value));
  }
  for (const auto& [name, child] : node.named) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*child));
    arguments.named.emplace_back(name, std::move(value));
  }
  return arguments;
}

absl::StatusOr<Value> Renderer::EvaluateCall(const Node& node) {
  const Node& callee = *node.children[0];
  ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(node));
  absl::StatusOr<Value> result;
  if (callee.kind == Kind::kAttribute) {
    ASSIGN_OR_RETURN(const Value object, Evaluate(*callee.children[0]));
    result = At(node, CallMethod(callee.name, object, arguments));
  } else if (const auto macro = macros_.find(callee.name); macro != macros_.end()) {
    result = CallMacro(*macro->second, node, arguments);
  } else {
    result = CallFunction(node, arguments);
  }
  RETURN_IF_ERROR(result.status());
  RETURN_IF_ERROR(Charge(node, result->weight()));
  return result;
}

absl::StatusOr<Value> Renderer::CallFunction(const Node& node, const Arguments& arguments) {
  const std::string& name = node.children[0]->name;
  if (name == "raise_exception") {
    return absl::InvalidArgumentError(
        absl::StrCat("the chat template refuses these messages: ", arguments.At(0).ToText()));
  }
  if (name == "namespace" || name == "dict") {
    for (const auto& [key, value] : arguments.named) {
      if (value.is(VKind::kNamespace)) return Error(node, "a namespace holds no namespaces");
    }
    return name == "dict" ? Value::MakeDict(arguments.named)
                          : Value::MakeNamespace(arguments.named);
  }
  if (name != "range") return Error(node, absl::StrCat("the function '", name, "' is not defined"));
  const bool has_begin = arguments.positional.size() > 1;
  const Value begin = has_begin ? arguments.At(0) : Value::Int(0);
  const Value end = arguments.At(has_begin ? 1 : 0);
  const Value step = arguments.positional.size() > 2 ? arguments.At(2) : Value::Int(1);
  if (!begin.is(VKind::kInt) || !end.is(VKind::kInt) || !step.is(VKind::kInt) ||
      step.as_int() == 0) {
    return Error(node, "range needs integers");
  }
  Value::List items;
  bool overflow = false;
  for (int64_t i = begin.as_int();
       !overflow && (step.as_int() > 0 ? i < end.as_int() : i > end.as_int());
       overflow = __builtin_add_overflow(i, step.as_int(), &i)) {
    if (items.size() == kMaxItems) return Error(node, absl::StrCat("a range of over ", kMaxItems));
    items.push_back(Value::Int(i));
  }
  return Value::MakeList(std::move(items));
}

// A macro sees the variables of the whole template and its own.
absl::StatusOr<Value> Renderer::CallMacro(const Node& macro, const Node& call,
                                          const Arguments& arguments) {
  if (arguments.positional.size() > macro.targets.size()) {
    return Error(
        call, absl::StrCat("macro '", macro.name, "' takes ", macro.targets.size(), " arguments"));
  }
  if (++macro_depth_ > limits_.macro_depth) {
    return Error(call, absl::StrCat("macros in macros more than ", limits_.macro_depth, " deep"));
  }
  Variables own;
  for (size_t i = 0; i < macro.targets.size(); ++i) {
    own[macro.targets[i]] = arguments.At(i, macro.targets[i]);
  }
  for (const auto& [name, fallback] : macro.named) {
    if (!own[name].is(VKind::kUndefined)) continue;
    ASSIGN_OR_RETURN(own[name], Evaluate(*fallback));
  }
  std::vector<Variables> outer_scopes(std::make_move_iterator(scopes_.begin() + 1),
                                      std::make_move_iterator(scopes_.end()));
  scopes_.resize(1);
  scopes_.push_back(std::move(own));
  const std::string outer = std::exchange(output_, {});
  const absl::StatusOr<Flow> flow = Execute(*macro.children[0]);
  Value text = Value::String(std::exchange(output_, outer));
  scopes_.resize(1);
  scopes_.insert(scopes_.end(), std::make_move_iterator(outer_scopes.begin()),
                 std::make_move_iterator(outer_scopes.end()));
  --macro_depth_;
  RETURN_IF_ERROR(flow.status());
  return text;
}

}  // namespace sauva::chat
