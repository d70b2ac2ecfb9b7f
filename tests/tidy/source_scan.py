"""Reads C++ sources well enough to measure them: comments and literals blanked, functions found."""

import re

_SCOPE = re.compile(r"^(inline\s+)?(namespace|class|struct|union|enum|extern)\b")
_RAW_OPEN = re.compile(r'R"([^()\\ ]{0,16})\(')


def blank_literals(text):
    """Returns `text` with comments, strings and characters replaced by spaces, lines kept."""
    out = []
    i = 0
    while i < len(text):
        two = text[i:i + 2]
        raw = _RAW_OPEN.match(text, i) if text[i] == "R" else None
        if two == "//":
            end = text.find("\n", i)
            end = len(text) if end < 0 else end
        elif two == "/*":
            end = text.find("*/", i + 2)
            end = len(text) if end < 0 else end + 2
        elif raw:
            end = text.find(")" + raw.group(1) + '"', i)
            end = len(text) if end < 0 else end + len(raw.group(1)) + 2
        elif text[i] == '"' or (text[i] == "'" and not (i and text[i - 1].isalnum())):
            end = _literal_end(text, i)
        else:
            out.append(text[i])
            i += 1
            continue
        out.append("".join("\n" if c == "\n" else " " for c in text[i:end]))
        i = end
    return "".join(out)


def _literal_end(text, start):
    i = start + 1
    while i < len(text) and text[i] not in (text[start], "\n"):
        i += 2 if text[i] == "\\" else 1
    return i + 1


def _without_template(head):
    """Drops `template <...>` prefixes, whose `class` would look like a scope."""
    head = head.strip()
    while head.startswith("template"):
        depth = 0
        for i, c in enumerate(head):
            depth += (c == "<") - (c == ">")
            if c == ">" and depth == 0:
                head = head[i + 1:].strip()
                break
        else:
            return head
    return head


def _opens_function(head, after_brace):
    head = _without_template(head)
    if _SCOPE.match(head) or head.endswith("="):
        return False
    if "(" in head:
        return True
    # The body after a member initialiser that used braces: `: a_{1} {` or `, b_{2} {`.
    return after_brace and (head == "" or head.startswith(","))


def functions(text):
    """Yields (first_line, last_line, head) of each function body outside any other function."""
    code = re.sub(r"^[ \t]*#.*(\\\n.*)*", lambda m: re.sub(r"[^\n]", " ", m.group()),
                  blank_literals(text), flags=re.M)
    code = re.sub(r"\b(public|private|protected)\s*:", lambda m: " " * len(m.group()), code)
    line, head, head_line, after_brace = 1, "", None, False
    parens = 0  # semicolons and braces inside parentheses do not end a head
    depth_of_function = None
    depth = 0
    for c in code:
        if c == "{":
            if depth_of_function is None and parens == 0 and _opens_function(head, after_brace):
                depth_of_function, start, name = depth, head_line or line, " ".join(head.split())
            depth += 1
        elif c == "}":
            depth -= 1
            if depth_of_function == depth:
                yield start, line, name
                depth_of_function = None
        if c in "{}" and parens == 0 or c == ";" and parens == 0:
            head, head_line, after_brace = "", None, c == "}"
        else:
            parens += (c == "(") - (c == ")")
            if head_line is None and not c.isspace():
                head_line = line
            head += c
        line += c == "\n"
