#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "model/chat_template/value.h"

namespace sauva::chat {

struct Node;
using NodePtr = std::unique_ptr<Node>;

// A piece of a parsed template: an expression or a statement. What `name`, `children` and
// `named` hold stands beside each kind.
struct Node {
  enum class Kind {
    // Expressions.
    kConstant,     // value
    kName,         // name
    kAttribute,    // children: object; name
    kIndex,        // children: object, key
    kSlice,        // children: object, begin, end, step; the last three may be null
    kCall,         // children: callee, arguments…; named arguments
    kFilter,       // name; children: subject, arguments…; named arguments
    kTest,         // name; children: subject, arguments…
    kNot,          // children: operand
    kNegate,       // children: operand
    kAnd,          // children: left, right
    kOr,           // children: left, right
    kBinary,       // name: the operator; children: left, right
    kConditional,  // children: condition, then, else (may be null: undefined)
    kList,         // children: items
    kDict,         // children: key, value, key, value…
    // Statements.
    kText,      // name: the text
    kOutput,    // children: expression
    kBlock,     // children: statements
    kIf,        // children: condition, block, condition, block… and, if odd, the else block
    kFor,       // targets; children: iterable, filter (may be null), body, else (may be null)
    kSet,       // targets; children: expression
    kSetEntry,  // targets: a namespace and its entry; children: expression
    kSetBlock,  // targets; children: body
    kMacro,     // name; targets: parameters; named: their defaults; children: body
    kBreak,
    kContinue,
  };

  Kind kind;
  size_t offset = 0;  // byte in the template
  std::string name = {};
  Value value = {};
  std::vector<NodePtr> children = {};
  std::vector<std::pair<std::string, NodePtr>> named = {};
  std::vector<std::string> targets = {};
  int height = 1;  // of the tree below, of expressions
};

// Expressions and blocks lie in each other at most so deeply, and a row of operators makes
// a tree at most so high.
inline constexpr int kMaxSyntaxDepth = 64;
inline constexpr int kMaxSyntaxHeight = 256;

// Parses a whole template into a kBlock.
// Errors: INVALID_ARGUMENT naming line, column and what is not understood: tags, filters,
// tests, functions and methods that are not supported are refused here, not when rendered.
absl::StatusOr<NodePtr> ParseTemplate(const std::string& source);

}  // namespace sauva::chat
