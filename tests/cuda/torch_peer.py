"""Prefill and decode of a model shape in PyTorch, eager and compiled: tokens/s, one line each.

Usage: torch_peer.py CONFIG.json. Weights are random, of f16. Ends with 77 where PyTorch or
transformers is missing. Never run on a GPU.
"""

import inspect
import sys
import time

try:
    import torch
    import transformers
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

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


def static_cache(config, rows, length):
    """A cache of fixed addresses, of as many positions as are needed: attention reads all.

    Memory that is first taken inside a compiled function has no fixed address, and CUDA graphs are
    then left out. Older versions take it in the constructor.
    """
    arguments = {"config": config, "max_cache_len": length}
    if not hasattr(transformers.StaticCache, "early_initialization"):
        return transformers.StaticCache(
            max_batch_size=rows, device="cuda", dtype=torch.float16, **arguments
        )
    cache = transformers.StaticCache(**arguments)
    head_dim = config.hidden_size // config.num_attention_heads
    cache.early_initialization(
        rows, config.num_key_value_heads, head_dim, torch.float16, torch.device("cuda")
    )
    return cache


def measure(name, model, forward):
    """Prints decode steps of many sequences from their first token on, and a prefill of one."""
    # Newer versions of transformers count positions themselves.
    counted = "cache_position" not in inspect.signature(type(model).forward).parameters
    for rows, length in [(batch, 1) for batch in BATCHES] + [(1, PROMPT)]:
        steps = 1 if length > 1 else STEPS
        cache = static_cache(model.config, rows, length * steps)
        tokens = torch.randint(0, model.config.vocab_size, (rows, length), device="cuda")

        def run(tokens=tokens, cache=cache, steps=steps):
            cache.reset()
            for step in range(steps):
                positions = torch.arange(step, step + tokens.shape[1], device="cuda")
                forward(
                    input_ids=tokens,
                    position_ids=positions.expand(tokens.shape),
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                    **({} if counted else {"cache_position": positions}),
                ).logits[:, -1].argmax(-1)

        rate = rows * length * steps / seconds(run)
        kind = "prefill" if length > 1 else "decode"
        print(f"{name} {kind} {max(rows, length):4d} rows {rate:10.1f} tokens/s", flush=True)


def main():
    config = transformers.AutoConfig.from_pretrained(sys.argv[1])
    torch.set_default_dtype(torch.float16)
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}", flush=True)
    with torch.no_grad():
        measure("eager", model, model.forward)
        measure("compiled", model, torch.compile(model.forward, mode="reduce-overhead"))


if __name__ == "__main__":
    main()
