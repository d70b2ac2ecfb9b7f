#!/usr/bin/env python3
"""Checks the tree's own rules (tidy_rules.py). Usage: tidy_test.py SOURCE_DIR"""

import os
import subprocess
import sys

import tidy_rules

# Folders that hold data or what other tools made.
SKIPPED = ("build/", ".git/", ".cache/", "models/", "tests/golden/")


def tracked_files(root):
    """Files git knows or would add; all files when this is not a git checkout."""
    listing = subprocess.run(
        ["git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=False)
    if listing.returncode == 0:
        return listing.stdout.splitlines()
    return [os.path.relpath(os.path.join(folder, name), root)
            for folder, _, names in os.walk(root) for name in names]


def problems(root):
    for path in sorted(tracked_files(root)):
        full = os.path.join(root, path)
        if path.startswith(SKIPPED) or not os.path.isfile(full):
            continue
        with open(full, "rb") as source:
            data = source.read()
        if b"\0" in data:
            continue
        text = data.decode("utf-8", errors="replace")
        for rule in tidy_rules.ALL:
            for line, what in rule(path, text):
                yield f"{path}:{line}: {what}"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    found = list(problems(sys.argv[1]))
    print("\n".join(found) or "tidy: nothing to complain about")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
