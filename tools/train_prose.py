#!/usr/bin/env python3
"""Trains the demo model models/prose on a CPU and exports it in the Hugging Face layout.

    tools/train_prose.py --data DIR --out models/prose --state /tmp/prose --minutes 55

DIR holds war-and-peace.txt and frankenstein.txt. The last tenth of each is never trained on. The
learning rate follows the clock (--minutes of training) so that a busy machine still ends with an
annealed model, or the step count (--steps) so that two runs are equal. A run that was cut short
goes on from --state when started again.

Hidden matrices are trained with Muon (momentum, then orthogonalised by Newton-Schulz), the tied
embedding and the norm gains with AdamW.
Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import torch

import prose_data
import prose_tokenizer
from prose_model import GAINS, MATRICES, Config, Llama, export
from prose_score import held_out_nats

BOS_ID, EOS_ID = 0, 1


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder of the two texts")
    p.add_argument("--out", type=Path, required=True, help="the exported model; best so far")
    p.add_argument("--state", type=Path, required=True, help="folder for the resumable state")
    p.add_argument("--minutes", type=float, help="length of the schedule by the clock")
    p.add_argument("--steps", type=int, help="length of the schedule by steps")
    p.add_argument("--context", type=int, default=512)
    p.add_argument("--long-context", type=int, default=1024)
    p.add_argument("--long-share", type=float, default=0.15, help="last share at the long context")
    p.add_argument("--batch-tokens", type=int, default=4096)
    p.add_argument("--muon-rate", type=float, default=0.015)
    p.add_argument("--adam-rate", type=float, default=0.004)
    p.add_argument("--weight-decay", type=float, default=0.1)
    p.add_argument("--dropout", type=float, default=0.1)
    p.add_argument("--evaluate-minutes", type=float, default=5)
    p.add_argument("--patience", type=int, default=3, help="evaluations without a new best")
    p.add_argument("--seed", type=int, default=20)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--no-compile", action="store_true")
    args = p.parse_args()
    if (args.minutes is None) == (args.steps is None):
        p.error("give one of --minutes and --steps")
    return args


class Windows:
    """Endless training windows, each BOS + (context - 1) tokens and the token after.

    One pass cuts the stream at a random phase and moves each cut forward to the next paragraph
    within reach; the order is shuffled. A pass depends on the seed and its number only.
    """

    def __init__(self, stream: torch.Tensor, starts_paragraph: torch.Tensor, seed: int):
        self.stream, self.starts, self.seed = stream, starts_paragraph, seed
        self.pass_index, self.queue = 0, []

    def fill(self, body: int):
        random = torch.Generator().manual_seed(self.seed * 1000 + self.pass_index)
        phase = int(torch.randint(body, (1,), generator=random))
        cuts = torch.arange(phase, len(self.stream) - 2 * body, body)
        nearest = self.starts[torch.searchsorted(self.starts, cuts).clamp(max=len(self.starts) - 1)]
        cuts = torch.where((nearest >= cuts) & (nearest - cuts < body // 2), nearest, cuts)
        self.queue = cuts[torch.randperm(len(cuts), generator=random)].tolist()
        self.pass_index += 1

    def batch(self, rows: int, context: int):
        body = context  # BOS is an input and never a target
        tokens = torch.empty(rows, context + 1, dtype=torch.long)
        for row in range(rows):
            if not self.queue:
                self.fill(body)
            start = min(self.queue.pop(), len(self.stream) - body)
            tokens[row, 0] = BOS_ID
            tokens[row, 1:] = self.stream[start : start + body]
        return tokens[:, :-1], tokens[:, 1:].contiguous()


def orthogonalise(g: torch.Tensor) -> torch.Tensor:
    """Brings the singular values of each matrix of [n, rows, columns] near 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    flip = g.shape[-2] > g.shape[-1]
    x = g.mT if flip else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        s = x @ x.mT
        x = a * x + (b * s + c * (s @ s)) @ x
    return x.mT if flip else x


class Optimizer:
    """Muon for the stacked matrices, AdamW for the rest; one rate factor for both."""

    def __init__(self, model: Llama, args):
        self.matrices = {name: getattr(model, name) for name in MATRICES}
        self.momentum = {name: torch.zeros_like(p) for name, p in self.matrices.items()}
        gains = [getattr(model, name) for name in GAINS] + [model.final_norm]
        self.adam = torch.optim.AdamW(
            [
                {"params": [model.embedding], "weight_decay": args.weight_decay},
                {"params": gains, "weight_decay": 0.0},
            ],
            lr=args.adam_rate,
            betas=(0.9, 0.95),
        )
        self.args = args

    @torch.no_grad()
    def step(self, factor: float):
        for group in self.adam.param_groups:
            group["lr"] = self.args.adam_rate * factor
        self.adam.step()
        rate = self.args.muon_rate * factor
        for name, p in self.matrices.items():
            momentum = self.momentum[name].lerp_(p.grad, 0.05)
            update = orthogonalise(p.grad.lerp(momentum, 0.95))
            scale = max(1.0, p.shape[-2] / p.shape[-1]) ** 0.5
            p.mul_(1 - rate * self.args.weight_decay).add_(update, alpha=-rate * scale)

    def state(self):
        return {"momentum": self.momentum, "adam": self.adam.state_dict()}

    def load(self, state):
        self.momentum = state["momentum"]
        self.adam.load_state_dict(state["adam"])


