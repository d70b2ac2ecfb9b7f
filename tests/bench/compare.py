#!/usr/bin/env python3
"""Saúva's CPU speed beside that of other programs' own benchmarks, one after the other.

    python3 tests/bench/compare.py --sauva build/release/bin/sauva --models DIR --logs DIR \\
        --llama /path/to/llama-bench --llama-batched /path/to/llama-batched-bench --ik /path/to/llama-bench

Each part alternates between the programs for some rounds, so that a machine whose clock and
neighbours change is equally kind to all. Checkpoints of random weights are made in --models when
they are missing. A round's raw output is kept in --logs and not measured again, so an interrupted
run goes on where it ended; --fresh forgets them. Prints a table in Markdown at the end, of the
rounds that are there: medians, and lowest to highest in brackets. Nothing but the standard
library; a program whose flag is not given is left out.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"

CHECKPOINTS = {
    "sauva-1b-int4": ["--format", "gptq4", "--group-size", "32"],
    "sauva-1b-int4-head": ["--format", "gptq4", "--group-size", "32", "--quantize-head"],
    "sauva-1b-int8": ["--format", "int8"],
    "sauva-1b-f16": ["--format", "f16"],
    "sauva-7b-int4": ["--shape", "7b", "--format", "gptq4", "--group-size", "32"],
}
GGUFS = {
    "1b-q4_0": ["--format", "q4_0"],
    "1b-q4_K_M": ["--format", "q4_K_M"],
    "1b-q8_0": ["--format", "q8_0"],
    "7b-q4_0": ["--shape", "7b", "--format", "q4_0"],
}


def make(options, name):
    """The path of a checkpoint or GGUF file, made if it is missing."""
    if name in GGUFS:
        path = options.models / f"{name}.gguf"
        tool, flags = "random_gguf.py", GGUFS[name]
    else:
        path = options.models / name
        tool, flags = "random_checkpoint.py", CHECKPOINTS[name]
    done = options.models / f"{name}.done"
    if not done.exists():
        print(f"making {path}", flush=True)
        command = [sys.executable, str(TOOLS / tool), *flags, "--out", str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        done.write_text(" ".join(command) + "\n")
    return str(path)


def sauva(options, model, threads, *flags):
    return [
        str(options.sauva),
        "bench",
        "--json",
        "--repeats",
        "1",
        "--threads",
        str(threads),
        "--model",
        make(options, model),
        *flags,
    ]


def read_sauva(text):
    speeds, shares = {}, {}
    for line in json.loads(text)["lines"]:
        name = "prefill" if line["name"] == "prefill" else f"decode {line['rows']}"
        speeds[name], shares[name] = line["tokens_per_second"], line["share"]
    return speeds, shares


def peer(binary, options, model, threads, prompt, decode, *flags):
    sizes = ["-p", str(prompt), "-n", str(decode), "-r", "1", "-t", str(threads), "-o", "json"]
    return [str(binary), "-m", make(options, model), *sizes, *flags]


def read_peer(text):
    speeds = {}
    for line in json.loads(text[text.index("[") :]):
        speeds["prefill" if line["n_prompt"] else "decode 1"] = line["avg_ts"]
    return speeds, {}


def read_batched(text):
    line = next(line for line in text.splitlines() if line.startswith("{"))
    return {"decode 16": json.loads(line)["speed_tg"]}, {}


def parts(options):
    """(part, [(program, command, reader)]); the most telling parts first."""

    def rows(name, checkpoint, ggufs, threads, prompt=512, decode=32, weights="native"):
        runs = [
            (
                "sauva",
                sauva(
                    options,
                    checkpoint,
                    threads,
                    "--rows",
                    "1",
                    "--prompt",
                    str(prompt),
                    "--decode-steps",
                    str(decode),
                    "--weights",
                    weights,
                ),
                read_sauva,
            )
        ]
        for gguf in ggufs:
            if options.llama:
                command = peer(
                    options.llama,
                    options,
                    gguf,
                    threads,
                    prompt,
                    decode,
                    "-lm",
                    "none",
                    "--no-warmup",
                )
                runs.append((f"llama.cpp {gguf[3:]}", command, read_peer))
            if options.ik:
                for label, flags in (("", []), (" -rtr 1", ["-rtr", "1"])):
                    command = peer(
                        options.ik,
                        options,
                        gguf,
                        threads,
                        prompt,
                        decode,
                        "-mmp",
                        "0",
                        "-w",
                        "0",
                        "-fa",
                        "1",
                        *flags,
                    )
                    runs.append((f"ik_llama.cpp {gguf[3:]}{label}", command, read_peer))
        return name, runs

    yield rows("1.1B 4 bit, 2 threads", "sauva-1b-int4", ["1b-q4_0"], 2)
    batched = [
        (
            "sauva",
            sauva(
                options, "sauva-1b-int4", 2, "--rows", "16", "--prompt", "0", "--decode-steps", "16"
            ),
            read_sauva,
        )
    ]
    if options.llama_batched:
        command = [
            str(options.llama_batched),
            "-m",
            make(options, "1b-q4_0"),
            "-c",
            "1024",
            "-npp",
            "1",
            "-ntg",
            "16",
            "-npl",
            "16",
            "-t",
            "2",
            "--output-format",
            "jsonl",
        ]
        batched.append(("llama.cpp q4_0", command, read_batched))
    yield "1.1B 4 bit, 16 rows, 2 threads", batched
    yield rows("1.1B 8 bit, 2 threads", "sauva-1b-int8", ["1b-q8_0"], 2, decode=16)
    yield rows("7B 4 bit, 2 threads", "sauva-7b-int4", ["7b-q4_0"], 2, prompt=0, decode=8)
    yield rows("1.1B 4 bit, 1 thread", "sauva-1b-int4", ["1b-q4_0"], 1, prompt=256, decode=16)
    yield rows(
        "1.1B 4 bit with a 4-bit head, 2 threads",
        "sauva-1b-int4-head",
        ["1b-q4_0", "1b-q4_K_M"],
        2,
    )
    yield rows(
        "1.1B rounded to 4 bit while loading, 2 threads",
        "sauva-1b-f16",
        ["1b-q4_0"],
        2,
        weights="int4",
    )
    yield rows(
        "1.1B rounded to 8 bit while loading, 2 threads",
        "sauva-1b-f16",
        ["1b-q8_0"],
        2,
        decode=16,
        weights="int8",
    )
    yield rows("1.1B f16, 2 threads", "sauva-1b-f16", [], 2, decode=16)
    if options.llama_avx2:
        command = peer(
            options.llama_avx2, options, "1b-q4_0", 2, 256, 16, "-lm", "none", "--no-warmup"
        )
        for name, checkpoint in (("", "sauva-1b-int4"), (" with a 4-bit head", "sauva-1b-int4-head")):
            own = sauva(
                options,
                checkpoint,
                2,
                "--device",
                "cpu:avx2",
                "--rows",
                "1",
                "--prompt",
                "256",
                "--decode-steps",
                "16",
            )
            yield (
                f"1.1B 4 bit{name}, AVX2 only, 2 threads",
                [("sauva", own, read_sauva), ("llama.cpp q4_0", command, read_peer)],
            )


def measure(options, end):
    """Says why it ended early, or nothing. A program that failed is not tried again."""
    broken = set()
    for part, runs in parts(options):
        if options.only and options.only not in part:
            continue
        for round_index in range(options.rounds):
            for program, command, _ in runs:
                log = log_of(options, part, program, round_index)
                if log.exists() or program in broken:
                    continue
                if time.monotonic() > end:
                    return "the time is up: run the same command again to go on"
                print(f"{part}, round {round_index + 1} of {options.rounds}: {program}", flush=True)
                failed = run_one(options, command, log)
                if failed:
                    broken.add(program)
                    print(f"  failed: {failed}", flush=True)
    return f"failed: {', '.join(sorted(broken))}" if broken else ""


def run_one(options, command, log):
    """Keeps the output under `log`; what went wrong, or nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode != 0:
        return f"exit code {done.returncode}: {done.stderr.strip()[-300:]}"
    # Neither machine nor user is anybody's business.
    shown = [Path(word).name if "/" in word else word for word in command]
    output = done.stdout.replace(f"{options.models}/", "")
    log.write_text(
        json.dumps({"command": shown, "at": time.time(), "output": output}, indent=1) + "\n"
    )
    return ""


