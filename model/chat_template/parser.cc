#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/chat_template/expression_parser.h"
#include "model/chat_template/lexer.h"
#include "model/chat_template/syntax.h"
#include "model/chat_template/token_reader.h"

namespace sauva::chat {
namespace {

using Kind = Node::Kind;

NodePtr Make(Kind kind, size_t offset) {
  return std::make_unique<Node>(Node{.kind = kind, .offset = offset});
}

// Parses text, outputs and tags.
class TemplateParser {
 public:
  explicit TemplateParser(TokenReader in) : in_(std::move(in)), expressions_(in_) {}

  absl::StatusOr<NodePtr> ParseAll() {
    ASSIGN_OR_RETURN(NodePtr all, ParseBlock());
    if (in_.Is(Token::Kind::kEnd)) return all;
    in_.Take();
    return in_.Error("this tag ends nothing that was begun");
  }

 private:
  // Statements up to the end or to a tag that belongs to the statement around them; its
  // opening bracket is the next token then.
  absl::StatusOr<NodePtr> ParseBlock() {
    const ExpressionParser::Level level(expressions_.depth());
    RETURN_IF_ERROR(expressions_.CheckDepth());
    NodePtr block = Make(Kind::kBlock, in_.Peek().offset);
    while (true) {
      const Token& token = in_.Peek();
      if (token.kind == Token::Kind::kEnd) return block;
      if (token.kind == Token::Kind::kBlockBegin) {
        ASSIGN_OR_RETURN(NodePtr statement, ParseTag());
        if (statement == nullptr) return block;
        block->children.push_back(std::move(statement));
        continue;
      }
      ASSIGN_OR_RETURN(NodePtr part, ParseTextOrOutput());
      block->children.push_back(std::move(part));
    }
  }

  absl::StatusOr<NodePtr> ParseTextOrOutput() {
    const Token& token = in_.Take();
    if (token.kind == Token::Kind::kText) {
      NodePtr text = Make(Kind::kText, token.offset);
      text->name = token.text;
      return text;
    }
    NodePtr output = Make(Kind::kOutput, token.offset);
    ASSIGN_OR_RETURN(NodePtr value, expressions_.ParseTuple());
    output->children.push_back(std::move(value));
    RETURN_IF_ERROR(in_.Expect(Token::Kind::kOutputEnd, "'}}'"));
    return output;
  }

  // A whole statement; null, and nothing taken, for a tag of the statement around it.
  absl::StatusOr<NodePtr> ParseTag() {
    const Token begin = in_.Peek();
    for (const char* word :
         {"elif", "else", "endif", "endfor", "endset", "endmacro", "endgeneration"}) {
      if (in_.NextIsWord(word)) return NodePtr();
    }
    in_.Take();
    ASSIGN_OR_RETURN(const std::string word, in_.TakeName("a tag"));
    if (word == "if") return ParseIf(begin.offset);
    if (word == "for") return ParseFor(begin.offset);
    if (word == "set") return ParseSet(begin.offset);
    if (word == "macro") return ParseMacro(begin.offset);
    if (word == "generation") return ParseGeneration();
    if (word == "break" || word == "continue") return ParseJump(word, begin.offset);
    return in_.ErrorAtByte(begin.offset, absl::StrCat("the tag '", word, "' is not supported"));
  }

  absl::Status EndTag() { return in_.Expect(Token::Kind::kBlockEnd, "'%}'"); }

  // {% WORD %}
  absl::Status ExpectTag(const std::string& word) {
    if (!in_.NextIsWord(word)) return in_.Error(absl::StrCat("expected {% ", word, " %}"));
    in_.Take();
    in_.Take();
    return EndTag();
  }

  absl::StatusOr<NodePtr> ParseIf(size_t offset) {
    NodePtr node = Make(Kind::kIf, offset);
    while (true) {
      ASSIGN_OR_RETURN(NodePtr condition, expressions_.ParseTuple());
      node->children.push_back(std::move(condition));
      RETURN_IF_ERROR(EndTag());
      ASSIGN_OR_RETURN(NodePtr block, ParseBlock());
      node->children.push_back(std::move(block));
      if (!in_.NextIsWord("elif")) break;
      in_.Take();
      in_.Take();
    }
    if (in_.NextIsWord("else")) {
      RETURN_IF_ERROR(ExpectTag("else"));
      ASSIGN_OR_RETURN(NodePtr block, ParseBlock());
      node->children.push_back(std::move(block));
    }
    RETURN_IF_ERROR(ExpectTag("endif"));
    return node;
  }

  absl::Status ParseTargets(Node& node) {
    do {
      ASSIGN_OR_RETURN(std::string name, in_.TakeName("a variable"));
      node.targets.push_back(std::move(name));
    } while (in_.TakeOperator(","));
    return absl::OkStatus();
  }

