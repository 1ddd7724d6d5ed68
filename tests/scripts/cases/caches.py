"""Caches and attention of ExecuTorch's own exporters for CPUs: the `llama` operators, plain, quantised and as rings.

The reference lowers none of these operators to MLX: it leaves them to the portable kernels. Eager PyTorch's answer counts.
"""
import torch
from executorch.examples.models.llama.source_transformation.custom_kv_cache import (
    CustomKVCache,
    CustomKVCacheWithAttentionSink,
    CustomRingKVCache,
    QuantizedCacheType,
    QuantizedKVCache,
    QuantizedRingKVCache,
    StaticQuantizedKVCache,
)
from executorch.examples.models.llama.source_transformation.sdpa import QuantizedSDPA, SDPACustom
from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401  registers the operators
from torch import nn
from torch.export import Dim

from case import call, case, model

WHY = "the reference leaves the llama operators to portable kernels"
HEADS, KEYS, SIZE, LENGTH = 4, 2, 8, 12


def steps(*lengths):
    """Calls of so many positions, one after the other."""
    calls, at = [], 0
    for n in lengths:
        calls.append(call(torch.randn(1, n, 16), torch.arange(at, at + n)))
        at += n
    return calls


def dynamic():
    return {"x": {1: Dim("n", min=1, max=4)}, "positions": {0: Dim("n", min=1, max=4)}}


def cached(subject, *lengths, **options):
    model(subject.__name__, subject, lambda: steps(*lengths), dynamic=dynamic, reference_wrong=WHY, rtol=1e-4, atol=1e-4, **options)


class Layer(nn.Module):
    """One layer of attention over a cache."""

    def __init__(self, cache, attention):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(16, heads * SIZE, bias=False) for heads in (HEADS, KEYS, KEYS))
        self.cache, self.attention = cache, attention

    def forward(self, x, positions):
        b, n, _ = x.shape
        q, k, v = (f(x).view(b, n, -1, SIZE).transpose(1, 2) for f in (self.q, self.k, self.v))
        start = positions[0].item()
        torch._check(start >= 0)
        if not getattr(self.cache, "is_ring_buffer", False):
            torch._check(start + n <= LENGTH)
        k, v = self.cache.update(positions, k, v)
        mask = None
        if self.attention.use_attention_mask:
            mask = self.cache.create_causal_mask_for_ring_buffer(start, n)
        return self.attention(positions, q, k, v, b, n, mask)


class Layers(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x, positions):
        return [layer(x, positions) for layer in self.layers]


def plain(mask=False):
    return SDPACustom(HEADS * SIZE, use_attention_mask=mask)


def in_codes(cache, mask=False):
    cache.return_float_values = False
    return Layer(cache, QuantizedSDPA(HEADS * SIZE, cache, use_attention_mask=mask))


ASYMMETRIC = QuantizedCacheType.AffineAsymmetric


class kv_cache_of_executorch(Layers):
    """A cache written at a position, and attention from that position."""

    def __init__(self):
        super().__init__(Layer(CustomKVCache(1, LENGTH, KEYS, SIZE), plain()))


class kv_cache_in_bytes(Layers):
    """Keys and values kept as bytes, a scale and a zero point each: read as numbers, and as they are by quantised attention."""

    def __init__(self):
        super().__init__(Layer(QuantizedKVCache(1, LENGTH, KEYS, SIZE, ASYMMETRIC, True), plain()),
                         Layer(QuantizedKVCache(1, LENGTH, KEYS, SIZE, ASYMMETRIC, False), plain()),
                         in_codes(QuantizedKVCache(1, LENGTH, KEYS, SIZE, ASYMMETRIC, True)))


class kv_cache_in_bytes_static(Layers):
    """Scales that are known beforehand, one for each place of a head."""

    def __init__(self):
        super().__init__(Layer(StaticQuantizedKVCache(1, LENGTH, KEYS, SIZE, scale=0.02), plain()),
                         Layer(StaticQuantizedKVCache(1, LENGTH, KEYS, SIZE, scale=0.01, use_custom_update_cache_op=False), plain()))