def log_of(options, part, program, round_index):
    name = f"{part} -- {program}".replace(" ", "_").replace(",", "").replace("/", "_")
    return options.logs / f"{name}.{round_index}.json"


def spread(values, scale=1.0, digits=1):
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle * scale:.{digits}f} ({low * scale:.{digits}f}-{high * scale:.{digits}f})"


def table(options):
    print("\n| what | program | rounds | tokens/s | share of the limit, % | sauva is faster by |")
    print("|---|---|---|---|---|---|")
    for part, runs in parts(options):
        speeds, shares = {}, {}
        for program, _, read in runs:
            for round_index in range(options.rounds):
                log = log_of(options, part, program, round_index)
                if not log.exists():
                    continue
                found, found_shares = read(json.loads(log.read_text())["output"])
                for name, value in found.items():
                    speeds.setdefault(name, {}).setdefault(program, []).append(value)
                for name, value in found_shares.items():
                    shares.setdefault(name, []).append(value)
        for name, by_program in speeds.items():
            own = statistics.median(by_program.get("sauva", [0]))
            for program, values in by_program.items():
                share = spread(shares[name], 100) if program == "sauva" and name in shares else ""
                ratio = (
                    "" if program == "sauva" or not own else f"{own / statistics.median(values):.2f}x"
                )
                print(
                    f"| {part}: {name} | {program} | {len(values)} | {spread(values)} | {share} | {ratio} |"
                )


def resolved(path):
    return Path(path).resolve()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sauva", type=resolved, required=True, help="our command")
    parser.add_argument("--llama", type=resolved, help="llama.cpp's llama-bench")
    parser.add_argument("--llama-batched", type=resolved, help="llama.cpp's llama-batched-bench")
    parser.add_argument("--llama-avx2", type=resolved, help="a llama-bench built without AVX-512")
    parser.add_argument("--ik", type=resolved, help="ik_llama.cpp's llama-bench")
    parser.add_argument("--models", type=resolved, required=True, help="where checkpoints are made")
    parser.add_argument("--logs", type=resolved, required=True, help="where raw outputs are kept")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="the parts whose names hold this")
    parser.add_argument("--minutes", type=float, default=20, help="no run starts after them")
    parser.add_argument("--timeout", type=float, default=300, help="seconds of one run")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    options = parser.parse_args()
    options.models.mkdir(parents=True, exist_ok=True)
    options.logs.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        for log in options.logs.glob("*.json"):
            log.unlink()
    left = measure(options, time.monotonic() + 60 * options.minutes)
    table(options)
    if left:
        sys.exit(left)


if __name__ == "__main__":
    main()
