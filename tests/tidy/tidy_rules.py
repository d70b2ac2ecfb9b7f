"""The rules a source tree keeps; each takes (path, text) and yields (line, what is wrong)."""

import os
import re

import source_scan

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 70

# A room may include itself and rooms of a lower floor.
FLOORS = {
    "base": 0,
    "kernels": 1, "proto": 1, "net": 1,
    "model": 2,
    "engine": 3,
    "gateway": 4, "coordinator": 4, "worker": 4, "quantize": 4,
    "cli": 5,
}
# Rooms that take less than their floor allows: (room, included room) -> allowed headers.
NARROWED = {
    ("model", "kernels"): re.compile(r"kernels/(dtype|half|quantized_matrix)\.h"),
    ("model", "net"): re.compile(r"(?!)"),
    ("engine", "net"): re.compile(r"(?!)"),
    ("gateway", "kernels"): re.compile(r"(?!)"),
    ("gateway", "engine"): re.compile(r"(?!)"),
    ("coordinator", "kernels"): re.compile(r"(?!)"),
}
# Rooms without wire code see the plain structs of proto/ only.
PLAIN_PROTO_ONLY = {"model", "engine"}
GENERATED_HEADER_USERS = re.compile(r"_(codec|service|client)(_test)?\.(h|cc)$")

CPP = (".h", ".cc", ".cu", ".cuh")
SOURCES = CPP + (".proto", ".py", ".sh", ".cmake", "CMakeLists.txt", ".md")
NO_TABS = CPP + (".proto", ".py", ".sh", ".cmake", "CMakeLists.txt", ".json", ".yaml", ".yml")
# Words of a workplace, which mean nothing to a reader of the project; each is written here in
# two parts, so that the tree does not hold it.
WORKPLACE_WORDS = [first + second for first, second in (
    ("/wo", "rk/"), ("/fa", "rm/"), (r"/tm", r"p/b\b"), (r"\bthis se", r"ssion\b"),
    (r"\bprevious se", r"ssion\b"), (r"\biss", r"ue #?\d"), (r"\bengineer's br", r"ief\b"),
    (r"\bBRI", r"EF\.md\b"), (r"\bas an A", r"I\b"), (r"\bsub", "agent"))]
WORKPLACE = re.compile("|".join(WORKPLACE_WORDS), re.I)

_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def _line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def include_problem(room, header):
    """Why a file of `room` must not include `header`; None when it may."""
    target = header.split("/")[0]
    if target not in FLOORS or target == room or room not in FLOORS:
        return None
    if FLOORS[target] >= FLOORS[room]:
        return f"{room}/ (floor {FLOORS[room]}) includes {header} (floor {FLOORS[target]})"
    allowed = NARROWED.get((room, target))
    if allowed is not None and not allowed.fullmatch(header):
        return f"{room}/ takes no {header}; see the floors in tests/tidy/tidy_rules.py"
    if room in PLAIN_PROTO_ONLY and target == "proto" and header.endswith("_codec.h"):
        return f"{room}/ takes only the plain structs of proto/, not {header}"
    return None


def includes(path, text):
    if not path.endswith(CPP):
        return
    room = path.split("/")[0]
    for match in _INCLUDE.finditer(text):
        problem = include_problem(room, match.group(1))
        if problem:
            yield _line_of(text, match.start()), problem


def generated_headers(path, text):
    if not path.endswith(CPP) or path.split("/")[0] in ("tests", "examples", "tools"):
        return
    for match in _INCLUDE.finditer(text):
        if match.group(1).endswith(".pb.h") and not GENERATED_HEADER_USERS.search(path):
            yield (_line_of(text, match.start()),
                   f"generated {match.group(1)} outside *_codec, *_service and *_client files")


def file_length(path, text):
    lines = text.count("\n")
    if path.endswith(CPP + (".py", ".sh", ".proto")) and lines > MAX_FILE_LINES:
        yield lines, f"{lines} lines; the limit is {MAX_FILE_LINES}"


def function_length(path, text):
    if not path.endswith(CPP):
        return
    for first, last, head in source_scan.functions(text):
        if last - first + 1 > MAX_FUNCTION_LINES:
            yield first, (f"a function of {last - first + 1} lines, the limit is "
                          f"{MAX_FUNCTION_LINES}: {head[:60]}")


def header_guard(path, text):
    if path.endswith((".h", ".cuh")) and "#pragma once" not in text:
        yield 1, "a header without #pragma once"


def workplace_words(path, text):
    if not path.endswith(SOURCES):
        return
    for match in WORKPLACE.finditer(text):
        yield _line_of(text, match.start()), f"speaks of a workplace: {match.group()!r}"


def tabs(path, text):
    if path.endswith(NO_TABS) and not os.path.basename(path).startswith("tokenizer"):
        offset = text.find("\t")
        if offset >= 0:
            yield _line_of(text, offset), "a tab"


def merge_leftovers(path, text):
    for match in re.finditer(r"^(<{7}|>{7}) ", text, re.M):
        yield _line_of(text, match.start()), "a conflict marker"


ALL = (includes, generated_headers, file_length, function_length, header_guard, workplace_words,
       tabs, merge_leftovers)
