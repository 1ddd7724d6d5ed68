"""A Llama-shaped decoder, written plainly: RMSNorm, rotary embedding, grouped-query attention, SwiGLU, tied embedding.

Two cache flows, which is where exporters of such models differ most:
  plain   the caches are buffers written with `index_copy_`, attention is PyTorch's own with a boolean mask over all slots
  custom  ExecuTorch's MLX operators `mlx::kv_cache_update` and `mlx::custom_sdpa` (needs the executorch package)
"""
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass
class Config:
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    mlp: int = 160
    vocab: int = 256
    context: int = 128
    rope_theta: float = 500000.0
    norm_eps: float = 1e-5
    dtype: torch.dtype = torch.float32
    flow: str = "plain"


class RmsNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class Rotary(nn.Module):
    """cos and sin, [1, 1, tokens, head_dim], for the given positions."""

    def __init__(self, c):
        super().__init__()
        frequencies = 1.0 / c.rope_theta ** (torch.arange(0, c.head_dim, 2, dtype=torch.float32) / c.head_dim)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, positions, dtype):
        angles = positions.float()[:, None] * self.frequencies[None, :]
        angles = torch.cat((angles, angles), dim=-1)[None, None]
        return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.q_proj = nn.Linear(c.hidden, c.heads * c.head_dim, bias=False)
        self.k_proj = nn.Linear(c.hidden, c.kv_heads * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden, c.kv_heads * c.head_dim, bias=False)
        self.o_proj = nn.Linear(c.heads * c.head_dim, c.hidden, bias=False)
        for cache in ("k_cache", "v_cache"):
            self.register_buffer(cache, torch.zeros(1, c.kv_heads, c.context, c.head_dim), persistent=False)

    def heads(self, x):
        return x.view(1, x.shape[1], -1, self.c.head_dim).transpose(1, 2)

    def forward(self, x, positions, cos, sin, mask):
        q = rotate(self.heads(self.q_proj(x)), cos, sin)
        k = rotate(self.heads(self.k_proj(x)), cos, sin)
        v = self.heads(self.v_proj(x))
        if self.c.flow == "custom":
            start = positions[0].item()
            torch._check(start >= 0)
            torch._check(start + x.shape[1] <= self.c.context)
            torch.ops.mlx.kv_cache_update(self.k_cache, k, start)
            torch.ops.mlx.kv_cache_update(self.v_cache, v, start)
            y = torch.ops.mlx.custom_sdpa(q, self.k_cache, self.v_cache, start, is_causal=True)
        else:
            self.k_cache.index_copy_(2, positions, k)
            self.v_cache.index_copy_(2, positions, v)
            groups = self.c.heads // self.c.kv_heads
            keys = self.k_cache.repeat_interleave(groups, dim=1)
            values = self.v_cache.repeat_interleave(groups, dim=1)
            y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        y = y.transpose(1, 2).reshape(1, x.shape[1], self.c.heads * self.c.head_dim)
        return self.o_proj(y)


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden, c.mlp, bias=False)
        self.up_proj = nn.Linear(c.hidden, c.mlp, bias=False)
        self.down_proj = nn.Linear(c.mlp, c.hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = RmsNorm(c.hidden, c.norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RmsNorm(c.hidden, c.norm_eps)
        self.mlp = Mlp(c)

    def forward(self, x, positions, cos, sin, mask):
        x = x + self.self_attn(self.input_layernorm(x), positions, cos, sin, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """(tokens [1, n] int64, positions [n] int64) -> logits [1, n, vocab]; the caches keep what came before."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c.vocab, c.hidden)
        self.layers = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.norm = RmsNorm(c.hidden, c.norm_eps)
        self.lm_head = nn.Linear(c.hidden, c.vocab, bias=False)
        self.lm_head.weight = self.embed_tokens.weight
        self.rotary = Rotary(c)
        self.register_buffer("slots", torch.arange(c.context), persistent=False)

    def forward(self, tokens, positions):
        x = self.embed_tokens(tokens)
        cos, sin = self.rotary(positions, x.dtype)
        mask = None
        if self.c.flow == "plain":
            mask = (self.slots[None, :] <= positions[:, None])[None, None]
        for layer in self.layers:
            x = layer(x, positions, cos, sin, mask)
        return self.lm_head(self.norm(x))


def build(c, seed=0):
    """The model in its dtype, with seeded random weights."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(c.dtype)
    try:
        model = Llama(c)
    finally:
        torch.set_default_dtype(previous)
    return randomise(model, seed).eval()


def randomise(model, seed=0):
    """Seeded random weights: matrices at 1/sqrt(fan-in), embeddings at 0.5, norms near one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(False)
            if name == "embed_tokens.weight":
                parameter.normal_(0.0, 0.5, generator=generator)
            elif parameter.dim() == 2:
                parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
            else:
                parameter.uniform_(0.8, 1.2, generator=generator)
    return model


def export(model, tokens=4):
    """The program with a symbolic number of tokens."""
    c = model.c
    n = torch.export.Dim("tokens", min=1, max=c.context)
    example = (torch.arange(tokens)[None] % c.vocab, torch.arange(tokens))
    with torch.no_grad():
        return torch.export.export(model, example, dynamic_shapes={"tokens": {1: n}, "positions": {0: n}}, strict=False)
