#!/usr/bin/env python3
"""Make the bundled example: a small Llama with random weights, exported, and two successive calls of it.

usage: make_example.py [OUT_DIR]          (default: examples/llama of this repository; needs torch 2.15 and safetensors)

  model.pt2             the program, as torch.export.save wrote it
  prompt.safetensors    input_0 tokens, input_1 positions: the prompt, six tokens
  step.safetensors      the same names: one more token
  prompt.expected.safetensors, step.expected.safetensors      output_0: what eager PyTorch answers, the calls made in that order
"""
import copy
import pathlib
import sys

import torch
from safetensors.torch import save_file

import llama
import programs


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "examples" / "llama"
    out.mkdir(parents=True, exist_ok=True)
    model = llama.build(llama.Config())
    programs.save(llama.export(copy.deepcopy(model)), out / "model.pt2")

    prompt = torch.tensor([[72, 101, 108, 108, 111, 44]])
    calls = {"prompt": (prompt, torch.arange(6)), "step": (torch.tensor([[32]]), torch.tensor([6]))}
    with torch.no_grad():
        for name, (tokens, positions) in calls.items():
            save_file({"input_0": tokens, "input_1": positions}, out / f"{name}.safetensors")
            save_file({"output_0": model(tokens, positions)}, out / f"{name}.expected.safetensors")


if __name__ == "__main__":
    main()
