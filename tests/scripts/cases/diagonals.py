"""Diagonals read and written, of matrices whose sides are open, in any two dimensions."""
import torch
from torch import nn
from torch.export import Dim

from case import call, model

TIGHT = dict(rtol=1e-4, atol=1e-5)


class diagonals_of_any_size(nn.Module):
    """Of rectangles of which either side may be the shorter one, and writes to them."""

    def forward(self, x, y):
        made, other = x.clone(), y.clone()
        made.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        other.diagonal(1, 0, 1).mul_(2)
        other.diagonal(-1, 1, 0)[..., 0].fill_(7)
        return x.diagonal(dim1=1, dim2=2), x.diagonal(-1, 1, 2), x.diagonal(1, 2, 1), made.softmax(-1), y.diagonal(), other


model("diagonals_of_any_size", diagonals_of_any_size, lambda: [call(torch.randn(2, n, m), torch.randn(n + 1, n + 1, 3)) for n, m in ((3, 5), (6, 4), (4, 4))],
      dynamic=lambda: ({1: Dim("n", min=2, max=16), 2: Dim("m", min=2, max=16)}, {0: Dim("n", min=2, max=16) + 1, 1: Dim("n", min=2, max=16) + 1}), **TIGHT)


class diagonals_written(nn.Module):
    """Of other dimensions than the last, above and below, of integers and of truth values, by row and in steps."""

    def forward(self, x, k, b):
        a, i, t = x.clone(), k.clone(), b.clone()
        a.diagonal()[0].fill_(9)
        a.diagonal(1, 2, 1).add_(1)
        i.diagonal(-1, 0, 2)[:, ::2].copy_(i.diagonal(1, 2, 0)[:, ::2])
        t.diagonal(2).logical_not_()
        flat = a.view(-1)[::3]
        flat.mul_(2)
        return a, i, t, torch.diagonal_scatter(x, x[:, 0, :3] * 3, 1, 2, 1)


model("diagonals_written", diagonals_written, lambda: [call(torch.randn(2, 4, 4), torch.randint(0, 9, (4, 2, 4)), torch.rand(3, 5) > 0.5)], **TIGHT)
