"""Whole decoders, very small: prompt, then a token at a time."""
import torch
from torch.export import Dim

import llama
from case import call, case

TINY = dict(hidden=32, layers=1, heads=4, kv_heads=2, head_dim=8, mlp=48, vocab=64, context=16)


def tokens():
    return [call(torch.tensor([[5, 9, 33, 2]]), torch.arange(4)), call(torch.tensor([[17]]), torch.tensor([4])), call(torch.tensor([[1, 63]]), torch.tensor([5, 6]))]


def symbols():
    n = Dim("n", min=1, max=16)
    return {"tokens": {1: n}, "positions": {0: n}}


@case(steps=tokens, dynamic=symbols, rtol=1e-4, atol=1e-4)
class llama_plain(llama.Llama):
    """A Llama of one layer: caches written with index_copy_, PyTorch's attention with a mask over all slots."""

    def __init__(self):
        super().__init__(llama.Config(**TINY))
        llama.randomise(self)


@case(steps=tokens, dynamic=symbols, functional=True, rtol=1e-4, atol=1e-4)
class llama_custom(llama.Llama):
    """The same with ExecuTorch's cache and attention operators."""

    def __init__(self):
        import executorch.backends.mlx.custom_ops  # noqa: F401  registers mlx::*

        super().__init__(llama.Config(**TINY, flow="custom"))
        llama.randomise(self)
