#!/usr/bin/env python3
"""A Llama checkpoint of any shape with seeded random weights, for measuring speed.

    python3 tools/random_checkpoint.py --shape 1.1b --format gptq4 --group-size 32 --out DIR

Writes config.json, model.safetensors and a tokenizer as Hugging Face has them, in one pass and
little memory; the standard library is enough. No matrix is zero, and matrices are scaled so that
activations stay of one size. The answers are nonsense; bytes and operations are a real model's.

Formats: f32, f16, bf16; gptq4 (symmetric) and awq4 (random zero points) in groups of
--group-size; int8 (compressed-tensors "int-quantized", one scale per output channel). Embedding
and head of the packed formats are f16, as published; --quantize-head packs a GPTQ head too.
"""

import argparse
import json
import math
import random
import struct
import sys
from pathlib import Path

PROSE = Path(__file__).resolve().parent.parent / "models" / "prose"
PIECE = 1 << 20  # elements made at once

SHAPES = {
    "tiny": {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 256,
        "vocab_size": 4128,
    },
    "1.1b": {
        "hidden_size": 2048,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "intermediate_size": 5632,
        "vocab_size": 32000,
    },
    "7b": {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "intermediate_size": 11008,
        "vocab_size": 32000,
    },
}

# bytes of an element, and how many low exponent bits stand in the byte below the highest
FLOATS = {"f16": ("F16", 2, 15, 10), "bf16": ("BF16", 2, 127, 7), "f32": ("F32", 4, 127, 23)}


def float_pieces(rng, kind, count, size):
    """Random signs and mantissas, magnitudes in [size, 2 * size)."""
    _, width, bias, mantissa = FLOATS[kind]
    exponent = max(1, bias + math.floor(math.log2(size)))
    fixed = exponent << mantissa  # an element with an empty mantissa
    keep = 1 << (8 * width - 1) | (1 << mantissa) - 1  # bits that are random: sign and mantissa
    tables = []
    for byte in range(width):
        mask, value = keep >> (8 * byte) & 255, fixed >> (8 * byte) & 255
        tables.append(bytes(b & mask | value for b in range(256)))
    while count > 0:
        elements = min(count, PIECE)
        piece = bytearray(elements * width)
        for byte, table in enumerate(tables):
            piece[byte::width] = rng.randbytes(elements).translate(table)
        yield piece
        count -= elements


def byte_pieces(rng, count, table=None):
    while count > 0:
        size = min(count, PIECE)
        piece = rng.randbytes(size)
        yield piece.translate(table) if table else piece
        count -= size


def repeated(word, count):
    yield word * count


