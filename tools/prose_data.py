#!/usr/bin/env python3
"""Reads the two novels, cleans them and splits off the held-out part.

    tools/prose_data.py --data DIR --held-out FILE     writes the cleaned held-out text

so that `sauva eval --text FILE` can be pointed at it.
"""

import argparse
from pathlib import Path

FILES = ("war-and-peace.txt", "frankenstein.txt")
HELD_OUT = 0.1  # the last tenth of each file, by bytes, cut at a paragraph's end

_STRAIGHT = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "—": "--"})


def clean(text: str) -> str:
    """Joins hard-wrapped lines into paragraphs separated by one empty line.

    The two books differ in typography; quotes and dashes are brought to the ASCII
    forms of the larger one. A Project Gutenberg header and footer are dropped.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "*** START OF" in text:
        text = text.split("*** START OF", 1)[1].split("\n", 1)[1]
    if "*** END OF" in text:
        text = text.split("*** END OF", 1)[0]
    paragraphs = []
    for block in text.split("\n\n"):
        joined = " ".join(block.split())
        if joined:
            paragraphs.append(joined.translate(_STRAIGHT))
    return "\n\n".join(paragraphs) + "\n\n"


def split(data_dir: Path) -> tuple[list[str], list[str]]:
    """Returns (training documents, held-out documents), cleaned, one per file."""
    train, held_out = [], []
    for name in FILES:
        raw = (Path(data_dir) / name).read_bytes().replace(b"\r\n", b"\n")
        cut = raw.index(b"\n\n", int(len(raw) * (1 - HELD_OUT))) + 2
        train.append(clean(raw[:cut].decode("utf-8")))
        held_out.append(clean(raw[cut:].decode("utf-8")))
    return train, held_out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--held-out", type=Path, required=True)
    args = p.parse_args()
    args.held_out.write_text("".join(split(args.data)[1]), encoding="utf-8")


if __name__ == "__main__":
    main()
