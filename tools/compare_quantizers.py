#!/usr/bin/env python3
"""Quantizes a model by a reference package and by `sauva quantize`, and measures both alike.

    VENV/bin/python tools/compare_quantizers.py --package gptqmodel --sauva build/release/bin/sauva \\
        --model models/prose --calibration TRAIN --text HELD_OUT --work DIR gptq:4:64 awq:4:128

Each job is METHOD:BITS:GROUP. Both sides calibrate on the very same tokens; `sauva eval` measures
both against the model as it was, computing in f32 from the numbers that the codes stand for, and
ours against theirs token by token, which gives the paired standard error. A job passes if our loss
added is at most 1.1 times theirs, or within two paired standard errors of it. Prints a row of
Markdown for each; directories that are there already are not made again. Ends when the text
measured on shares passages with the calibration text.
"""

import argparse
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch
import unseen_text
from tokenizers import Tokenizer


def calibration_samples(args):
    """The samples that `sauva quantize` cuts (quantize/calibration.h)."""
    text = args.calibration.read_text(encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    paragraphs = [part + "\n\n" for part in text.split("\n\n") if part.strip()]
    batch = tokenizer.encode_batch(paragraphs, add_special_tokens=False)
    tokens = [token for encoded in batch for token in encoded.ids]
    bos = json.loads((args.model / "config.json").read_text()).get("bos_token_id")
    first = [] if bos is None else [bos]
    own = args.sample_tokens - len(first)
    samples = []
    for i in range(args.samples):
        at = 0 if args.samples == 1 else (len(tokens) - own) * i // (args.samples - 1)
        samples.append(first + tokens[at : at + own])
    return samples


def by_gptqmodel(args, method, bits, group, out):
    # Fewer than its pools need is what it takes by itself on two cores.
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "4")
    from gptqmodel import BACKEND, GPTQModel
    from gptqmodel.quantization.config import AWQConfig, GPTQConfig

    config = (
        GPTQConfig(bits=bits, group_size=group, desc_act=False, sym=True)
        if method == "gptq"
        else AWQConfig(bits=bits, group_size=group, sym=False)
    )
    # Its AWQ packs f16 and bf16 only.
    dtype = torch.float32 if method == "gptq" else torch.float16
    model = GPTQModel.load(str(args.model), config, device="cpu", dtype=dtype)
    samples = [
        {"input_ids": torch.tensor([s]), "attention_mask": torch.ones(1, len(s), dtype=torch.long)}
        for s in calibration_samples(args)
    ]
    backend = BACKEND.TORCH if method == "gptq" else BACKEND.TORCH_AWQ
    model.quantize(samples, calibration_sort=None, batch_size=1, backend=backend)
    model.save(str(out))


def by_autoawq(args, method, bits, group, out):
    from awq import AutoAWQForCausalLM
    from awq.quantize import quantizer
    from transformers import AutoTokenizer

    if method != "awq":
        raise SystemExit(f"{method}: AutoAWQ makes awq only")
    samples = [torch.tensor([s]) for s in calibration_samples(args)]
    quantizer.get_calib_dataset = lambda **_: samples
    model = AutoAWQForCausalLM.from_pretrained(
        str(args.model), safetensors=True, device_map="cpu", torch_dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(str(args.model))
    config = {"zero_point": True, "q_group_size": group, "w_bit": bits, "version": "GEMM"}
    model.quantize(tokenizer, quant_config=config)
    model.save_quantized(str(out))
    (out / "tokenizer.json").write_bytes((args.model / "tokenizer.json").read_bytes())


def run(command):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def by_sauva(args, method, bits, group, out):
    command = [args.sauva, "quantize", "--model", args.model, "--out", out, "--method", method]
    command += ["--bits", bits, "--group-size", group, "--calibration", args.calibration]
    command += ["--samples", args.samples, "--sample-tokens", args.sample_tokens]
    run(command + ["--threads", args.threads])


def evaluate(args, model, reference):
    command = [args.sauva, "eval", "--model", model, "--reference", reference, "--text", args.text]
    command += ["--context", 512, "--stride", 448, "--max-tokens", args.max_tokens]
    return unseen_text.evaluate(command + ["--threads", args.threads, "--json"])


def compare(args, job, package):
    method, bits, group = job.split(":")
    name = f"{method}-{bits}-{group}"
    make = {"gptqmodel": by_gptqmodel, "autoawq": by_autoawq}[args.package]
    theirs = args.work / f"{args.package}-{name}"
    ours = args.work / f"sauva-{name}"
    if not theirs.exists():
        make(args, method, int(bits), int(group), theirs)
    if not ours.exists():
        by_sauva(args, method, bits, group, ours)
    a = evaluate(args, ours, args.model)
    b = evaluate(args, theirs, args.model)
    paired = evaluate(args, ours, theirs)
    difference, error = paired["loss_difference"], paired["loss_difference_standard_error"]
    passes = a["loss_difference"] <= 1.1 * b["loss_difference"] or difference <= 2 * error

    def cell(x):
        return (f"{x['perplexity']:.3f} | {x['loss_difference']:.5f} | "
                f"{x['kl_divergence']:.6f} ± {x['kl_standard_error']:.6f}")  # fmt: skip

    print(f"| {method}, {bits} bits, g{group} | {package} | {cell(a)} | {cell(b)} | "
          f"{difference:+.5f} ± {error:.5f} | {'passes' if passes else 'FAILS'} |", flush=True)  # fmt: skip
    return passes


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--package", choices=("gptqmodel", "autoawq"), required=True)
    p.add_argument("--sauva", type=Path, required=True)
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--calibration", type=Path, required=True)
    p.add_argument("--text", type=Path, required=True)
    p.add_argument("--work", type=Path, required=True)
    p.add_argument("--samples", type=int, default=64)
    p.add_argument("--sample-tokens", type=int, default=512)
    p.add_argument("--max-tokens", type=int, default=0, help="of the text's beginning; 0: all")
    p.add_argument("--threads", type=int, default=0, help="of sauva; 0: all cores")
    p.add_argument("jobs", nargs="+")
    args = p.parse_args()
    for name in ("sauva", "model", "calibration", "text", "work"):
        setattr(args, name, getattr(args, name).resolve())
    args.work.mkdir(parents=True, exist_ok=True)
    os.chdir(args.work)  # GPTQModel leaves logs where it runs
    package = f"{args.package} {metadata.version(args.package)}"
    print("| job | package | ours: perplexity | loss added | KL | theirs: perplexity | loss added | KL "
          "| ours less theirs | |\n|" + "---|" * 10)  # fmt: skip
    passed = [compare(args, job, package) for job in args.jobs]
    sys.exit(0 if all(passed) else 1)


if __name__ == "__main__":
    main()
