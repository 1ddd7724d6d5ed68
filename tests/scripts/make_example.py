#!/usr/bin/env python3
"""Make the bundled example: a small Llama, trained on the novels of Jane Austen, exported, and two successive calls of it.

usage: make_example.py WEIGHTS.safetensors [OUT_DIR]          (default: examples/llama of this repository; needs torch 2.15, tokenizers, safetensors)

Everything in OUT_DIR is made from the text alone; austen.py says where that is from:

    python austen.py Rdata.rdb austen.txt
    python make_tokenizer.py austen.txt
    python train_example.py austen.txt ../../examples/llama/tokenizer.json weights.safetensors --minutes 12
    python make_example.py weights.safetensors

  tokenizer.json        made before (make_tokenizer.py)
  model.pt2             the program, as torch.export.save wrote it
  prompt.safetensors    input_0 tokens, input_1 positions: the prompt, six tokens
  step.safetensors      the same names: one more token, the most likely one
  prompt.expected.safetensors, step.expected.safetensors      output_0: what eager PyTorch answers, the calls made in that order
"""
import copy
import pathlib
import sys

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

import llama
import programs
from train_example import CONFIG

PROMPT = "Emma was not"


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else root / "examples" / "llama"
    model = llama.build(CONFIG)
    missing, unknown = model.load_state_dict(load_file(sys.argv[1]), strict=False)
    assert missing == ["lm_head.weight"] and not unknown, (missing, unknown)
    programs.save(llama.export(copy.deepcopy(model)), out / "model.pt2")

    prompt = torch.tensor([Tokenizer.from_file(str(out / "tokenizer.json")).encode(PROMPT).ids])
    count = prompt.shape[1]
    with torch.no_grad():
        answers = {"prompt": model(prompt, torch.arange(count))}
        step = answers["prompt"][:, -1:].argmax(-1)
        answers["step"] = model(step, torch.tensor([count]))
    for name, tokens, positions in (("prompt", prompt, torch.arange(count)), ("step", step, torch.tensor([count]))):
        save_file({"input_0": tokens, "input_1": positions}, out / f"{name}.safetensors")
        save_file({"output_0": answers[name]}, out / f"{name}.expected.safetensors")


if __name__ == "__main__":
    main()