def rate_factor(progress: float, step: int) -> float:
    """40 steps of warm-up, constant to 30 % of the schedule, then linear to zero."""
    return min(1.0, (step + 1) / 40) * min(1.0, max(0.0, (1 - progress) / 0.7))


def load_texts(args):
    train, held_out = prose_data.split(args.data)
    tokenizer = prose_tokenizer.train_tokenizer(train)
    ids = []
    for document in train:
        ids += tokenizer.encode(document, add_special_tokens=False).ids + [EOS_ID]
    stream = torch.tensor(ids)
    breaks = torch.tensor(["\n\n" in tokenizer.decode([i]) for i in range(4096)])
    starts = (breaks[stream].nonzero().flatten() + 1).contiguous()
    held_ids = [tokenizer.encode(d, add_special_tokens=False).ids for d in held_out]
    held_bytes = sum(len(d.encode()) for d in held_out)
    return tokenizer, stream, starts, held_ids, held_bytes


def main():
    args = arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.state.mkdir(parents=True, exist_ok=True)
    tokenizer, stream, starts, held_ids, held_bytes = load_texts(args)
    model = Llama(Config(dropout=args.dropout))
    optimizer = Optimizer(model, args)
    windows = Windows(stream, starts, args.seed)
    step, elapsed, tokens_seen, best, stale, log = 0, 0.0, 0, math.inf, 0, []
    state_file = args.state / "state.pt"
    if state_file.exists():
        s = torch.load(state_file, weights_only=False)
        model.load_state_dict(s["model"])
        optimizer.load(s["optimizer"])
        torch.set_rng_state(s["rng"])
        windows.pass_index, windows.queue = s["windows"]
        step, elapsed, tokens_seen, best, stale, log = s["counters"]
        print(f"resumed at step {step}, {elapsed / 60:.1f} min", flush=True)
    print(
        f"{sum(p.numel() for p in model.parameters())} parameters, {len(stream)} training tokens,"
        f" held out {held_bytes} bytes in {sum(map(len, held_ids))} tokens",
        flush=True,
    )
    loss_of = model.loss if args.no_compile else torch.compile(model.loss, dynamic=False)

    def progress():
        return step / args.steps if args.steps else elapsed / (60 * args.minutes)

    def evaluate():
        nonlocal best, stale
        started = time.time()
        model.eval()
        with torch.no_grad():
            nats, _ = held_out_nats(
                lambda x, y: model.loss(x, y, "none"), held_ids, args.context, args.context
            )
        model.train()
        bits = nats / math.log(2) / held_bytes
        log.append(
            {"minutes": round(elapsed / 60, 1), "step": step, "held_out_bpb": round(bits, 4)}
        )
        print(
            f"== {elapsed / 60:.1f} min, step {step}, epoch {tokens_seen / len(stream):.2f}:"
            f" held out {bits:.4f} bits per byte ({time.time() - started:.0f} s)",
            flush=True,
        )
        stale = 0 if bits < best else stale + 1
        if bits < best:
            best = bits
            export(model.state_dict(), model.config, tokenizer, args.out)

    def save():
        temporary = args.state / "state.tmp"
        torch.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state(),
                "rng": torch.get_rng_state(),
                "windows": (windows.pass_index, windows.queue),
                "counters": (step, elapsed, tokens_seen, best, stale, log),
            },
            temporary,
        )
        os.replace(temporary, state_file)

    next_evaluation = elapsed / 60 + args.evaluate_minutes
    started, shown_loss = time.time(), None
    while progress() < 1 and stale < args.patience:
        long = progress() >= 1 - args.long_share
        context = args.long_context if long else args.context
        x, y = windows.batch(args.batch_tokens // context, context)
        loss = loss_of(x, y)
        loss.backward()
        factor = rate_factor(progress(), step)
        optimizer.step(factor)
        model.zero_grad()
        step += 1
        tokens_seen += x.numel()
        shown_loss = loss.item() if shown_loss is None else 0.95 * shown_loss + 0.05 * loss.item()
        now = time.time()
        took, started = now - started, now
        elapsed += took
        if step % 20 == 0 or step < 4:
            print(
                f"{elapsed / 60:5.1f} min step {step} loss {shown_loss:.3f} rate x{factor:.3f}"
                f" {x.numel() / took:.0f} tokens/s",
                flush=True,
            )
        if elapsed / 60 >= next_evaluation:
            evaluate()
            save()
            next_evaluation += args.evaluate_minutes
            elapsed += time.time() - started
            started = time.time()
    evaluate()
    save()
    summary = {
        "steps": step,
        "minutes": round(elapsed / 60, 1),
        "tokens_seen": tokens_seen,
        "epochs": round(tokens_seen / len(stream), 2),
        "tokens_per_second": round(tokens_seen / elapsed),
        "best_held_out_bpb_during_training": round(best, 4),
        "evaluations": log,
    }
    (args.state / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary), flush=True)


if __name__ == "__main__":
    main()
