#!/usr/bin/env python3
"""Quantise one small model in every way that `etx lower --quantize` knows, with torchao and ExecuTorch's MLX lowering: tests/fixtures/quantized.

usage: make_quantized.py [OUT_DIR [FORMAT ...]]      (needs torch 2.15, torchao 0.18 and executorch 1.5.1; FORMATs are put beside what is there)

  <dtype>.pt2          the model, not quantised
  <dtype>.safetensors  its inputs, `input.<i>`, and for each format
                       `<format>|<key>`          what ExecuTorch's file holds under this key: codes as packed for MLX, scales, biases
                       `<format>|output.<i>`     what the quantised model answers in eager PyTorch

Formats are named as the rules of `--quantize` name them. MXFP4, for which ExecuTorch has no tensor class, has torchao's own codes and scales; three bits, which ExecuTorch does not pack, and experts, of which it packs four bits only,
are packed here: as a stream of codes, the first in the lowest bits of the first byte.
"""
import pathlib
import sys

import executorch.backends.mlx.custom_ops  # noqa: F401  registers mlx::*
import torch
from executorch.backends.mlx import MLXPartitioner
from executorch.backends.mlx.passes import get_default_passes
from executorch.backends.mlx.llm.switch import SwitchLinear
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
from executorch.exir._serialize._program import deserialize_pte_binary
from executorch.extension.llm.export.mx import ExportableMXConfig
from executorch.extension.llm.export.nvfp4 import ExportableNVFP4Config
from safetensors.torch import load_file, save_file
from torchao.prototype.mx_formats.mx_tensor import MXTensor
from torchao.quantization import IntxWeightOnlyConfig, MappingType, quantize_
from torchao.quantization.granularity import PerAxis, PerGroup

import programs

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
MAPPINGS = {"symmetric": MappingType.SYMMETRIC, "asymmetric": MappingType.ASYMMETRIC}


class Layers(torch.nn.Module):
    """An embedding, two linear layers and experts side by side: groups of all sizes, and rows whose sums go in cascades."""

    def __init__(self, dtype):
        super().__init__()
        self.embed = torch.nn.Embedding(16, 128)
        self.narrow = torch.nn.Linear(256, 16)
        self.wide = torch.nn.Linear(1056, 16, bias=False)
        self.experts = SwitchLinear(128, 16, 3)
        generator = torch.Generator().manual_seed(26)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5
        w = self.narrow.weight.data
        w[0] = 0
        w[1, 64:128] = 0
        w[2, ::37] *= 60
        w[3] = 0.1
        w[4] *= 1e-6
        w[5] *= 1e4
        w[6] = torch.arange(256) % 17 * 0.5 - 4
        w[7] = w[7].abs()
        w[8] = -w[8].abs() - 1
        w[9] *= 1e-38
        self.embed.weight.data[3] = 0
        self.wide.weight.data[5, 7] = 3
        self.to(dtype)

    def forward(self, tokens, x, y, z, chosen):
        if self.experts is None:
            return self.embed(tokens), self.narrow(x), self.wide(y)
        return self.embed(tokens), self.narrow(x), self.wide(y), self.experts(z, chosen)


def formats(dtype):
    for bits in (2, 3, 4, 5, 6, 8):
        for group in (32, 64, 128, "row"):
            for method in ("hqq", "symmetric", "asymmetric"):
                # All groups in the usual widths and methods; one of the others is enough.
                if group in (32, "row") and method == "hqq" or bits in (4, 8) and (method == "hqq" or group == 64) or group == 32 and bits == 2:
                    yield f"{bits}w:{group}" + (f":{method}" if method != "hqq" else "")
    if dtype != "f16":
        yield "nvfp4"
    yield "mxfp4"
    yield "mxfp8"


def config(name):
    if name == "nvfp4":
        return ExportableNVFP4Config(use_per_tensor_scale=False)
    if name == "mxfp8":
        return ExportableMXConfig()
    width, group, *method = name.split(":")
    chosen = dict(intx_choose_qparams_algorithm="hqq_scale_only") if not method else dict(mapping_type=MAPPINGS[method[0]])
    granularity = PerAxis(0) if group == "row" else PerGroup(int(group))
    return IntxWeightOnlyConfig(weight_dtype=getattr(torch, f"int{width[:-1]}"), granularity=granularity, **chosen)


def fits(name, module):
    parts = name.split(":")
    return parts[-1] == "row" or len(parts) == 1 or parts[1] == "row" or module.weight.shape[1] % int(parts[1]) == 0


def packed(codes, bits):
    """Signed codes as a stream of unsigned ones, the first in the lowest bits of the first byte."""
    unsigned = codes.to(torch.int64) + (1 << bits - 1)
    stream = (unsigned.unsqueeze(-1) >> torch.arange(bits) & 1).flatten(-2).unflatten(-1, (-1, 8))
    return (stream << torch.arange(8)).sum(-1).to(torch.uint8)


