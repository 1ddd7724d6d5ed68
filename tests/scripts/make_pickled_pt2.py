#!/usr/bin/env python3
"""Make programs whose weights are pickled tensor subclasses, of every class that etx reads: tests/fixtures/pickled-pt2.

usage: make_pickled_pt2.py [OUT_DIR]      (needs torch 2.15, torchao 0.18 and executorch 1.5.1)

  classes.pt2, classes.functional.pt2      one layer for each class; what torch's run_decompositions({}) makes of them
  uses.pt2, uses.functional.pt2            the ways to use such a weight: transposed, in another type, tied, in a region without gradients
  condition.pt2                            in a branch of a condition, which run_decompositions refuses
  nvfp4.pt2, nvfp4.plain.pt2               one weight as torchao's NVFP4Tensor (scales in tiles) and as ExecuTorch's (in rows)
"""
import pathlib
import sys

import torch
from executorch.extension.llm.export.gguf import ExportableGGUFTensor
from executorch.extension.llm.export.int4 import ExportableInt4Tensor
from executorch.extension.llm.export.mx import ExportableMXConfig
from executorch.extension.llm.export.nvfp4 import ExportableNVFP4Config
from torchao.prototype.mx_formats import NVFP4WeightOnlyConfig
from torchao.quantization import (
    Float8WeightOnlyConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8DynamicActivationIntxWeightConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    quantize_,
)
from torchao.quantization.granularity import PerGroup


def linear(config, out=32, bias=True):
    layer = torch.nn.Linear(32, out, bias=bias)
    quantize_(layer, config)
    return layer


def int4(weight):
    """The weight in ExecuTorch's packed four-bit form."""
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    layer.weight = torch.nn.Parameter(weight)
    quantize_(layer, IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)))
    return torch.nn.Parameter(ExportableInt4Tensor.from_intx_unpacked_to_int8_tensor(layer.weight), requires_grad=False)


class Classes(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.intx = linear(IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)))
        self.dynamic = linear(Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=PerGroup(32)))
        self.int8 = linear(Int8WeightOnlyConfig())
        self.int8_dynamic = linear(Int8DynamicActivationInt8WeightConfig())
        self.float8 = linear(Float8WeightOnlyConfig())
        self.nvfp4 = linear(ExportableNVFP4Config())
        self.int4 = torch.nn.Linear(32, 32)
        self.int4.weight = int4(torch.randn(32, 32))
        self.mx = linear(ExportableMXConfig())
        self.gguf = torch.nn.Linear(256, 4)
        self.gguf.weight = torch.nn.Parameter(
            ExportableGGUFTensor.from_raw(torch.arange(4 * 144, dtype=torch.uint8).reshape(4, 144), "q4_k", torch.float32), requires_grad=False
        )

    def forward(self, x):
        for layer in (self.intx, self.dynamic, self.int8, self.int8_dynamic, self.float8, self.nvfp4, self.int4, self.mx):
            x = layer(x)
        return self.gguf(x.repeat(1, 8))


class Uses(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(32, 32)
        self.embed.weight = int4(torch.randn(32, 32))
        self.head = torch.nn.Linear(32, 32, bias=False)
        self.head.weight = self.embed.weight
        self.other = torch.nn.Linear(32, 32)
        quantize_(self.other, IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)))
        self.weight = int4(torch.randn(32, 32))

    def forward(self, tokens):
        x = self.embed(tokens)
        x = x @ self.weight.t()
        x = torch.nn.functional.linear(x.to(torch.bfloat16), self.weight).float()
        with torch.no_grad():
            x = self.other(x) + torch.nn.functional.linear(x, self.weight)
        return self.head(x)


class Condition(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = int4(torch.randn(32, 32))

    def forward(self, x, flag):
        return torch.cond(flag, lambda x: torch.nn.functional.linear(x, self.weight), lambda x: x + 1, (x,))


class Nvfp4(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        torch.manual_seed(1)
        self.layer = torch.nn.Linear(96, 160, bias=False, dtype=torch.bfloat16)
        quantize_(self.layer, config)

    def forward(self, x):
        return self.layer(x)


def export(model, *args):
    return torch.export.export(model.eval(), args)


def save(program, path):
    """Without what is only for people: it is most of a small file."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for key in ("stack_trace", "from_node", "nn_module_stack", "torch_fn", "source_fn_stack"):
                    node.meta.pop(key, None)
    torch.export.save(program, path)


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "tests" / "fixtures" / "pickled-pt2"
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for name, model, args in [
        ("classes", Classes(), (torch.randn(2, 32),)),
        ("uses", Uses(), (torch.tensor([[3, 1]]),)),
    ]:
        save(export(model, *args), out / f"{name}.pt2")
        save(export(model, *args).run_decompositions({}), out / f"{name}.functional.pt2")
    save(export(Condition(), torch.randn(2, 32), torch.tensor(True)), out / "condition.pt2")
    x = torch.randn(2, 96, dtype=torch.bfloat16)
    save(export(Nvfp4(NVFP4WeightOnlyConfig()), x), out / "nvfp4.pt2")
    save(export(Nvfp4(ExportableNVFP4Config()), x), out / "nvfp4.plain.pt2")


if __name__ == "__main__":
    main()