class Writer:
    """Tensors are described first and made while the file is written."""

    def __init__(self, path, seed):
        self.path, self.seed = path, seed
        self.header, self.pieces, self.end = {}, [], 0

    def add(self, name, dtype, shape, width, pieces):
        size = math.prod(shape) * width
        self.header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [self.end, self.end + size],
        }
        self.pieces.append((name, size, pieces))
        self.end += size

    def floats(self, name, shape, kind, size):
        self.add(
            name,
            FLOATS[kind][0],
            shape,
            FLOATS[kind][1],
            lambda rng: float_pieces(rng, kind, math.prod(shape), size),
        )

    def write(self):
        text = json.dumps(self.header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(self.path, "wb") as file:
            file.write(struct.pack("<Q", len(text)))
            file.write(text)
            for name, size, pieces in self.pieces:
                start = file.tell()
                for piece in pieces(random.Random(f"{self.seed} {name}")):
                    file.write(piece)
                assert file.tell() - start == size, name


def gptq4(writer, name, rows, columns, group):
    writer.add(
        f"{name}.qweight",
        "I32",
        (columns // 8, rows),
        4,
        lambda rng: byte_pieces(rng, columns * rows // 2),
    )
    groups = -(-columns // group)
    zeros = groups * rows // 8
    writer.add(
        f"{name}.qzeros",
        "I32",
        (groups, rows // 8),
        4,
        lambda rng: repeated(b"\x77\x77\x77\x77", zeros),
    )
    # Codes of 4 bits less their zero point have a root mean square of 4.6; a scale's mantissa
    # is 1.5 on average.
    scale = 1 / math.sqrt(columns) / 4.6 / 1.5
    writer.add(
        f"{name}.scales", "F16", (groups, rows), 2, lambda rng: positive(rng, groups * rows, scale)
    )


def awq4(writer, name, rows, columns, group):
    writer.add(
        f"{name}.qweight",
        "I32",
        (columns, rows // 8),
        4,
        lambda rng: byte_pieces(rng, columns * rows // 2),
    )
    groups = columns // group
    near_middle = bytes(0x66 + (b & 0x33) for b in range(256))  # zero points 6 to 9
    writer.add(
        f"{name}.qzeros",
        "I32",
        (groups, rows // 8),
        4,
        lambda rng: byte_pieces(rng, groups * rows // 2, near_middle),
    )
    scale = 1 / math.sqrt(columns) / 4.6 / 1.5
    writer.add(
        f"{name}.scales", "F16", (groups, rows), 2, lambda rng: positive(rng, groups * rows, scale)
    )


def int8(writer, name, rows, columns, _):
    no_zero = bytes((b or 1) if b != 128 else 127 for b in range(256))
    writer.add(
        f"{name}.weight",
        "I8",
        (rows, columns),
        1,
        lambda rng: byte_pieces(rng, rows * columns, no_zero),
    )
    scale = 1 / math.sqrt(columns) / 73 / 1.5
    writer.add(f"{name}.weight_scale", "F16", (rows, 1), 2, lambda rng: positive(rng, rows, scale))


def positive(rng, count, size):
    """f16 without a sign; `size` may be below f16's smallest normal number, which then stands."""
    for piece in float_pieces(rng, "f16", count, size):
        piece[1::2] = piece[1::2].translate(bytes(b & 127 for b in range(256)))
        yield piece


PACKED = {"gptq4": gptq4, "awq4": awq4, "int8": int8}


def quantization_config(options):
    if options.format == "gptq4":
        return {
            "quant_method": "gptq",
            "bits": 4,
            "group_size": options.group_size,
            "desc_act": False,
            "sym": True,
            "checkpoint_format": "gptq",
            "lm_head": options.quantize_head,
        }
    if options.format == "awq4":
        return {
            "quant_method": "awq",
            "bits": 4,
            "group_size": options.group_size,
            "zero_point": True,
            "version": "gemm",
        }
    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head"],
    }


def describe(writer, config, options):
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    head_dim = config["head_dim"]
    q, kv = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    number = options.format if options.format in FLOATS else "f16"

    def matrix(name, rows, columns):
        if options.format in PACKED:
            PACKED[options.format](writer, name, rows, columns, options.group_size)
        else:
            writer.floats(f"{name}.weight", (rows, columns), number, 0.65 / math.sqrt(columns))

    def gains(name):
        writer.add(f"{name}.weight", "F16", (hidden,), 2, lambda rng: positive(rng, hidden, 0.6))

    writer.floats("model.embed_tokens.weight", (config["vocab_size"], hidden), number, 0.65)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        gains(f"{at}.input_layernorm")
        for name, rows in (("q_proj", q), ("k_proj", kv), ("v_proj", kv)):
            matrix(f"{at}.self_attn.{name}", rows, hidden)
        matrix(f"{at}.self_attn.o_proj", hidden, q)
        gains(f"{at}.post_attention_layernorm")
        matrix(f"{at}.mlp.gate_proj", ffn, hidden)
        matrix(f"{at}.mlp.up_proj", ffn, hidden)
        matrix(f"{at}.mlp.down_proj", hidden, ffn)
    gains("model.norm")
    if options.quantize_head:
        gptq4(writer, "lm_head", config["vocab_size"], hidden, options.group_size)
    elif not config["tie_word_embeddings"]:
        writer.floats(
            "lm_head.weight", (config["vocab_size"], hidden), number, 0.65 / math.sqrt(hidden)
        )


def make_config(options):
    if options.config:
        given = json.loads(Path(options.config).read_text())
    else:
        given = dict(SHAPES[options.shape])
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "bos_token_id": 0,
        "eos_token_id": 1,
        "max_position_embeddings": options.context,
        **given,
    }
    config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
    config.setdefault("num_key_value_heads", config["num_attention_heads"])
    if options.layers:
        config["num_hidden_layers"] = options.layers
    if config["model_type"] != "llama":
        sys.exit(f"--config: model_type {config['model_type']}; only llama can be made")
    if options.format in PACKED:
        config["quantization_config"] = quantization_config(options)
    return config


def write_tokenizer(out, vocab_size):
    """The demo model's tokenizer; ids beyond its vocabulary get pieces that no text has."""
    tokenizer = json.loads((PROSE / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    if vocab_size < len(vocab):
        sys.exit(f"a vocabulary of {vocab_size}; the tokenizer has {len(vocab)}")
    for token in range(len(vocab), vocab_size):
        vocab[f"x{token}"] = token
    assert len(vocab) == vocab_size
    (out / "tokenizer.json").write_text(json.dumps(tokenizer))
    (out / "tokenizer_config.json").write_text((PROSE / "tokenizer_config.json").read_text())


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="1.1b")
    parser.add_argument("--config", help="a config.json to take the shape from instead")
    parser.add_argument("--layers", type=int, default=0, help="in the place of the shape's")
    parser.add_argument("--context", type=int, default=32768, help="max_position_embeddings")
    parser.add_argument("--format", choices=[*FLOATS, *PACKED], default="f16")
    parser.add_argument("--group-size", type=int, default=128)
    parser.add_argument("--quantize-head", action="store_true", help="gptq4 only")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", required=True)
    options = parser.parse_args(argv)
    if options.quantize_head and options.format != "gptq4":
        parser.error("--quantize-head is for --format gptq4")
    if options.group_size % 32 != 0 or options.group_size <= 0:
        parser.error(f"--group-size {options.group_size}; multiples of 32 are known")
    return options


def main(argv):
    options = parse(argv)
    config = make_config(options)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    writer = Writer(out / "model.safetensors", options.seed)
    describe(writer, config, options)
    write_tokenizer(out, config["vocab_size"])
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    writer.write()
    print(f"{out}: {writer.end} bytes of tensors, {options.format}")


if __name__ == "__main__":
    main(sys.argv[1:])
