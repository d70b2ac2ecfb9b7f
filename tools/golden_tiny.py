"""Tiny random Llama checkpoints and their logits by transformers in f32.

tiny_llama        bf16, two shards with an index, grouped-query attention, own head; config.json as
                  transformers 5 writes it (rope_parameters).
tiny_llama3_rope  f32, tied head, head_dim != hidden / heads, llama3 RoPE scaling whose three bands
                  are all hit; config.json with the classic keys rope_theta and rope_scaling.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from golden_common import provenance

LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def randomise(model, seed: int, std: float = 0.2) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(1 + 0.3 * noise if "norm" in name else std * noise)


def write_logits(folder: Path, length: int, positions: list[int], seed: int) -> torch.Tensor:
    """Loads the checkpoint back as a user would and stores the logits of a few positions."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(model.config.vocab_size, (1, length), generator=generator)
    with torch.no_grad():
        output = model.eval()(ids, output_hidden_states=True)
    files = {f"{folder.name}/{f.name}": f for f in sorted(folder.glob("*.safetensors"))}
    meta = provenance("tiny", ["transformers", "torch", "safetensors"], files)
    at = torch.tensor(positions)
    target = folder.parent / f"{folder.name}_logits.safetensors"
    save_file(
        {
            "input_ids": ids[0],
            "positions": at,
            "logits": output.logits[0, at].contiguous(),
            "last_position_hidden": torch.stack([h[0, -1] for h in output.hidden_states]),
        },
        str(target),
        metadata={key: json.dumps(value) for key, value in meta.items()},
    )
    logits = output.logits[0]
    print(
        f"{target}: {target.stat().st_size} bytes; logits std {logits.std():.2f}, "
        f"{len(set(logits.argmax(-1).tolist()))} distinct argmax in {length}"
    )
    return ids


def difference_without_scaling(folder: Path, ids: torch.Tensor) -> float:
    """How far the logits move if a reader ignores rope_scaling: the fixture must notice."""
    load = lambda **kw: AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", **kw
    ).eval()
    plain = LlamaConfig.from_pretrained(folder)
    plain.rope_parameters = {"rope_type": "default", "rope_theta": 10000.0}
    with torch.no_grad():
        return (load()(ids).logits - load(config=plain)(ids).logits).abs().max().item()


def tiny_llama(out: Path) -> None:
    folder = out / "tiny_llama"
    shutil.rmtree(folder, ignore_errors=True)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    randomise(model, seed=1)
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="200KB")
    shards = sorted(f.name for f in folder.glob("*.safetensors"))
    assert len(shards) == 2, shards
    write_logits(folder, length=48, positions=[0, 20, 47], seed=11)


def tiny_llama3_rope(out: Path) -> None:
    folder = out / "tiny_llama3_rope"
    shutil.rmtree(folder, ignore_errors=True)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        max_position_embeddings=512,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        rope_parameters=LLAMA3_SCALING | {"rope_theta": 10000.0},
    )
    model = LlamaForCausalLM(config)
    randomise(model, seed=2)
    model.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    for key in ("rope_parameters", "dtype"):
        written.pop(key)
    written |= {"rope_theta": 10000.0, "rope_scaling": LLAMA3_SCALING, "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
    ids = write_logits(folder, length=200, positions=[0, 63, 64, 130, 199], seed=12)
    moved = difference_without_scaling(folder, ids)
    assert moved > 0.1, moved
    print(f"without rope_scaling the logits move by up to {moved:.2f}")


def make(out: Path) -> None:
    tiny_llama(out)
    tiny_llama3_rope(out)
