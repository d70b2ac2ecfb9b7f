"""Prefill and decode of a model shape in PyTorch, eager and compiled: tokens/s, one line each.

Usage: torch_peer.py CONFIG.json. Weights are random, of f16. Never run.
"""

import sys
import time

import torch
import transformers

PROMPT = 512
STEPS = 32
BATCHES = (1, 8, 32, 128)


def seconds(run):
    """The median of three runs after one to warm up."""
    run()
    taken = []
    for _ in range(3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[1]


def static_cache(config, rows):
    """A cache of fixed addresses; its arguments differ between versions."""
    arguments = {"config": config, "max_cache_len": PROMPT}
    try:
        return transformers.StaticCache(
            max_batch_size=rows, device="cuda", dtype=torch.float16, **arguments
        )
    except TypeError:
        return transformers.StaticCache(**arguments)


def measure(name, model, config):
    """Prints a prefill of one sequence, and decode steps of many with a static cache."""
    for rows, length in [(1, PROMPT)] + [(batch, 1) for batch in BATCHES]:
        steps = 1 if length > 1 else STEPS
        cache = static_cache(config, rows)
        tokens = torch.randint(0, config.vocab_size, (rows, length), device="cuda")

        def run(tokens=tokens, cache=cache, steps=steps):
            cache.reset()
            for step in range(steps):
                positions = torch.arange(step, step + tokens.shape[1], device="cuda")
                hidden = model.model(
                    input_ids=tokens,
                    position_ids=positions.expand(tokens.shape),
                    cache_position=positions,
                    past_key_values=cache,
                    use_cache=True,
                ).last_hidden_state
                model.lm_head(hidden[:, -1]).argmax(-1)

        rate = rows * length * steps / seconds(run)
        kind = "prefill" if length > 1 else "decode"
        print(f"{name} {kind} {max(rows, length):4d} rows {rate:10.1f} tokens/s", flush=True)


def main():
    config = transformers.AutoConfig.from_pretrained(sys.argv[1])
    torch.set_default_dtype(torch.float16)
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}", flush=True)
    with torch.inference_mode():
        measure("eager", model, config)
        model.model.forward = torch.compile(model.model.forward, mode="reduce-overhead")
        measure("compiled", model, config)


if __name__ == "__main__":
    main()
