#!/usr/bin/env python3
"""Quantized matrices packed and dequantized by the packages whose formats they are.

    /path/to/venv/bin/python tools/make_quantized_fixtures.py --part bitsandbytes

Each part wants a virtual environment of its own, as the packages ask for different versions of
transformers: tools/requirements-{bitsandbytes-compressed-tensors,gptq,awq}.txt. Writes tests/golden/quantized/CASE.safetensors:
the tensors of one module "m" as a checkpoint would hold them, and "dequantized", the package's own
result in the type it computes in. The metadata has the quantization_config, the packages and the
sha256 of the random weights.
"""

import argparse
import hashlib
import json
import platform
from importlib import metadata
from pathlib import Path

import torch
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parent.parent / "tests" / "golden" / "quantized"


def weights(rows, columns, seed, dtype=torch.float16):
    """Random rows of unlike sizes with a few large columns, as trained matrices have."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(rows, columns, generator=generator) * 0.05
    w *= torch.rand(rows, 1, generator=generator) + 0.25
    w[:, torch.randint(columns, (3,), generator=generator)] *= 6
    return w.to(dtype)


def save(part, packages, case, config, source, tensors, dequantized):
    raw = source.contiguous().view(torch.uint8).numpy().tobytes()
    meta = {
        "command": f"tools/make_quantized_fixtures.py --part {part}",
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "sha256": {"weights": hashlib.sha256(raw).hexdigest()},
        "shape": list(source.shape),
        "quantization_config": config,
    }
    named = {f"m.{name}": tensor.contiguous() for name, tensor in tensors.items()}
    assert dequantized.shape == source.shape, (dequantized.shape, source.shape)
    named["dequantized"] = dequantized.contiguous()
    OUT.mkdir(parents=True, exist_ok=True)
    target = OUT / f"{case}.safetensors"
    save_file(named, str(target), metadata={k: json.dumps(v) for k, v in meta.items()})
    error = (dequantized.float() - source.float()).abs().median().item()
    print(f"{target.name}: {target.stat().st_size} bytes, median error {error:.4f}")
    assert error < 0.03, case


def bitsandbytes():
    import bitsandbytes.functional as F
    from bitsandbytes.backends.default.ops import _dequantize_4bit_compute

    def nf4(case, rows, columns, dtype, nested, storage=torch.uint8):
        w = weights(rows, columns, len(case), dtype)
        packed, state = F.quantize_4bit(
            w, blocksize=64, compress_statistics=nested, quant_type="nf4", quant_storage=storage
        )
        tensors = {f"weight.{k}": v for k, v in state.as_dict(packed=True).items()}
        tensors["weight"] = packed
        config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False}
        config |= {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": nested}
        result = F.dequantize_4bit(packed, state)
        if columns % 64 != 0:
            # Blocks run across rows; the CPU kernel of 0.50.2 starts each row with a new one,
            # unlike the quantizer, the CUDA kernels and this plain form of the same package.
            result = _dequantize_4bit_compute(
                packed.flatten(), state.absmax, state.code, 64, w.shape, dtype
            )
        save("bitsandbytes", ["bitsandbytes", "torch"], case, config, w, tensors, result)

    nf4("bnb_nf4", 40, 128, torch.float16, nested=False)
    nf4("bnb_nf4_nested", 192, 320, torch.float16, nested=True)
    nf4("bnb_nf4_across_rows", 33, 96, torch.float32, nested=False)
    nf4("bnb_nf4_nested_bf16_storage", 24, 64, torch.bfloat16, nested=True, storage=torch.bfloat16)

    w = weights(40, 72, 8)
    codes, scb, _ = F.int8_vectorwise_quant(w)
    tensors = {"weight": codes, "SCB": scb, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    config = {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": 6.0}
    result = F.int8_vectorwise_dequant(codes, scb).to(w.dtype)  # as LLM.int8() does
    save("bitsandbytes", ["bitsandbytes", "torch"], "bnb_int8", config, w, tensors, result)


def compressed_tensors():
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams

    def make(case, rows, columns, layout, activations=None, **args):
        w = weights(rows, columns, len(case), torch.float32)
        quantization = QuantizationArgs(type="int", **args)
        group = args.get("group_size") or columns
        blocks = w.view(rows, columns // group, group)
        scale, zero = calculate_qparams(blocks.amin(-1), blocks.amax(-1), quantization)
        scheme = QuantizationScheme(
            targets=["Linear"], weights=quantization, input_activations=activations
        )
        state = {"weight": w, "weight_scale": scale, "weight_zero_point": zero}
        compressor = BaseCompressor.get_value_from_registry(layout)
        tensors = compressor.compress(state, scheme)
        result = compressor.decompress(dict(tensors), scheme)["weight"]
        if activations is not None:
            tensors["input_scale"] = torch.tensor([0.03125])
        group_config = scheme.model_dump(mode="json")
        config = {
            "quant_method": "compressed-tensors",
            "format": layout,
            "config_groups": {"group_0": group_config | {"format": layout}},
            "ignore": ["lm_head"],
        }
        packages = ["compressed-tensors", "torch"]
        save("compressed-tensors", packages, case, config, w, tensors, result)

    packed = "pack-quantized"
    make("ct_int4_symmetric", 40, 96, packed, num_bits=4, strategy="group", group_size=32)
    make("ct_int4_zero_points", 44, 192, packed, num_bits=4, strategy="group", group_size=64,
         symmetric=False)  # fmt: skip
    make("ct_int3_per_row", 20, 72, packed, num_bits=3, strategy="channel")
    make("ct_int8_per_row_zeros", 20, 40, packed, num_bits=8, strategy="channel", symmetric=False)
    static = QuantizationArgs(num_bits=8, type="int", strategy="tensor", dynamic=False)
    make("ct_int8_static", 24, 40, "int-quantized", activations=static, num_bits=8,
         strategy="channel")  # fmt: skip


def gptq():
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization import QuantizeConfig
    from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module

    def make(case, rows, columns, bits, group, zeros="any", act_order=False, version=1):
        w = weights(rows, columns, len(case))
        generator = torch.Generator().manual_seed(len(case))
        groups = (columns + group - 1) // group
        g_idx = (torch.arange(columns) // group).to(torch.int32)
        if act_order:
            g_idx = g_idx[torch.randperm(columns, generator=generator)]
        top = 2**bits - 1
        scales = torch.empty(rows, groups)
        zero = torch.empty(rows, groups)
        for i in range(groups):
            part = w[:, g_idx == i].float()
            if zeros == "symmetric":
                scales[:, i] = part.abs().amax(1) * 2 / top
                zero[:, i] = 2 ** (bits - 1)
            else:
                low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
                low[::7] = 0  # zero points of 0 wrap around in version 1
                scales[:, i] = (high - low) / top
                zero[:, i] = torch.round(-low / scales[:, i])
        linear = torch.nn.Linear(columns, rows, bias=False)
        linear.weight.data = w.float()
        layer = TorchLinear(
            bits=bits, group_size=group, sym=zeros == "symmetric", desc_act=act_order,
            in_features=columns, out_features=rows, bias=False, pack_dtype=torch.int32,
        )  # fmt: skip
        layer.pack_block(linear, scales, zero.to(torch.int32), g_idx)
        result = layer.dequantize_weight().T.to(torch.float16)
        config = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": act_order,
                  "sym": zeros == "symmetric", "checkpoint_format": "gptq_v2"}  # fmt: skip
        if version == 1:
            convert_gptq_v2_to_v1_format_module(layer, QuantizeConfig(bits=bits))
            config["checkpoint_format"] = "gptq"
        tensors = {k: getattr(layer, k) for k in ("qweight", "qzeros", "scales", "g_idx")}
        save("gptq", ["gptqmodel", "torch"], case, config, w, tensors, result)

    make("gptq_int4_zero_wraps", 64, 160, 4, 32)
    make("gptq_v2_int4", 64, 128, 4, 64, version=2)
    make("gptq_int4_symmetric", 32, 128, 4, 128, zeros="symmetric")
    make("gptq_int4_act_order", 96, 192, 4, 64, act_order=True)
    make("gptq_int3", 96, 160, 3, 32)
    make("gptq_int3_act_order", 64, 192, 3, 64, act_order=True)
    make("gptq_v2_int3", 32, 96, 3, 32, version=2)
    make("gptq_int8", 32, 96, 8, 32)


def awq():
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.utils.packing_utils import dequantize_gemm

    def make(case, rows, columns, group):
        w = weights(rows, columns, len(case))
        blocks = w.view(rows, columns // group, group)
        low, high = blocks.amin(-1), blocks.amax(-1)
        scales = (high - low).clamp(min=1e-5) / 15
        zeros = (-torch.round(low / scales)).clamp(0, 15)
        linear = torch.nn.Linear(columns, rows, bias=False).half()
        linear.weight.data = w
        layer = WQLinear_GEMM.from_linear(
            linear, 4, group, False, scales.t().contiguous(), zeros.t().contiguous()
        )
        tensors = {k: getattr(layer, k) for k in ("qweight", "qzeros", "scales")}
        result = dequantize_gemm(layer.qweight, layer.qzeros, layer.scales, 4, group).T
        config = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True,
                  "version": "gemm", "modules_to_not_convert": None}  # fmt: skip
        save("awq", ["autoawq", "torch"], case, config, w, tensors, result)

    make("awq_g32", 64, 96, 32)
    make("awq_g128", 32, 256, 128)


PARTS = {"bitsandbytes": bitsandbytes, "compressed-tensors": compressed_tensors, "gptq": gptq,
         "awq": awq}  # fmt: skip


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--part", choices=PARTS, required=True)
    PARTS[p.parse_args().part]()


if __name__ == "__main__":
    main()
