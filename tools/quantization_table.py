#!/usr/bin/env python3
"""Makes the table of formats of a model: quantizes it every way and measures each.

    tools/quantization_table.py --sauva build/release/bin/sauva --model models/prose \\
        --calibration TRAIN --text HELD_OUT --work DIR [--max-tokens N] [FORMAT...]

Python's standard library is enough. Directories that are in DIR already are not made again.
"activations add" compares with the same codes widened to f32, on the same tokens. Ends when the
text measured on shares passages with the calibration text.
"""

import argparse
import json
import subprocess
from pathlib import Path

import unseen_text

GPTQ = ["--method", "gptq", "--group-size"]
AWQ = ["--method", "awq", "--group-size"]
# Flags of `sauva quantize`, or of `sauva eval` for what is rounded at load.
FORMATS = {
    "f16": None,
    "int8": ["--method", "int8"],
    "llm-int8": ["--method", "llm-int8"],
    "int8-static": ["--method", "int8-static"],
    "gptq-4-g64": [*GPTQ, "64"],
    "gptq-4-g128": [*GPTQ, "128"],
    "awq-g64": [*AWQ, "64"],
    "awq-g128": [*AWQ, "128"],
    "nf4": ["--method", "nf4"],
    "at-load-int4": "int4",
    "gptq-3-g64": ["--bits", "3", *GPTQ, "64"],
    "gptq-3-g128": ["--bits", "3", *GPTQ, "128"],
    "at-load-int3": "int3",
}


class Table:
    def __init__(self, args):
        self.args = args

    def run(self, *command):
        words = [str(word) for word in (self.args.sauva, *command)]
        return subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout.decode()

    def evaluate(self, model, *more):
        args = self.args
        windows = ("--context", 512, "--stride", 448, "--max-tokens", args.max_tokens)
        command = ("eval", "--model", model, "--text", args.text, *windows, "--threads",
                   args.threads, "--json", *more)  # fmt: skip
        return unseen_text.evaluate([self.args.sauva, *command])

    def directory(self, name, flags):
        args = self.args
        out = args.work / name
        if not out.exists():
            self.run("quantize", "--model", args.model, "--out", out, *flags, "--calibration",
                     args.calibration, "--samples", args.samples,
                     "--threads", args.threads)  # fmt: skip
        return out

    def row(self, name):
        flags = FORMATS[name]
        rounded = isinstance(flags, str)
        model = self.directory(name, flags) if isinstance(flags, list) else self.args.model
        weights = ["--weights", flags] if rounded else []
        measured = self.evaluate(model, "--reference", self.args.model, *weights)
        bits = size = added = "-"
        if isinstance(flags, list):
            inspected = json.loads(self.run("inspect", "--json", model))
            bits = f"{inspected['linear_bits_per_weight']:.2f}"
            size = f"{inspected['bytes'] / 2**20:.2f} MiB"
            exact = self.evaluate(model, "--weights", "f32")
            added = f"{100 * (measured['perplexity'] / exact['perplexity'] - 1):+.3f} %"
        cells = [
            name.replace("-", " ").replace("at load", "rounded at load,"),
            bits,
            size,
            f"{measured['weight_bytes'] / 2**20:.2f} MiB",
            f"{measured['perplexity']:.3f} ± {measured['perplexity_standard_error']:.2f}",
            f"{measured['loss_difference']:.5f} ± {measured['loss_difference_standard_error']:.5f}",
            f"{measured['kl_divergence']:.6f}",
            f"{measured['top1_agreement']:.3f}",
            added,
            f"{measured['tokens_per_second']:.0f}",
        ]
        return "| " + " | ".join(cells) + " |"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("sauva", "model", "calibration", "text", "work"):
        p.add_argument(f"--{name}", type=Path, required=True)
    p.add_argument("--samples", type=int, default=64, help="of calibration")
    p.add_argument("--max-tokens", type=int, default=0, help="of the text's beginning; 0: all")
    p.add_argument("--threads", type=int, default=0, help="of sauva; 0: all cores")
    p.add_argument("formats", nargs="*", metavar="FORMAT", help=", ".join(FORMATS))
    args = p.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    heads = ["format", "bits per weight", "files", "in memory", "perplexity",
             "loss added, nats a token", "KL", "top-1", "activations add", "tokens/s"]  # fmt: skip
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|", flush=True)
    table = Table(args)
    for name in args.formats or FORMATS:
        print(table.row(name), flush=True)


if __name__ == "__main__":
    main()
