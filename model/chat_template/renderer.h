#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/chat_template/builtins.h"
#include "model/chat_template/syntax.h"
#include "model/chat_template/value.h"

namespace sauva::chat {

using Variables = std::map<std::string, Value>;

// What one rendering may do; beyond it fails with INVALID_ARGUMENT.
struct RenderLimits {
  int64_t steps = 1'000'000;        // expressions and statements
  uint64_t work_bytes = 256 << 20;  // of all values and text that are made
  uint64_t output_bytes = 32 << 20;
  int value_depth = 16;  // lists in lists
  int macro_depth = 16;  // macros that call macros
};

// Runs a parsed template once.
// Thread: its owner's.
class Renderer {
 public:
  // `source` is the template's text, for messages. Both must outlive this object.
  Renderer(const std::string& source, const Variables& globals, const RenderLimits& limits);

  // Errors: INVALID_ARGUMENT naming line, column and reason.
  absl::StatusOr<std::string> Run(const Node& root);

 private:
  enum class Flow { kNext, kBreak, kContinue };

  absl::StatusOr<Flow> Execute(const Node& node);
  absl::StatusOr<Flow> ExecuteIf(const Node& node);
  absl::StatusOr<Flow> ExecuteFor(const Node& node);
  absl::StatusOr<Value::List> FilteredItems(const Node& loop);
  absl::Status ExecuteSet(const Node& node);
  absl::Status ExecuteSetBlock(const Node& node);
  absl::Status Bind(const Node& node, const Value& value);
  absl::Status Write(const Node& node, const std::string& text);

  absl::StatusOr<Value> Evaluate(const Node& node);
  absl::StatusOr<Value> EvaluateKind(const Node& node);
  absl::StatusOr<Value> EvaluateBoolean(const Node& node);
  absl::StatusOr<Value> EvaluateList(const Node& node);
  absl::StatusOr<Value> EvaluateDict(const Node& node);
  absl::StatusOr<Value> EvaluateSlice(const Node& node);
  absl::StatusOr<Value> EvaluateOperation(const Node& node);
  absl::StatusOr<Value> EvaluateCall(const Node& node);
  absl::StatusOr<Value> CallFunction(const Node& node, const Arguments& arguments);
  absl::StatusOr<Value> CallMacro(const Node& macro, const Node& call, const Arguments& arguments);
  absl::StatusOr<Arguments> EvaluateArguments(const Node& node);
  absl::StatusOr<Value> At(const Node& node, absl::StatusOr<Value> result) const;
  absl::Status Error(const Node& node, const std::string& what) const;
  absl::Status Charge(const Node& node, uint64_t bytes);

  Value Lookup(const std::string& name) const;

  const std::string& source_;
  const RenderLimits limits_;
  std::vector<Variables> scopes_;
  std::map<std::string, const Node*> macros_;
  std::string output_;
  int64_t steps_ = 0;
  uint64_t work_bytes_ = 0;
  int macro_depth_ = 0;
};

}  // namespace sauva::chat
