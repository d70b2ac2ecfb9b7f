#!/usr/bin/env python3
"""Checks that every planted bug (tests/plants) still fits the code, names the program that
finds it and stands in the table of tests/plants/README.md. Usage: plants_test.py SOURCE_DIR"""

import os
import re
import subprocess
import sys

ROW = re.compile(r"^\| `(\w+)` \|.*\| `(\w+)`", re.M)
FOUND_BY = re.compile(r"\A[A-Z][^\n]*\.\nFound by: (\w+)[^\n]*\n")


def complaint_of(root, path):
    """What is wrong with one patch; None when nothing is."""
    # Whatever repository the tree may lie in, paths are those of the tree.
    here = dict(os.environ, GIT_CEILING_DIRECTORIES=os.path.dirname(os.path.abspath(root)))
    check = subprocess.run(["git", "apply", "--check", path], cwd=root, env=here,
                           capture_output=True, text=True, check=False)
    if check.returncode != 0:
        return "does not apply: " + check.stderr.strip().replace("\n", "; ")
    return None


def problems(root):
    folder = os.path.join(root, "tests", "plants")
    with open(os.path.join(folder, "README.md"), encoding="utf-8") as readme:
        rows = dict(ROW.findall(readme.read()))
    plants = sorted(name[:-len(".patch")] for name in os.listdir(folder)
                    if name.endswith(".patch"))
    for name in plants:
        path = os.path.abspath(os.path.join(folder, name + ".patch"))
        complaint = complaint_of(root, path)
        if complaint:
            yield f"{name}: {complaint}"
        with open(path, encoding="utf-8") as patch:
            found_by = FOUND_BY.match(patch.read())
        if not found_by:
            yield f"{name}: begins with no sentence and no line 'Found by: PROGRAM [FILTER]'"
        elif rows.get(name) != found_by.group(1):
            yield f"{name}: README.md's table says {rows.get(name)}, the patch {found_by.group(1)}"
    for name in sorted(set(rows) - set(plants)):
        yield f"{name}: a row of README.md's table without a patch"
    if len(plants) < 12:
        yield f"{len(plants)} planted bugs are too few"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    found = list(problems(sys.argv[1]))
    print("\n".join(found) or "plants: all apply")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
