"""A model that takes seconds to load, so that a test can look at a worker that does."""

import json
import os
import shutil
import struct

from tests.operate.cluster import MODEL


def large_zero_model(folder):
    """A model of 1.2 GB that takes no room on the disk and seconds to quantize."""
    hidden, layers, inner, vocabulary = 1024, 16, 4096, 1000
    shapes = {"model.embed_tokens.weight": [vocabulary, hidden],
              "model.norm.weight": [hidden], "lm_head.weight": [vocabulary, hidden]}
    for i in range(layers):
        at = f"model.layers.{i}."
        shapes |= {at + "input_layernorm.weight": [hidden],
                   at + "post_attention_layernorm.weight": [hidden]}
        shapes |= {at + f"self_attn.{n}_proj.weight": [hidden, hidden] for n in "qkvo"}
        shapes |= {at + "mlp.gate_proj.weight": [inner, hidden],
                   at + "mlp.up_proj.weight": [inner, hidden],
                   at + "mlp.down_proj.weight": [hidden, inner]}
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    model = os.path.join(folder, "large")
    os.mkdir(model)
    text = json.dumps(header).encode()
    with open(os.path.join(model, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    with open(os.path.join(MODEL, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    config |= {"hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": inner,
               "vocab_size": vocabulary, "num_attention_heads": 16, "num_key_value_heads": 16,
               "head_dim": hidden // 16, "tie_word_embeddings": False}
    with open(os.path.join(model, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(MODEL, name), model)
    return model
