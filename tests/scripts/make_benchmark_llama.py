#!/usr/bin/env python3
"""Make a Llama of the real shape, or of any other, with random weights, as a real `.pt2`: nothing is downloaded.

usage: make_benchmark_llama.py OUT.pt2 [--layers N] [--hidden N] …

The defaults are Llama 3.2 1B: 1.24 billion parameters, bfloat16, embedding and output head tied, 2.5 GB; making it takes some
5 GB of memory. For the growth of graph work with the number of layers: `--tiny --layers 16`, then 64 and 256.
Needs torch 2.15; `--flow custom` (the default) also executorch 1.5.1 for its cache and attention operators.
"""
import argparse

import torch

import llama
import programs

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--tiny", action="store_true", help="width 32, vocabulary 256: all graph, hardly any weights")
    shape = {"layers": 16, "hidden": 2048, "heads": 32, "kv-heads": 8, "head-dim": 64, "mlp": 8192, "vocab": 128256, "context": 1024}
    tiny = {"hidden": 32, "heads": 4, "kv-heads": 2, "head-dim": 8, "mlp": 64, "vocab": 256, "context": 128}
    for name, value in shape.items():
        parser.add_argument(f"--{name}", type=int, help=f"default {value}" + (f", tiny {tiny[name]}" if name in tiny else ""))
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--flow", choices=("custom", "plain"), default="custom", help="cache and attention: ExecuTorch's MLX operators, or PyTorch's own")
    options = vars(parser.parse_args())
    if options["flow"] == "custom":
        import executorch.backends.mlx.custom_ops  # noqa: F401  registers mlx::*

    defaults = {**shape, **tiny} if options["tiny"] else shape
    chosen = {}
    for name, default in defaults.items():
        key = name.replace("-", "_")
        chosen[key] = default if options[key] is None else options[key]
    model = llama.build(llama.Config(**chosen, dtype=DTYPES[options["dtype"]], flow=options["flow"]))
    parameters = sum(p.numel() for p in model.parameters())
    program = llama.export(model)
    programs.save(program, options["out"])
    print(f"{options['out']}: {parameters:,} parameters, {len(program.graph.nodes):,} nodes")


if __name__ == "__main__":
    main()
