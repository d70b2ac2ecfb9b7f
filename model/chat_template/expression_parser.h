#pragma once

#include <initializer_list>

#include "absl/status/statusor.h"
#include "model/chat_template/syntax.h"
#include "model/chat_template/token_reader.h"

namespace sauva::chat {

// Parses the expressions of Jinja by recursive descent, one function per precedence.
// Source: Jinja 3.1, parser.py: the order of its parse_* functions.
class ExpressionParser {
 public:
  explicit ExpressionParser(TokenReader& in) : in_(in) {}

  absl::StatusOr<NodePtr> Parse();           // with `a if b else c`
  absl::StatusOr<NodePtr> ParseWithoutIf();  // what `for x in …` takes, so that `if` filters
  absl::StatusOr<NodePtr> ParseTuple();      // several with commas make a list

  // Entering one more level of nesting. Errors: INVALID_ARGUMENT when there are too many.
  class Level {
   public:
    explicit Level(int& depth) : depth_(depth) { ++depth_; }
    ~Level() { --depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    int& depth_;
  };
  int& depth() { return depth_; }
  absl::Status CheckDepth() const;

 private:
  absl::Status CheckHeight(const Node& node) const;
  absl::StatusOr<NodePtr> ParseOr();
  absl::StatusOr<NodePtr> ParseAnd();
  absl::StatusOr<NodePtr> ParseNot();
  absl::StatusOr<NodePtr> ParseComparison();
  absl::StatusOr<NodePtr> ParseSum();
  absl::StatusOr<NodePtr> ParseConcat();
  absl::StatusOr<NodePtr> ParseProduct();
  absl::StatusOr<NodePtr> ParseUnary();
  absl::StatusOr<NodePtr> ParsePower();
  absl::StatusOr<NodePtr> ParsePostfix();
  absl::StatusOr<NodePtr> ParsePrimary();
  absl::StatusOr<NodePtr> ParseName();
  absl::StatusOr<NodePtr> ParseList();
  absl::StatusOr<NodePtr> ParseDict();
  absl::StatusOr<NodePtr> ParseSubscript(NodePtr object);
  absl::StatusOr<NodePtr> ParseFilter(NodePtr subject);
  absl::StatusOr<NodePtr> ParseTest(NodePtr subject);
  absl::Status ParseArguments(Node& call);
  absl::Status CheckCallee(const Node& callee) const;

  using Rule = absl::StatusOr<NodePtr> (ExpressionParser::*)();
  // operand (operator operand)*, from the left.
  absl::StatusOr<NodePtr> ParseLeft(Rule operand, std::initializer_list<const char*> operators);

  TokenReader& in_;
  int depth_ = 0;
};

}  // namespace sauva::chat