class kv_cache_rings(Layers):
    """Windows over caches that start again at their beginning, plain, as bytes, and behind a few positions that stay."""

    def __init__(self):
        super().__init__(Layer(CustomRingKVCache(1, 4, KEYS, SIZE), plain(True)),
                         Layer(QuantizedRingKVCache(1, 4, KEYS, SIZE, ASYMMETRIC, True), plain(True)),
                         in_codes(QuantizedRingKVCache(1, 4, KEYS, SIZE, ASYMMETRIC, True), True),
                         Layer(CustomKVCacheWithAttentionSink(1, KEYS, SIZE, 4, 0), plain(True)))


cached(kv_cache_of_executorch, 3, 1, 2, 1, functional=True)
cached(kv_cache_in_bytes_static, 3, 1, 2, 1)
# torch 2.15 fails to bring the last two into the functional form.
cached(kv_cache_in_bytes, 3, 1, 2, 1)
cached(kv_cache_rings, 3, 2, 3, 1, 3)


def codes(*shape):
    return torch.randint(-128, 128, shape, dtype=torch.int8)


class attention_of_executorch(nn.Module):
    """Attention that writes its own caches; with a mask, which is for all of the cache; not causal, which is up to the position;
    rows written at indices of their own; transforms of Hadamard."""

    def __init__(self):
        super().__init__()
        for name in ("keys", "values", "indexed"):
            self.register_buffer(name, torch.zeros(2, LENGTH, KEYS, SIZE))

    def forward(self, q, kv, at, mask, indices):
        start, n, ops = at.item(), q.shape[1], torch.ops.llama
        torch._check(start >= 0)
        torch._check(start + n <= LENGTH)
        y = ops.sdpa_with_kv_cache(q[:1], kv[:1], kv[1:], self.keys[:1], self.values[:1], start, n, None, 0, True)
        ops.update_cache(kv, self.keys, start)
        ops.update_cache_with_indices(kv * 2, self.indexed, start, indices)
        masked = ops.custom_sdpa(q, self.keys, self.indexed, start, mask, 0, False, 0.3)
        whole = ops.custom_sdpa(q, self.keys, self.indexed, start, None, 0, False)
        wide = ops.fast_hadamard_transform(torch.cat((q, q * 2, q - 1), 1).reshape(2, -1, HEADS * SIZE))
        return y, masked, whole, wide, ops.fallback(self.indexed)


class attention_of_bytes(nn.Module):
    """Quantised attention with heads before positions and after, causal and not."""

    def __init__(self):
        super().__init__()
        for name in ("k", "v"):
            self.register_buffer(name, codes(1, KEYS, LENGTH, SIZE))
            self.register_buffer(name + "_scales", torch.rand(1, KEYS, LENGTH, 1) * 0.02)
            self.register_buffer(name + "_zeros", codes(1, KEYS, LENGTH, 1))

    def forward(self, q, scales, zeros, at):
        start, n, attend = at.item(), q.shape[2], torch.ops.llama.custom_quantized_sdpa
        torch._check(start >= 0)
        torch._check(start + n <= LENGTH)
        of = (zeros, scales, self.k_zeros, self.k_scales, self.v_zeros, self.v_scales)
        turned = tuple(t.transpose(1, 2) for t in of)
        q1, k1, v1 = (t.transpose(1, 2) for t in (q, self.k, self.v))
        return (attend(q, self.k, self.v, start, None, 0, True, None, *of, True), attend(q, self.k, self.v, start, None, 0, False, 0.2, *of, True),
                attend(q1, k1, v1, start, None, 0, True, None, *turned))


class attention_of_executorch_in_halves(nn.Module):
    """The same operators in half types, which they compute in float32; the mask is float32 whatever the rest is."""

    def forward(self, q, k, v, mask):
        attend = torch.ops.llama.custom_sdpa
        h = [t.half() for t in (q, k, v)]
        b = [t.bfloat16() for t in (q, k, v)]
        return attend(*h, 2, None, 0, True), attend(*h, 0, mask, 0, False), attend(*b, 2, None, 0, True).float()