  absl::StatusOr<NodePtr> ParseFor(size_t offset) {
    NodePtr node = Make(Kind::kFor, offset);
    const bool in_brackets = in_.TakeOperator("(");
    RETURN_IF_ERROR(ParseTargets(*node));
    if (in_brackets) RETURN_IF_ERROR(in_.ExpectOperator(")"));
    if (!in_.TakeWord("in")) return in_.Error("expected 'in'");
    ASSIGN_OR_RETURN(NodePtr iterable, expressions_.ParseWithoutIf());
    NodePtr filter;
    if (in_.TakeWord("if")) {
      ASSIGN_OR_RETURN(filter, expressions_.Parse());
    }
    if (in_.IsWord("recursive")) return in_.Error("recursive loops are not supported");
    RETURN_IF_ERROR(EndTag());
    ++num_loops_;
    ASSIGN_OR_RETURN(NodePtr body, ParseBlock());
    --num_loops_;
    NodePtr otherwise;
    if (in_.NextIsWord("else")) {
      RETURN_IF_ERROR(ExpectTag("else"));
      ASSIGN_OR_RETURN(otherwise, ParseBlock());
    }
    RETURN_IF_ERROR(ExpectTag("endfor"));
    node->children.push_back(std::move(iterable));
    node->children.push_back(std::move(filter));
    node->children.push_back(std::move(body));
    node->children.push_back(std::move(otherwise));
    return node;
  }

  absl::StatusOr<NodePtr> ParseSet(size_t offset) {
    NodePtr node = Make(Kind::kSet, offset);
    RETURN_IF_ERROR(ParseTargets(*node));
    if (node->targets.size() == 1 && in_.TakeOperator(".")) {
      node->kind = Kind::kSetEntry;
      ASSIGN_OR_RETURN(std::string entry, in_.TakeName("a name after '.'"));
      node->targets.push_back(std::move(entry));
    }
    if (in_.TakeOperator("=")) {
      ASSIGN_OR_RETURN(NodePtr value, expressions_.ParseTuple());
      node->children.push_back(std::move(value));
      RETURN_IF_ERROR(EndTag());
      return node;
    }
    if (node->kind != Kind::kSet || node->targets.size() != 1) return in_.Error("expected '='");
    node->kind = Kind::kSetBlock;
    RETURN_IF_ERROR(EndTag());
    ASSIGN_OR_RETURN(NodePtr body, ParseBlock());
    node->children.push_back(std::move(body));
    RETURN_IF_ERROR(ExpectTag("endset"));
    return node;
  }

  absl::StatusOr<NodePtr> ParseMacro(size_t offset) {
    NodePtr node = Make(Kind::kMacro, offset);
    if (num_loops_ > 0 || in_macro_) {
      return in_.ErrorAtByte(offset, "a macro inside a loop or macro is not supported");
    }
    ASSIGN_OR_RETURN(node->name, in_.TakeName("a macro's name"));
    RETURN_IF_ERROR(in_.ExpectOperator("("));
    while (!in_.TakeOperator(")")) {
      ASSIGN_OR_RETURN(std::string parameter, in_.TakeName("a parameter"));
      if (in_.TakeOperator("=")) {
        ASSIGN_OR_RETURN(NodePtr value, expressions_.Parse());
        node->named.emplace_back(parameter, std::move(value));
      }
      node->targets.push_back(std::move(parameter));
      if (!in_.IsOperator(")")) RETURN_IF_ERROR(in_.ExpectOperator(","));
    }
    RETURN_IF_ERROR(EndTag());
    in_macro_ = true;
    ASSIGN_OR_RETURN(NodePtr body, ParseBlock());
    in_macro_ = false;
    node->children.push_back(std::move(body));
    RETURN_IF_ERROR(ExpectTag("endmacro"));
    return node;
  }

  // It marks what an assistant said, for training; here it is a block like any other.
  absl::StatusOr<NodePtr> ParseGeneration() {
    RETURN_IF_ERROR(EndTag());
    ASSIGN_OR_RETURN(NodePtr body, ParseBlock());
    RETURN_IF_ERROR(ExpectTag("endgeneration"));
    return body;
  }

  absl::StatusOr<NodePtr> ParseJump(const std::string& word, size_t offset) {
    if (num_loops_ == 0) {
      return in_.ErrorAtByte(offset, absl::StrCat("'", word, "' stands in no loop"));
    }
    RETURN_IF_ERROR(EndTag());
    return Make(word == "break" ? Kind::kBreak : Kind::kContinue, offset);
  }

  TokenReader in_;
  ExpressionParser expressions_;
  int num_loops_ = 0;
  bool in_macro_ = false;
};

}  // namespace

absl::StatusOr<NodePtr> ParseTemplate(const std::string& source) {
  ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return TemplateParser(TokenReader(source, std::move(tokens))).ParseAll();
}

}  // namespace sauva::chat
