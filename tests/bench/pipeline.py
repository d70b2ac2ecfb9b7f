#!/usr/bin/env python3
"""What a pipeline keeps of one worker's speed: the machine's threads as one worker, or as workers
of one thread each that hold a stage each.

    python3 tests/bench/pipeline.py --sauva build/release/bin/sauva --model DIR [--rounds 5]

Starts each cluster in turn, asks the same of both, round by round, and prints tokens/s of prompts
and completions: medians, lowest to highest in brackets. Nothing but the standard library.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from compare import spread

# What is asked: prompts' words, tokens of a completion, sequences at once, which tokens count.
PARTS = {
    "prefill, 4 at once": (128, 1, 4, "prompt_tokens"),
    "decode, 4 at once": (4, 48, 4, "completion_tokens"),
    "decode, 16 at once": (4, 48, 16, "completion_tokens"),
    "decode, 32 at once": (4, 48, 32, "completion_tokens"),
}


class Cluster:
    def __init__(self, options, workers):
        any_port = "127.0.0.1:0"
        threads = options.threads // workers
        command = [options.sauva, "up", "--model", options.model, "--workers", workers,
                   "--stages", workers, "--threads", threads, "--kv-type", "f16",
                   "--max-context", 1024, "--grpc", any_port, "--http", any_port,
                   "--coordinator", any_port, "--json"]  # fmt: skip
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE,
                                        stderr=self.errors, text=True)  # fmt: skip
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] == "ready":
                self.gateway = event["grpc"]
                return
        self.errors.seek(0)
        raise SystemExit(self.errors.read().decode())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.communicate()

    def speed(self, options, part):
        """Tokens/s."""
        words, tokens, rows, counted = part
        command = [options.sauva, "bench", "--gateway", self.gateway, "--requests", 2 * rows,
                   "--concurrency", rows, "--prompt-words", words, "--max-tokens", tokens,
                   "--json"]  # fmt: skip
        run = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, check=True)
        result = json.loads(run.stdout)
        if result["errors"]:
            raise SystemExit(f"requests failed: {result['errors']}")
        return result[counted] / result["seconds"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--sauva", type=Path, required=True)
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--threads", type=int, default=2, help="in all")
    p.add_argument("--rounds", type=int, default=5)
    options = p.parse_args()
    speeds = {}
    for round_index in range(options.rounds):
        for workers in (1, options.threads):
            with Cluster(options, workers) as cluster:
                cluster.speed(options, (4, 4, 4, "completion_tokens"))  # unmeasured
                for name, part in PARTS.items():
                    speeds.setdefault((name, workers), []).append(cluster.speed(options, part))
        print(f"round {round_index + 1} of {options.rounds}", file=sys.stderr, flush=True)
    print(f"| tokens/s | one worker of {options.threads} threads | {options.threads} stages of one "
          "thread | kept |\n|---|---|---|---|")  # fmt: skip
    for name in PARTS:
        whole, parts = speeds[name, 1], speeds[name, options.threads]
        kept = statistics.median(b / a for a, b in zip(whole, parts))
        print(f"| {name} | {spread(whole)} | {spread(parts)} | {100 * kept:.0f} % |")


if __name__ == "__main__":
    main()