def expert_constants(experts, name):
    """Codes, scales and biases of a stack of quantised matrices, by key."""
    weights = [e.weight for e in experts]
    stem = "experts.parametrizations.weight.original"
    scale = torch.stack([w.scale.view(torch.uint8) if name in ("nvfp4", "mxfp8") else w.scale for w in weights])
    if name in ("nvfp4", "mxfp8"):
        return {f"{stem}0_to_packed": torch.stack([w.qdata.view(torch.uint8) for w in weights]), f"{stem}1": scale}
    bits = int(name[0])
    zero = torch.stack([w.zero_point for w in weights])
    biases = -(scale * (zero.to(scale.dtype) + (1 << bits - 1)))
    return {f"{stem}0_to_packed": packed(torch.stack([w.qdata for w in weights]), bits),
            f"{stem}1": scale.contiguous().view(torch.uint8), f"{stem}2_to_biases": biases.contiguous().view(torch.uint8)}


def constants(program, model, name):
    """What ExecuTorch's file holds, by key."""
    if name.startswith("3w"):
        found = {}
        for layer, module in model.named_modules():
            if hasattr(getattr(module, "weight", None), "qdata"):
                stem = f"{layer}.parametrizations.weight.original"
                times = module.weight.block_size[1] // next(g for g in (128, 64, 32) if module.weight.block_size[1] % g == 0)
                found[f"{stem}0_to_packed"] = packed(module.weight.qdata, 3)
                found[f"{stem}1"] = module.weight.scale.repeat_interleave(times, -1).contiguous().view(torch.uint8)
        return found
    passes = [] if name in ("nvfp4", "mxfp8") else get_default_passes()
    lowered = to_edge_transform_and_lower(
        program, partitioner=[MLXPartitioner()], transform_passes=passes,
        compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True)).to_executorch()
    data = deserialize_pte_binary(lowered.buffer).named_data
    found = {}
    for key, entry in data.pte_data.items():
        content = bytes(data.buffers[entry.buffer_index])
        key = key.split("/")[-1]
        if ".weight." in key:
            found[key] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return found


def mxfp4(layers):
    """What torchao makes of all weights, by key; the layers get the numbers that this stands for."""
    found = {}
    weights = [(name, m) for name, m in layers.named_modules() if isinstance(m, (torch.nn.Linear, torch.nn.Embedding))]
    for name, layer in weights:
        w = layer.weight.data
        made = MXTensor.to_mx(w if w.dtype == torch.bfloat16 else w.float(), torch.float4_e2m1fn_x2, 32)
        layer.weight.data = made.dequantize(torch.float32).to(w.dtype)
        found[name] = made.qdata, made.scale.view(torch.uint8)
    experts = [found.pop(name) for name, _ in weights if name.startswith("experts.")]
    found["experts"] = tuple(torch.stack(parts) for parts in zip(*experts))
    keys = {name: ("_to_packed", "") if name == "experts" else ("_mx_packed", "_mx_u8") for name in found}
    return {f"{name}.parametrizations.weight.original{i}{keys[name][i]}": part for name, parts in found.items() for i, part in enumerate(parts)}


@torch.no_grad()
def main():
    only = sys.argv[2:]
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent / "fixtures" / "quantized")
    out.mkdir(parents=True, exist_ok=True)
    for dtype_name, dtype in DTYPES.items():
        generator = torch.Generator().manual_seed(4)
        inputs = (torch.tensor([[3, 0, 15, 7]]), *(torch.randn(3, n, generator=generator).to(dtype) for n in (256, 1056)),
                  torch.randn(4, 1, 128, generator=generator).to(dtype), torch.tensor([2, 0, 2, 1]))
        plain = Layers(dtype).eval()
        plain.experts.pack()
        programs.save(torch.export.export(plain, inputs), out / f"{dtype_name}.pt2")
        tensors = load_file(out / f"{dtype_name}.safetensors") if only else {}
        tensors.update({f"input.{i}": t for i, t in enumerate(inputs)})
        for name in formats(dtype_name):
            if only and name not in only:
                continue
            model = Layers(dtype).eval()
            if name == "mxfp4":
                found = mxfp4(model)
                experts, model.experts = model.experts, None
                outputs = (*model(*inputs), torch.stack([experts.experts[e](row) for e, row in zip(inputs[4], inputs[3])]))
                tensors.update({f"{name}|{key}": value.contiguous() for key, value in found.items()})
                tensors.update({f"{name}|output.{i}": value.contiguous() for i, value in enumerate(outputs)})
                continue
            quantize_(model, config(name), lambda m, _: isinstance(m, (torch.nn.Linear, torch.nn.Embedding)) and fits(name, m))
            experts, model.experts = model.experts, None
            found = {**constants(torch.export.export(model, inputs), model, name), **expert_constants(experts.experts, name)}
            outputs = (*model(*inputs), torch.stack([experts.experts[e](row) for e, row in zip(inputs[4], inputs[3])]))
            if name[:2] == "4w" and "asymmetric" not in name:
                # What ExecuTorch's own packing of experts gives.
                experts.pack()
                assert torch.equal(experts.qdata, found["experts.parametrizations.weight.original0_to_packed"])
                assert (experts(inputs[3], inputs[4]).float() - outputs[3].float()).abs().max() < 1e-2
            for key, value in found.items():
                tensors[f"{name}|{key}"] = value.contiguous()
            for i, value in enumerate(outputs):
                tensors[f"{name}|output.{i}"] = value.contiguous()
            print(dtype_name, name, sum(k.startswith(name + "|") for k in tensors))
        save_file(tensors, out / f"{dtype_name}.safetensors")


if __name__ == "__main__":
    main()