POSITIONS = ((3, 0), (1, 3), (2, 4))
N = Dim("n", min=1, max=4)
model("attention_of_executorch", attention_of_executorch,
      lambda: [call(torch.randn(2, n, HEADS, SIZE), torch.randn(2, n, KEYS, SIZE), torch.tensor([at]), torch.randn(n, LENGTH),
                    torch.stack([torch.randperm(LENGTH)[:n] for _ in range(2)])) for n, at in POSITIONS],
      dynamic=lambda: {"q": {1: N}, "kv": {1: N}, "at": None, "mask": {0: N}, "indices": {1: N}},
      functional=True, reference_wrong=WHY, rtol=1e-4, atol=1e-4)
model("attention_of_bytes", attention_of_bytes,
      lambda: [call(codes(1, HEADS, n, SIZE), torch.rand(1, HEADS, n, 1) * 0.02, codes(1, HEADS, n, 1), torch.tensor([at])) for n, at in POSITIONS],
      dynamic=lambda: {"q": {2: N}, "scales": {2: N}, "zeros": {2: N}, "at": None}, functional=True, reference_wrong=WHY, rtol=1e-4, atol=1e-4)
model("attention_of_executorch_in_halves", attention_of_executorch_in_halves,
      lambda: [call(torch.randn(1, 3, HEADS, SIZE), torch.randn(1, 8, KEYS, SIZE), torch.randn(1, 8, KEYS, SIZE), torch.randn(3, 8))],
      reference_wrong=WHY, rtol=1e-2, atol=1e-2)


class delta_rules_of_executorch(nn.Module):
    """The gated delta rule with heads before steps: one decay a step, grouped queries and any length; and one a key."""

    def one(self, q, k, v, decay, beta, state):
        return torch.ops.llama.gated_delta_rule(q, k, v, decay, beta, state)

    def each(self, q, k, v, decay, beta, state):
        y, state = torch.ops.llama.gated_delta_rule(q, k, v, decay, beta, state)
        return y, torch.ops.llama.channelwise_gated_delta_rule(q, k, v, decay, beta, state)[1]


def delta_rule(time, heads, states, decay):
    unit = torch.nn.functional.normalize
    return call(unit(torch.randn(1, heads, time, 8), dim=-1), unit(torch.randn(1, states, time, 8), dim=-1), torch.randn(1, states, time, 6),
                torch.rand(1, states, time, *decay), torch.rand(1, states, time), torch.randn(1, states, 8, 6))


T = Dim("t", min=1, max=128)
model("delta_rules_of_executorch", delta_rules_of_executorch,
      lambda: {"one": [delta_rule(t, 4, 2, ()) for t in (70, 1, 24, 5)], "each": [delta_rule(5, 2, 2, (8,))]},
      methods=("one", "each"), dynamic=lambda: {"one": [{2: T}] * 5 + [None], "each": None},
      partitions=1, reference_wrong=WHY, rtol=1e-4, atol=1e-4)


class cross_attention_cache(nn.Module):
    """Keys of another sequence at the start of a cache, which stays as long as it is."""

    def forward(self, value, cache):
        return torch.ops.executorch.update_cross_attn_cache(value, cache * 2) + 1


model("cross_attention_cache", cross_attention_cache, lambda: [call(torch.randn(2, 1, n, 4), torch.randn(2, 1, 6, 4)) for n in (2, 6, 1)],
      dynamic=lambda: ({2: Dim("n", min=1, max=6)}, None), reference_wrong=WHY)


class cache_that_wraps(nn.Module):
    """A ring of six places written a few at a time, past its end as well, and all at once."""

    def __init__(self):
        super().__init__()
        import executorch.backends.mlx.custom_ops  # noqa: F401  registers mlx::kv_cache_update
        self.register_buffer("cache", torch.zeros(1, 2, 6, 4))

    def forward(self, x, position):
        start = position.item()
        torch._check(start >= 0)
        torch.ops.mlx.kv_cache_update(self.cache, x, start, 6)
        return self.cache.clone(), self.cache.sum(-1)


model("cache_that_wraps", cache_that_wraps, lambda: [call(torch.randn(1, 2, n, 4), torch.tensor(at)) for n, at in ((4, 0), (3, 4), (1, 7), (6, 8))],
      dynamic=lambda: {"x": {2: Dim("n", min=1, max=6)}, "position": None}, keep_reference=True)
