#!/usr/bin/env python3
"""Train the model of the bundled example on a text, on one thread, for some minutes.

usage: train_example.py TEXT TOKENIZER.json WEIGHTS.safetensors [--minutes N]          (needs torch, tokenizers and safetensors)
"""
import argparse
import math
import pathlib
import time

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch.nn import functional as F

import llama

CONFIG = llama.Config(vocab=512, mlp=224)
BATCH = 24
RATE = 4e-3
WARM_UP = 0.03
HELD_OUT = 4096


def logits(model, tokens):
    """What the model says of many texts from their beginning, [texts, tokens], without its caches."""
    c = model.c
    cos, sin = model.rotary(torch.arange(tokens.shape[1]), torch.float32)
    x = model.embed_tokens(tokens)
    for layer in model.layers:
        a = layer.self_attn
        y = layer.input_layernorm(x)
        q, k, v = (p(y).unflatten(-1, (-1, c.head_dim)).transpose(1, 2) for p in (a.q_proj, a.k_proj, a.v_proj))
        q, k = llama.rotate(q, cos, sin), llama.rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + a.o_proj(y.transpose(1, 2).flatten(-2))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return model.lm_head(model.norm(x))


def loss(model, windows):
    return F.cross_entropy(logits(model, windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("tokenizer")
    parser.add_argument("weights")
    parser.add_argument("--minutes", type=float, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ids = torch.tensor(Tokenizer.from_file(given.tokenizer).encode(given.text.read_text(encoding="utf-8")).ids)
    model = llama.build(CONFIG)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    with torch.no_grad():
        model.embed_tokens.weight.mul_(0.1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.01)
    start, step, done = time.time(), 0, 0.0
    seen = ids[:-HELD_OUT]
    while done < 1:
        done = min((time.time() - start) / (60 * given.minutes), 1)
        rate = RATE * min(done / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * done))
        for group in optimiser.param_groups:
            group["lr"] = max(rate, RATE / 100)
        places = torch.randint(len(seen) - CONFIG.context, (BATCH,))
        value = loss(model, torch.stack([seen[p:p + CONFIG.context + 1] for p in places]))
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 100 == 0:
            print(f"{step:6} {done:6.1%} {value.item():.3f}", flush=True)
        step += 1
    with torch.no_grad():
        held = ids[-HELD_OUT:].unfold(0, CONFIG.context + 1, CONFIG.context)
        print(f"{step} steps, {step * BATCH * CONFIG.context / len(seen):.1f} times the text; held out: {loss(model, held).item():.3f}")
    save_file({name: p.detach().contiguous() for name, p in model.named_parameters()}, given.weights)


if __name__ == "__main__":
    main()
