#!/usr/bin/env python3
"""A Llama of any shape as a GGUF file with random weights, for measuring programs that read those.

    python3 tools/random_gguf.py --shape 1.1b --format q4_0 --out FILE.gguf

Formats: f16, q4_0 (head q6_K), q8_0, and q4_K_M in its mixture of q4_K and q6_K. Blocks are random
bytes with scales that keep activations finite. There is no vocabulary: benchmarks draw token ids.
"""

import argparse
import math
import random
import struct
import sys
from pathlib import Path

from random_checkpoint import SHAPES, float_pieces

ALIGNMENT = 32
PIECE_BLOCKS = 1 << 15
F32, F16, Q4_0, Q8_0, Q4_K, Q6_K = 0, 1, 2, 8, 12, 14

# elements and bytes of a block; where its f16 scales lie, and their size for weights of size 1
BLOCKS = {
    Q4_0: (32, 18, {0: 1 / 4.6}),
    Q8_0: (32, 34, {0: 1 / 73}),
    Q4_K: (256, 144, {0: 1 / 4.6 / 36, 2: 7.5 / 4.6 / 36}),
    Q6_K: (256, 210, {208: 1 / 18.5 / 73}),
}


def block_pieces(rng, kind, count, size):
    elements, width, scales = BLOCKS[kind]
    blocks = count // elements
    while blocks > 0:
        n = min(blocks, PIECE_BLOCKS)
        piece = bytearray(rng.randbytes(n * width))
        for at, scale in scales.items():
            low, high = struct.pack("<e", scale * size)
            piece[at::width] = bytes([low]) * n
            piece[at + 1 :: width] = bytes([high]) * n
        yield piece
        blocks -= n


def tensor_bytes(kind, count):
    if kind in BLOCKS:
        elements, width, _ = BLOCKS[kind]
        return count // elements * width
    return count * (4 if kind == F32 else 2)


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def metadata(shape, context):
    heads = shape["num_attention_heads"]
    numbers = {
        "llama.block_count": shape["num_hidden_layers"],
        "llama.context_length": context,
        "llama.embedding_length": shape["hidden_size"],
        "llama.feed_forward_length": shape["intermediate_size"],
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": shape["num_key_value_heads"],
        "llama.rope.dimension_count": shape["hidden_size"] // heads,
        "llama.vocab_size": shape["vocab_size"],
    }
    floats = {"llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 10000.0}
    texts = {
        "general.architecture": "llama",
        "general.name": "random",
        "tokenizer.ggml.model": "no_vocab",
    }
    entries = [text(key) + struct.pack("<II", 4, value) for key, value in numbers.items()]
    entries += [text(key) + struct.pack("<If", 6, value) for key, value in floats.items()]
    entries += [text(key) + struct.pack("<I", 8) + text(value) for key, value in texts.items()]
    return entries


def matrix_kind(name, layer, layers, form):
    if form == "f16":
        return F16
    if form == "q8_0":
        return Q8_0
    if name == "output":
        return Q6_K
    if form == "q4_0":
        return Q4_0
    eighth = layers // 8
    more = layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
    return Q6_K if name in ("attn_v", "ffn_down") and more else Q4_K


def tensors(shape, form):
    """(name, kind, rows, columns); rows 0 for a vector."""
    hidden, ffn = shape["hidden_size"], shape["intermediate_size"]
    kv = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    layers = shape["num_hidden_layers"]
    yield (
        "token_embd.weight",
        matrix_kind("token_embd", layers // 2, layers, form),
        shape["vocab_size"],
        hidden,
    )
    for layer in range(layers):
        sizes = {
            "attn_q": (hidden, hidden),
            "attn_k": (kv, hidden),
            "attn_v": (kv, hidden),
            "attn_output": (hidden, hidden),
            "ffn_gate": (ffn, hidden),
            "ffn_up": (ffn, hidden),
            "ffn_down": (hidden, ffn),
        }
        yield f"blk.{layer}.attn_norm.weight", F32, 0, hidden
        yield f"blk.{layer}.ffn_norm.weight", F32, 0, hidden
        for name, (rows, columns) in sizes.items():
            yield f"blk.{layer}.{name}.weight", matrix_kind(name, layer, layers, form), rows, columns
    yield "output_norm.weight", F32, 0, hidden
    yield "output.weight", matrix_kind("output", 0, layers, form), shape["vocab_size"], hidden


def write(path, shape, form, context, seed):
    described, all_tensors, end = [], list(tensors(shape, form)), 0
    for name, kind, rows, columns in all_tensors:
        dims = [columns] + ([rows] if rows else [])
        described.append(
            text(name)
            + struct.pack("<I", len(dims))
            + b"".join(struct.pack("<Q", dim) for dim in dims)
            + struct.pack("<IQ", kind, end)
        )
        end += -(-tensor_bytes(kind, columns * (rows or 1)) // ALIGNMENT) * ALIGNMENT
    entries = metadata(shape, context)
    with open(path, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(all_tensors), len(entries)))
        file.write(b"".join(entries) + b"".join(described))
        file.write(b"\0" * (-file.tell() % ALIGNMENT))
        for name, kind, rows, columns in all_tensors:
            rng = random.Random(f"{seed} {name}")
            count = columns * (rows or 1)
            size = 1 / math.sqrt(columns)
            if kind == F32:
                pieces = [struct.pack("<f", 1.0) * count]
            elif kind == F16:
                pieces = float_pieces(rng, "f16", count, 0.65 * size)
            else:
                pieces = block_pieces(rng, kind, count, size)
            for piece in pieces:
                file.write(piece)
            file.write(b"\0" * (-file.tell() % ALIGNMENT))


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="1.1b")
    parser.add_argument("--format", choices=["f16", "q4_0", "q8_0", "q4_K_M"], default="q4_0")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", required=True)
    options = parser.parse_args(argv)
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    write(options.out, SHAPES[options.shape], options.format, options.context, options.seed)
    print(f"{options.out}: {Path(options.out).stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
