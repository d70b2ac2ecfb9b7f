#!/usr/bin/env python3
"""Loads what `sauva quantize` wrote in the package whose format it is and compares the logits.

    VENV/bin/python tools/prove_quantized.py --sauva build/release/bin/sauva --text FILE DIR...

transformers loads bitsandbytes and compressed-tensors directories, GPTQModel loads GPTQ and AWQ;
tools/requirements-*.txt pins the environment of each. "f32": both sides compute in f32 from the
numbers that the codes stand for, so that only rounding remains. "native": both as they run by
themselves, with the activations each of them quantizes. Prints a line of JSON for each directory.
"""

import argparse
import json
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

TOKENS = 192


def load(directory: Path, method: str):
    if method in ("gptq", "awq"):
        from gptqmodel import BACKEND, GPTQModel

        backend = BACKEND.TORCH if method == "gptq" else BACKEND.TORCH_AWQ
        model = GPTQModel.load(str(directory), device="cpu", backend=backend, dtype=torch.float16)
        return model.model, "gptqmodel"
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, device_map="cpu")
    return model, method


def dequantize(model, method):
    """The package's own numbers, computed with in f32."""
    if method == "bitsandbytes":
        return model.dequantize().float()
    if method == "compressed-tensors":
        from compressed_tensors.quantization import disable_quantization

        return model.apply(disable_quantization)
    from gptqmodel.nn_modules.qlinear import BaseQuantLinear
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm

    for name, module in list(model.named_modules()):
        if not isinstance(module, BaseQuantLinear):
            continue
        if method == "awq":
            weight = dequantize_gemm(
                module.qweight, module.qzeros, module.scales, module.bits, module.group_size
            )
        else:
            weight = module.dequantize_weight()  # [in, out]
        linear = torch.nn.Linear(*weight.shape, bias=False)
        linear.weight.data = weight.T.float().contiguous()
        model.set_submodule(name, linear)
    return model.float()


def sauva_logits(binary, directory, text, weights, vocab):
    with tempfile.NamedTemporaryFile() as out:
        command = [binary, "eval", "--model", directory, "--text", text, "--weights", weights]
        command += ["--context", str(TOKENS), "--max-tokens", str(TOKENS), "--logits", out.name]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        return np.fromfile(out.name, dtype=np.float32).reshape(-1, vocab)


def compare(reference, ours):
    p = torch.log_softmax(torch.tensor(reference).double(), -1)
    q = torch.log_softmax(torch.tensor(ours).double(), -1)
    return {
        "largest_difference": float(np.abs(reference - ours).max()),
        "mean_difference": float(np.abs(reference - ours).mean()),
        "kl": float((p.exp() * (p - q)).sum(-1).mean()),
        "top1_agreement": float((reference.argmax(-1) == ours.argmax(-1)).mean()),
    }


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--sauva", type=Path, required=True)
    p.add_argument("--text", type=Path, required=True)
    p.add_argument("directories", type=Path, nargs="+")
    args = p.parse_args()
    for directory in args.directories:
        config = json.loads((directory / "config.json").read_text())
        method = config["quantization_config"]["quant_method"]
        model, package = load(directory, method)
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        ids = tokenizer.encode(args.text.read_text(encoding="utf-8")).ids[:TOKENS]
        vocab = config["vocab_size"]

        def run(network):
            with torch.no_grad():
                return network.eval()(torch.tensor([ids])).logits[0, :-1].float().numpy()

        logits = {"native": run(model)}
        # Loaded afresh: bitsandbytes repacks its weights when it first runs them on a CPU.
        logits["f32"] = run(dequantize(load(directory, method)[0], method))
        result = {"directory": directory.name, "package": f"{package} {metadata.version(package)}",
                  "tokens": len(ids), "logits_std": float(logits["f32"].std())}  # fmt: skip
        for weights in ("f32", "native"):
            ours = sauva_logits(args.sauva, directory, args.text, weights, vocab)
            result[weights] = compare(logits[weights], ours)
        print(json.dumps(result))


if __name__ == "__main__":
    main()
