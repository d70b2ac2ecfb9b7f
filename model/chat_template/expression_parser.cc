#include "model/chat_template/expression_parser.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/chat_template/builtins.h"

namespace sauva::chat {
namespace {

using Kind = Node::Kind;

template <class... Children>
NodePtr Make(Kind kind, size_t offset, Children... children) {
  auto node = std::make_unique<Node>(Node{.kind = kind, .offset = offset});
  (node->children.push_back(std::move(children)), ...);
  for (const NodePtr& child : node->children) {
    if (child != nullptr) node->height = std::max(node->height, child->height + 1);
  }
  return node;
}

NodePtr Constant(size_t offset, Value value) {
  NodePtr node = Make(Kind::kConstant, offset);
  node->value = std::move(value);
  return node;
}

NodePtr Named(Kind kind, size_t offset, std::string name) {
  NodePtr node = Make(kind, offset);
  node->name = std::move(name);
  return node;
}

}  // namespace

absl::Status ExpressionParser::CheckDepth() const {
  if (depth_ <= kMaxSyntaxDepth) return absl::OkStatus();
  return in_.Error(absl::StrCat("nested more than ", kMaxSyntaxDepth, " deep"));
}

absl::Status ExpressionParser::CheckHeight(const Node& node) const {
  if (node.height <= kMaxSyntaxHeight) return absl::OkStatus();
  return in_.Error(absl::StrCat("an expression of more than ", kMaxSyntaxHeight, " operators"));
}

absl::StatusOr<NodePtr> ExpressionParser::Parse() {
  const Level level(depth_);
  RETURN_IF_ERROR(CheckDepth());
  ASSIGN_OR_RETURN(NodePtr value, ParseOr());
  while (in_.IsWord("if")) {
    RETURN_IF_ERROR(CheckHeight(*value));
    const size_t offset = in_.Take().offset;
    ASSIGN_OR_RETURN(NodePtr condition, ParseOr());
    NodePtr otherwise;
    if (in_.TakeWord("else")) {
      ASSIGN_OR_RETURN(otherwise, Parse());
    }
    value = Make(Kind::kConditional, offset, std::move(condition), std::move(value),
                 std::move(otherwise));
  }
  return value;
}

absl::StatusOr<NodePtr> ExpressionParser::ParseWithoutIf() { return ParseOr(); }

absl::StatusOr<NodePtr> ExpressionParser::ParseTuple() {
  ASSIGN_OR_RETURN(NodePtr first, Parse());
  if (!in_.IsOperator(",")) return first;
  const size_t offset = first->offset;
  NodePtr list = Make(Kind::kList, offset, std::move(first));
  while (in_.TakeOperator(",")) {
    ASSIGN_OR_RETURN(NodePtr item, Parse());
    list->children.push_back(std::move(item));
  }
  return list;
}

absl::StatusOr<NodePtr> ExpressionParser::ParseOr() {
  ASSIGN_OR_RETURN(NodePtr left, ParseAnd());
  while (in_.IsWord("or")) {
    RETURN_IF_ERROR(CheckHeight(*left));
    const size_t offset = in_.Take().offset;
    ASSIGN_OR_RETURN(NodePtr right, ParseAnd());
    left = Make(Kind::kOr, offset, std::move(left), std::move(right));
  }
  return left;
}

absl::StatusOr<NodePtr> ExpressionParser::ParseAnd() {
  ASSIGN_OR_RETURN(NodePtr left, ParseNot());
  while (in_.IsWord("and")) {
    RETURN_IF_ERROR(CheckHeight(*left));
    const size_t offset = in_.Take().offset;
    ASSIGN_OR_RETURN(NodePtr right, ParseNot());
    left = Make(Kind::kAnd, offset, std::move(left), std::move(right));
  }
  return left;
}

absl::StatusOr<NodePtr> ExpressionParser::ParseNot() {
  if (!in_.IsWord("not")) return ParseComparison();
  const Level level(depth_);
  RETURN_IF_ERROR(CheckDepth());
  const size_t offset = in_.Take().offset;
  ASSIGN_OR_RETURN(NodePtr operand, ParseNot());
  return Make(Kind::kNot, offset, std::move(operand));
}

absl::StatusOr<NodePtr> ExpressionParser::ParseComparison() {
  ASSIGN_OR_RETURN(NodePtr left, ParseSum());
  for (int count = 0;; ++count) {
    const size_t offset = in_.Peek().offset;
    std::string op;
    bool inverted = false;
    for (const char* known : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (op.empty() && in_.TakeOperator(known)) op = known;
    }
    if (op.empty() && in_.TakeWord("in")) op = "in";
    if (op.empty() && in_.IsWord("not")) {
      in_.Take();
      if (!in_.TakeWord("in")) return in_.Error("expected 'in' after 'not'");
      op = "in";
      inverted = true;
    }
    if (op.empty()) return left;
    if (count > 0) return in_.ErrorAtByte(offset, "chained comparisons are not supported");
    ASSIGN_OR_RETURN(NodePtr right, ParseSum());
    left = Make(Kind::kBinary, offset, std::move(left), std::move(right));
    left->name = op;
    if (inverted) left = Make(Kind::kNot, offset, std::move(left));
  }
}

absl::StatusOr<NodePtr> ExpressionParser::ParseLeft(Rule operand,
                                                    std::initializer_list<const char*> operators) {
  ASSIGN_OR_RETURN(NodePtr left, (this->*operand)());
  while (true) {
    const size_t offset = in_.Peek().offset;
    const char* found = nullptr;
    for (const char* op : operators) {
      if (found == nullptr && in_.TakeOperator(op)) found = op;
    }
    if (found == nullptr) return left;
    RETURN_IF_ERROR(CheckHeight(*left));
    ASSIGN_OR_RETURN(NodePtr right, (this->*operand)());
    left = Make(Kind::kBinary, offset, std::move(left), std::move(right));
    left->name = found;
  }
}

absl::StatusOr<NodePtr> ExpressionParser::ParseSum() {
  return ParseLeft(&ExpressionParser::ParseConcat, {"+", "-"});
}
absl::StatusOr<NodePtr> ExpressionParser::ParseConcat() {
  return ParseLeft(&ExpressionParser::ParseProduct, {"~"});
}
absl::StatusOr<NodePtr> ExpressionParser::ParseProduct() {
  return ParseLeft(&ExpressionParser::ParseUnary, {"*", "//", "/", "%"});
}

absl::StatusOr<NodePtr> ExpressionParser::ParseUnary() {
  const Level level(depth_);
  RETURN_IF_ERROR(CheckDepth());
  const size_t offset = in_.Peek().offset;
  if (in_.TakeOperator("+")) return ParseUnary();
  if (in_.TakeOperator("-")) {
    ASSIGN_OR_RETURN(NodePtr operand, ParseUnary());
    return Make(Kind::kNegate, offset, std::move(operand));
  }
  return ParsePostfix();
}

absl::StatusOr<NodePtr> ExpressionParser::ParsePostfix() {
  ASSIGN_OR_RETURN(NodePtr node, ParsePrimary());
  while (true) {
    RETURN_IF_ERROR(CheckHeight(*node));
    const size_t offset = in_.Peek().offset;
    if (in_.TakeOperator(".")) {
      ASSIGN_OR_RETURN(std::string name, in_.TakeName("a name after '.'"));
      node = Make(Kind::kAttribute, offset, std::move(node));
      node->name = std::move(name);
    } else if (in_.IsOperator("[")) {
      ASSIGN_OR_RETURN(node, ParseSubscript(std::move(node)));
    } else if (in_.IsOperator("(")) {
      RETURN_IF_ERROR(CheckCallee(*node));
      node = Make(Kind::kCall, offset, std::move(node));
      RETURN_IF_ERROR(ParseArguments(*node));
    } else if (in_.IsOperator("|")) {
      ASSIGN_OR_RETURN(node, ParseFilter(std::move(node)));
    } else if (in_.IsWord("is")) {
      ASSIGN_OR_RETURN(node, ParseTest(std::move(node)));
    } else if (in_.IsOperator("**")) {
      return in_.Error("the operator '**' is not supported");
    } else {
      return node;
    }
  }
}

// Functions and methods are known by name; macros are found when the template runs.
absl::Status ExpressionParser::CheckCallee(const Node& callee) const {
  if (callee.kind == Kind::kName) return absl::OkStatus();
  if (callee.kind == Kind::kAttribute) {
    if (IsMethod(callee.name)) return absl::OkStatus();
    return in_.ErrorAtByte(callee.offset,
                           absl::StrCat("the method '", callee.name, "' is not supported"));
  }
  return in_.Error("only functions, methods and macros can be called");
}

absl::StatusOr<NodePtr> ExpressionParser::ParseSubscript(NodePtr object) {
  const size_t offset = in_.Take().offset;
  NodePtr parts[3];
  int count = 0;
  bool is_slice = false;
  while (!in_.IsOperator("]")) {
    if (in_.TakeOperator(":")) {
      is_slice = true;
      if (++count > 2) return in_.Error("a slice has at most three parts");
      continue;
    }
    if (parts[count] != nullptr) return in_.Error("expected ']'");
    ASSIGN_OR_RETURN(parts[count], Parse());
  }
  in_.Take();
  if (is_slice) {
    return Make(Kind::kSlice, offset, std::move(object), std::move(parts[0]), std::move(parts[1]),
                std::move(parts[2]));
  }
  if (parts[0] == nullptr) return in_.ErrorAtByte(offset, "the brackets are empty");
  return Make(Kind::kIndex, offset, std::move(object), std::move(parts[0]));
}

absl::StatusOr<NodePtr> ExpressionParser::ParseFilter(NodePtr subject) {
  const size_t offset = in_.Take().offset;
  ASSIGN_OR_RETURN(std::string name, in_.TakeName("a filter"));
  if (!IsFilter(name)) {
    return in_.ErrorAtByte(offset, absl::StrCat("the filter '", name, "' is not supported"));
  }
  NodePtr filter = Make(Kind::kFilter, offset, std::move(subject));
  filter->name = std::move(name);
  if (in_.IsOperator("(")) RETURN_IF_ERROR(ParseArguments(*filter));
  return filter;
}

absl::StatusOr<NodePtr> ExpressionParser::ParseTest(NodePtr subject) {
  const size_t offset = in_.Take().offset;
  const bool inverted = in_.TakeWord("not");
  ASSIGN_OR_RETURN(std::string name, in_.TakeName("a test"));
  if (!IsTest(name)) {
    return in_.ErrorAtByte(offset, absl::StrCat("the test '", name, "' is not supported"));
  }
  NodePtr test = Make(Kind::kTest, offset, std::move(subject));
  test->name = std::move(name);
  if (in_.IsOperator("(")) {
    RETURN_IF_ERROR(ParseArguments(*test));
  } else if (TestTakesArgument(test->name)) {
    ASSIGN_OR_RETURN(NodePtr argument, ParsePrimary());
    test->children.push_back(std::move(argument));
  }
  return inverted ? Make(Kind::kNot, offset, std::move(test)) : std::move(test);
}

absl::Status ExpressionParser::ParseArguments(Node& call) {
  RETURN_IF_ERROR(in_.ExpectOperator("("));
  while (!in_.TakeOperator(")")) {
    ASSIGN_OR_RETURN(NodePtr argument, Parse());
    if (in_.TakeOperator("=")) {
      if (argument->kind != Kind::kName) return in_.Error("expected a name before '='");
      const std::string name = argument->name;
      ASSIGN_OR_RETURN(argument, Parse());
      call.named.emplace_back(name, std::move(argument));
    } else if (!call.named.empty()) {
      return in_.Error("an argument without a name follows one with a name");
    } else {
      call.children.push_back(std::move(argument));
    }
    if (!in_.IsOperator(")")) RETURN_IF_ERROR(in_.ExpectOperator(","));
  }
  return absl::OkStatus();
}

absl::StatusOr<NodePtr> ExpressionParser::ParsePrimary() {
  const Token& token = in_.Peek();
  switch (token.kind) {
    case Token::Kind::kString: {
      const size_t offset = token.offset;
      std::string text;
      while (in_.Is(Token::Kind::kString)) text += in_.Take().text;
      return Constant(offset, Value::String(std::move(text)));
    }
    case Token::Kind::kInteger: {
      int64_t number = 0;
      const char* end = token.text.data() + token.text.size();
      if (std::from_chars(token.text.data(), end, number).ec != std::errc()) {
        return in_.Error("the number is too large");
      }
      return Constant(in_.Take().offset, Value::Int(number));
    }
    case Token::Kind::kFloat: {
      double number = 0;
      std::from_chars(token.text.data(), token.text.data() + token.text.size(), number);
      return Constant(in_.Take().offset, Value::Float(number));
    }
    case Token::Kind::kName:
      return ParseName();
    default:
      break;
  }
  if (in_.IsOperator("[")) return ParseList();
  if (in_.IsOperator("{")) return ParseDict();
  if (in_.TakeOperator("(")) {
    ASSIGN_OR_RETURN(NodePtr inner, ParseTuple());
    RETURN_IF_ERROR(in_.ExpectOperator(")"));
    return inner;
  }
  return in_.Expect(Token::Kind::kName, "an expression");
}

absl::StatusOr<NodePtr> ExpressionParser::ParseName() {
  const Token& token = in_.Take();
  const std::string& name = token.text;
  if (name == "true" || name == "True") return Constant(token.offset, Value::Bool(true));
  if (name == "false" || name == "False") return Constant(token.offset, Value::Bool(false));
  if (name == "none" || name == "None") return Constant(token.offset, Value::None());
  return Named(Kind::kName, token.offset, name);
}

absl::StatusOr<NodePtr> ExpressionParser::ParseList() {
  NodePtr list = Make(Kind::kList, in_.Take().offset);
  while (!in_.TakeOperator("]")) {
    ASSIGN_OR_RETURN(NodePtr item, Parse());
    list->children.push_back(std::move(item));
    if (!in_.IsOperator("]")) RETURN_IF_ERROR(in_.ExpectOperator(","));
  }
  return list;
}

absl::StatusOr<NodePtr> ExpressionParser::ParseDict() {
  NodePtr dict = Make(Kind::kDict, in_.Take().offset);
  while (!in_.TakeOperator("}")) {
    ASSIGN_OR_RETURN(NodePtr key, Parse());
    dict->children.push_back(std::move(key));
    RETURN_IF_ERROR(in_.ExpectOperator(":"));
    ASSIGN_OR_RETURN(NodePtr value, Parse());
    dict->children.push_back(std::move(value));
    if (!in_.IsOperator("}")) RETURN_IF_ERROR(in_.ExpectOperator(","));
  }
  return dict;
}

}  // namespace sauva::chat
