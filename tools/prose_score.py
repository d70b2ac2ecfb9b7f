#!/usr/bin/env python3
"""Bits per byte of an exported model on the held-out text, by Hugging Face transformers in f32.

    tools/prose_score.py --data DIR --model models/prose [--context 512 --stride 256]

Every token of the held-out text is scored once. A window is BOS followed by context - 1 tokens;
successive windows move by stride, so a token has at least context - stride tokens before it (the
first window aside). stride = context gives windows that do not overlap.
"""

import argparse
import json
import math
from pathlib import Path

import torch


def held_out_nats(loss, documents, context, stride, rows=8):
    """Sums the negative log-likelihood over the documents (lists of token ids).

    loss(inputs [rows, n], targets [rows, n]) returns the nats of each target.
    Returns (nats, number of tokens scored).
    """
    jobs = []  # (input ids, target ids, first target that counts)
    for ids in documents:
        scored = 0
        while scored < len(ids):
            end = min(len(ids), context if scored == 0 else scored + stride)
            begin = max(0, end - context)
            jobs.append(([0] + ids[begin : end - 1], ids[begin:end], scored - begin))
            scored = end
    jobs.sort(key=lambda job: len(job[0]))
    total, count = 0.0, 0
    while jobs:
        length = len(jobs[-1][0])
        group = [jobs.pop()]
        while jobs and len(group) < rows and len(jobs[-1][0]) == length:
            group.append(jobs.pop())
        inputs = torch.tensor([job[0] for job in group])
        targets = torch.tensor([job[1] for job in group])
        nats = loss(inputs, targets).view(targets.shape)
        for row, (_, _, first) in enumerate(group):
            total += nats[row, first:].double().sum().item()
            count += length - first
    return total, count


def main():
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    import prose_data

    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--context", type=int, default=512)
    p.add_argument("--stride", type=int, default=256)
    args = p.parse_args()
    _, held_out = prose_data.split(args.data)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    ids = [tokenizer.encode(d, add_special_tokens=False).ids for d in held_out]
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()

    def loss(inputs, targets):
        with torch.no_grad():
            logits = model(inputs).logits.flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="none")

    for name, documents, texts in [
        ("all", ids, held_out),
        *((f, [i], [t]) for f, i, t in zip(prose_data.FILES, ids, held_out)),
    ]:
        nats, count = held_out_nats(loss, documents, args.context, args.stride)
        size = sum(len(t.encode()) for t in texts)
        print(
            json.dumps(
                {
                    "text": name,
                    "bytes": size,
                    "tokens": count,
                    "bits_per_byte": round(nats / math.log(2) / size, 4),
                    "perplexity_per_token": round(math.exp(nats / count), 2),
                }
            )
        )


if __name__ == "__main__":
    main()
