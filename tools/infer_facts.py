#!/usr/bin/env python3
"""Writes what eager PyTorch answers behind every call of ir/src/infer/facts.txt.

A line is `target(arguments) -> results`; add a line without results and run this file:

    python tools/infer_facts.py ir/src/infer/facts.txt

Tensors are written by element type and sizes (`f32[2, 3]`, `i64[]`) and hold ones, on the CPU where eager kernels
exist, else on the meta device. `error` stands for a call that is refused.
"""

import importlib
import re
import sys
import warnings

import torch

warnings.filterwarnings("ignore")
for module in [
    "torch.ao.quantization.fx._decomposed",
    "torchao",
    "executorch.backends.mlx.custom_ops",
    "executorch.backends.mlx.custom_kernel_ops.gated_delta_rule",
    "executorch.backends.mlx.custom_kernel_ops.tq4_compress",
    "executorch.backends.mlx.custom_kernel_ops.tq_dequant",
    "executorch.backends.mlx.custom_kernel_ops.tq_norm",
    "executorch.extension.llm.export.int4",
    "executorch.extension.llm.export.gguf",
]:
    try:
        importlib.import_module(module)
    except ImportError as missing:
        print(f"{module}: {missing}; calls of its operators keep their results", file=sys.stderr)

NAMES = {
    "u8": torch.uint8, "i8": torch.int8, "i16": torch.int16, "i32": torch.int32, "i64": torch.int64,
    "u16": torch.uint16, "u32": torch.uint32, "u64": torch.uint64, "bool": torch.bool,
    "f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32, "f64": torch.float64,
    "c32": torch.complex32, "c64": torch.complex64, "c128": torch.complex128,
    "f8e4m3": torch.float8_e4m3fn, "f8e8m0": torch.float8_e8m0fnu,
}  # fmt: skip
SHORT = {dtype: name for name, dtype in NAMES.items()}


class Maker:
    """`f32[2, 3]` in a line: a tensor."""

    def __init__(self, dtype, device):
        self.dtype, self.device = dtype, device

    def __getitem__(self, sizes):
        sizes = sizes if isinstance(sizes, tuple) else (sizes,)
        if self.dtype.is_floating_point and self.dtype.itemsize == 1:
            return torch.empty(sizes, dtype=self.dtype, device=self.device)
        return torch.ones(sizes, dtype=self.dtype, device=self.device)


def call(text, device):
    target, arguments = re.fullmatch(r"([\w.]+)\((.*)\)", text).groups()
    namespace, name, overload = target.rsplit(".", 2)
    operator = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    # A bare element type is an argument, one with sizes a tensor; Python has no empty index.
    arguments = re.sub(r"\b(%s)\[\]" % "|".join(NAMES), r"\1[()]", arguments)
    arguments = re.sub(r"\b(%s)\b(?!\[)" % "|".join(NAMES), r"_\1", arguments)
    scope = {name: Maker(dtype, device) for name, dtype in NAMES.items()}
    scope |= {f"_{name}": dtype for name, dtype in NAMES.items()}
    results = eval(f"operator({arguments})", {"operator": operator} | scope)
    return list(results) if isinstance(results, (tuple, list)) else [results]


def spelled(result):
    if isinstance(result, torch.Tensor):
        return f"{SHORT[result.dtype]}{list(result.shape)}"
    return "list" if isinstance(result, (tuple, list)) else str(result)


def flat(results):
    for result in results:
        yield from flat(result) if isinstance(result, (tuple, list)) else [result]


def answer(text):
    try:
        return ", ".join(map(spelled, flat(call(text, "cpu"))))
    except (NotImplementedError, AttributeError, ImportError) as missing:
        reason = missing
    except Exception as refused:
        if "not implemented for" not in str(refused):
            return "error"
        reason = refused
    try:
        return ", ".join(map(spelled, flat(call(text, "meta"))))
    except AttributeError:
        return None
    except Exception:
        print(f"{text}: {reason}", file=sys.stderr)
        return "error"


def main(path):
    lines = []
    for line in open(path).read().splitlines():
        # An einsum has an arrow of its own.
        text, _, known = line.partition(") -> ")
        text = text.removesuffix(")") + ")"
        if line and not line.startswith("#"):
            found = answer(text)
            line = f"{text} -> {known if found is None else found}"
        lines.append(line)
    open(path, "w").write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
