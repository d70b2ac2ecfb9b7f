"""A small Llama in plain torch for training, and its export to the Hugging Face layout.

Weights of the layers are stacked ([layers, out, in]) so that the optimizer works on a few large
tensors; export() unstacks them under their Hugging Face names.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn


@dataclass
class Config:
    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 768
    num_layers: int = 8
    num_heads: int = 8
    num_kv_heads: int = 4
    head_dim: int = 32
    rope_theta: float = 10000.0
    max_positions: int = 1024
    rms_norm_eps: float = 1e-5
    dropout: float = 0.1


# canonical name here -> name in the checkpoint
MATRICES = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
GAINS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}


class Llama(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = c = config
        kv = c.num_kv_heads * c.head_dim
        shapes = {
            "q": (c.num_heads * c.head_dim, c.hidden_size),
            "k": (kv, c.hidden_size),
            "v": (kv, c.hidden_size),
            "o": (c.hidden_size, c.num_heads * c.head_dim),
            "gate": (c.intermediate_size, c.hidden_size),
            "up": (c.intermediate_size, c.hidden_size),
            "down": (c.hidden_size, c.intermediate_size),
        }
        for name, (rows, columns) in shapes.items():
            weight = torch.randn(c.num_layers, rows, columns) * columns**-0.5
            if name in ("o", "down"):  # what joins the residual stream starts small
                weight *= 0.1
            self.register_parameter(name, nn.Parameter(weight))
        for name in GAINS:
            self.register_parameter(name, nn.Parameter(torch.ones(c.num_layers, c.hidden_size)))
        self.final_norm = nn.Parameter(torch.ones(c.hidden_size))
        self.embedding = nn.Parameter(torch.randn(c.vocab_size, c.hidden_size) * 0.02)
        frequency = c.rope_theta ** (-torch.arange(0, c.head_dim, 2) / c.head_dim)
        angle = torch.outer(torch.arange(c.max_positions), frequency)  # [positions, head_dim / 2]
        self.register_buffer("cos", torch.cat([angle.cos()] * 2, -1), persistent=False)
        self.register_buffer("sin", torch.cat([angle.sin()] * 2, -1), persistent=False)

    def norm(self, x, gain):
        return F.rms_norm(x, (x.shape[-1],), gain, self.config.rms_norm_eps)

    def rotate(self, x):  # [batch, heads, tokens, head_dim]
        cos, sin = self.cos[: x.shape[2]].to(x.dtype), self.sin[: x.shape[2]].to(x.dtype)
        low, high = x.chunk(2, -1)
        return x * cos + torch.cat([-high, low], -1) * sin

    def drop(self, x):
        return F.dropout(x, self.config.dropout, self.training)

    def attention(self, x, w):
        c, (batch, tokens, _) = self.config, x.shape
        heads = lambda y, n: y.view(batch, tokens, n, c.head_dim).transpose(1, 2)
        q = self.rotate(heads(F.linear(x, w["q"]), c.num_heads))
        k = self.rotate(heads(F.linear(x, w["k"]), c.num_kv_heads))
        v = heads(F.linear(x, w["v"]), c.num_kv_heads)
        repeat = c.num_heads // c.num_kv_heads
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return F.linear(y.transpose(1, 2).reshape(batch, tokens, -1), w["o"])

    def mlp(self, x, w):
        return F.linear(F.silu(F.linear(x, w["gate"])) * F.linear(x, w["up"]), w["down"])

    def forward(self, tokens):  # [batch, tokens] -> hidden states [batch, tokens, hidden]
        x = self.drop(F.embedding(tokens, self.embedding))
        stacked = {name: getattr(self, name).unbind(0) for name in (*MATRICES, *GAINS)}
        for layer in range(self.config.num_layers):
            w = {name: stacked[name][layer] for name in stacked}
            x = x + self.drop(self.attention(self.norm(x, w["attention_norm"]), w))
            x = x + self.drop(self.mlp(self.norm(x, w["mlp_norm"]), w))
        return self.norm(x, self.final_norm)

    def loss(self, tokens, targets, reduction="mean"):
        logits = F.linear(self(tokens), self.embedding)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction=reduction)


def config_json(c: Config) -> dict:
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "hidden_size": c.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": c.intermediate_size,
        "max_position_embeddings": c.max_positions,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": c.num_heads,
        "num_hidden_layers": c.num_layers,
        "num_key_value_heads": c.num_kv_heads,
        "rms_norm_eps": c.rms_norm_eps,
        "rope_scaling": None,
        "rope_theta": c.rope_theta,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": c.vocab_size,
    }


def export(state: dict, config: Config, tokenizer, out: Path) -> None:
    """Writes config, f16 weights and tokenizer files; no optimizer state."""
    out.mkdir(parents=True, exist_ok=True)
    half = lambda t: t.detach().to(torch.float16).clone().contiguous()
    tensors = {
        "model.embed_tokens.weight": half(state["embedding"]),
        "model.norm.weight": half(state["final_norm"]),
    }
    for layer in range(config.num_layers):
        for ours, theirs in {**MATRICES, **GAINS}.items():
            tensors[f"model.layers.{layer}.{theirs}.weight"] = half(state[ours][layer])
    save_file(tensors, str(out / "model.safetensors"), metadata={"format": "pt"})
    write = lambda name, value: (out / name).write_text(json.dumps(value, indent=2) + "\n")
    write("config.json", config_json(config))
    write(
        "generation_config.json", {"_from_model_config": True, "bos_token_id": 0, "eos_token_id": 1}
    )
    tokenizer.save(str(out / "tokenizer.json"))
    write(
        "tokenizer_config.json",
        {
            "added_tokens_decoder": {
                str(i): {
                    "content": tokenizer.id_to_token(i),
                    "lstrip": False,
                    "normalized": False,
                    "rstrip": False,
                    "single_word": False,
                    "special": True,
                }
                for i in (0, 1)
            },
            "bos_token": tokenizer.id_to_token(0),
            "clean_up_tokenization_spaces": False,
            "eos_token": tokenizer.id_to_token(1),
            "model_max_length": config.max_positions,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
