"""Odd shapes: no elements, rank 0, negative axes, broadcasting, sizes known only when the program runs."""
import math

import torch
from torch.export import Dim
from torch.nn import functional as F

from case import call, case


@case(steps=lambda: [call(torch.randn(0, 4), torch.randn(3, 0))], reference_wrong="the delegate refuses inputs of shape [3, 0]")
def zero_size(self, x, y):
    """Tensors without elements: elementwise, concatenated with others, reduced to zeros, multiplied to a matrix of zeros."""
    return x + 1, torch.cat((x, x.sum(0, keepdim=True) + 2)), y.sum(1), y @ y.t(), y.prod(dim=1)


@case(steps=lambda: [call(torch.randn(n, 3)) for n in (2, 0, 5)], dynamic=lambda: {"x": {0: Dim("n", min=0, max=8)}})
def zero_size_dynamic(self, x):
    """A symbolic dimension that is 0 in one of the calls."""
    return torch.cat((x * 2, x)), x.sum(0)


@case(steps=lambda: [call(torch.tensor(1.5), torch.tensor(-2.25))])
def rank_0(self, a, b):
    """Tensors of rank 0 in and out, and to and from other ranks."""
    return a * b + 1, a.reshape(1, 1), (a - b).unsqueeze(0).expand(3), torch.stack((a, b)).sum(), a.sum(), b.abs()


@case(steps=lambda: [call(torch.randn(2, 3, 1, 5))])
def negative_axes(self, x):
    """Every axis counted from the end."""
    return (x.softmax(-1), x.mean(-3), x.transpose(-1, -3), torch.cat((x, x), -4), x.squeeze(-2), x.unsqueeze(-1), x.select(-1, -2),
            x[..., -3:-1], x.sum((-1, -3), keepdim=True), x.permute(-1, -3, -2, -4), torch.stack((x, x), -1))


@case(steps=lambda: [call(torch.randn(3, 1, 5), torch.randn(4, 1), torch.tensor(0.5), torch.rand(2, 1, 1, 5) > 0.5)])
def broadcasting(self, x, y, z, mask):
    """Operands of different ranks, sizes one on either side, rank 0, a mask of the highest rank."""
    return x + y, x * z - y, torch.where(mask, x, y), torch.maximum(z, x), x < y, y @ (x * z), x.expand(2, 3, 4, 5)


@case(steps=lambda: [call(torch.randn(7), torch.randn(7), torch.randn(5, 7), torch.randn(2, 7, 3), torch.randn(3, 1, 4, 7))])
def matmul_ranks(self, v, w, m, b, r):
    """matmul over vectors, matrices, batches, and batches that broadcast."""
    return v @ w, m @ v, v @ b, m @ b, r @ b, r @ v


@case(steps=lambda: [call(torch.randn(b, s, 4)) for b, s in ((2, 3), (1, 6), (5, 1), (3, 3))],
      dynamic=lambda: {"x": {0: Dim("b", min=1, max=6), 1: Dim("s", min=1, max=8)}}, functional=True)
def two_symbols(self, x):
    """Two symbolic dimensions, multiplied, merged and split again."""
    b, s, c = x.shape
    flat = x.reshape(b * s, c)
    total = flat.sum(0) / (b * s)
    return flat * 2, (flat + total).view(b, s, c).transpose(0, 1), x.mean(1), x.flatten(1) + s


@case(steps=lambda: [call(torch.randn(n, 3)) for n in (6, 7, 4, 16)], dynamic=lambda: {"x": {0: Dim.DYNAMIC(min=4, max=16)}}, functional=True)
def symbolic_arithmetic(self, x):
    """Sizes computed from sizes: halves rounded down and up, remainders, twice and one more; slices and ranges by them."""
    n = x.size(0)
    half, ceil, odd = n // 2, -(-n // 2), n % 2
    return (x[:half], x[half:], x[n - ceil:], torch.arange(2 * n + 1), torch.arange(n) * odd, x.new_zeros(half + 1, 2) + n,
            F.pad(x, (0, 0, 0, ceil)))


@case(steps=lambda: [call(torch.randn(n, 2)) for n in (3, 5)], dynamic=lambda: {"x": {0: Dim("n", min=2, max=9)}})
def symbolic_outputs(self, x):
    """Integers computed from a size, returned to the caller beside a tensor."""
    return x * 2, x.size(0) * 2, x.size(0) // 2 + 1


@case(steps=lambda: [call(torch.randn(n)) for n in (8, 12, 20)], dynamic=lambda: {"x": {0: 4 * Dim("quarter", min=2, max=5)}})
def divisible_symbol(self, x):
    """A size known to be a multiple of four, split into rows of four."""
    return x.view(-1, 4).sum(1), x.unflatten(0, (4, -1)).mean(0)


@case(steps=lambda: [call(torch.arange(10.0), torch.tensor(n)) for n in (3, 10, 0)])
def data_dependent_slice(self, x, length):
    """A slice whose length is read from a tensor."""
    n = length.item()
    torch._check(n >= 0)
    torch._check(n <= 10)
    return x[:n] * 2, x.narrow(0, 0, n).sum()


@case(steps=lambda: [call(torch.randn(1, 5, 8), torch.arange(n)) for n in (4, 1, 2)], dynamic=lambda: {"x": None, "rows": {0: Dim("n", min=1, max=5)}})
def gather_rows(self, x, rows):
    """Rows picked by an index of symbolic length, written back in reverse."""
    picked = x[:, rows]
    return picked, x.index_select(1, rows).flip(1), torch.zeros_like(x).index_copy(1, rows, picked * 2)


@case(steps=lambda: [call(torch.randn(n, 4)) for n in (6, 4, 9)], dynamic=lambda: {"x": {0: Dim("n", min=4, max=12)}},
      reference_wrong="conditions on sizes are left outside the delegate")
def conditions_on_sizes(self, x):
    """Branches by what is said of a size that is known at run time."""
    n = x.shape[0]
    long = torch.cond(n > 5, lambda x: x + 1, lambda x: x * 2, (x,))
    return long, torch.cond(n % 2 == 0, lambda x: x.sum(0), lambda x: x.amax(0), (long,))


@case(steps=lambda: [call(torch.randn(n, 4)) for n in (6, 9, 4, 12)], dynamic=lambda: ({0: Dim("n", min=3, max=16)},), functional=True, rtol=1e-5, atol=1e-6,
      reference_wrong="it leaves arithmetic on floats outside the delegate")
def numbers_made_of_sizes(self, x):
    """Floats that are computed from a size: quotients, roots, powers; sizes rounded from them; the larger and the smaller of two."""
    n = x.shape[0]
    half, long, short, third, tenths = n // 2, max(n, 8), torch.sym_min(n, 5), torch.sym_int(n / 3), torch.sym_int(n * 0.7)
    return (x * (n / 7), x / torch.sym_sqrt(n), x * n ** -0.5, x + n ** 0.25, x - 1.0 / n, (x * (n * 0.5 + 1)).to(torch.bfloat16) * (n / 4), x.long() * (n / 2),
            x.new_zeros(long, 2) + long, x.new_ones(short), x.new_ones(third + 1), x.new_ones(tenths) * tenths, x.new_ones(n * n), x.clamp(max=half / 4),
            torch.full((2,), n / 8), x.new_ones(torch.sym_int(n * 1.5)), x.new_ones(torch.sym_max(n, 8) - torch.sym_min(n, 7) + 2))


@case(steps=lambda: [call(torch.tensor(2.5), torch.tensor([3]), torch.randn(3)), call(torch.tensor(-1.25), torch.tensor([2]), torch.randn(3))], rtol=1e-5, atol=1e-6,
      reference_wrong="it leaves floats taken out of tensors outside the delegate")
def numbers_taken_out(self, f, i, x):
    """A float and an integer taken out of tensors, and arithmetic on them."""
    a, b = f.item(), i.item()
    return (x * a, x + a * 2 - 0.5, (x * 10).long() * a, x * b, x.to(torch.float16) / (a + 4), torch.full((2,), b), torch.full((2, 2), a), x - a / 3)


@case(steps=lambda: [call(torch.randn(n), torch.randint(1, 9, (n,))) for n in (3, 5)], dynamic=lambda: {"x": {0: Dim("n", min=2, max=8)}, "i": {0: Dim("n", min=2, max=8)}}, functional=True)
def numbers_before_tensors(self, x, i):
    """Numbers and sizes where tensors are expected, in front of tensors too: in functional programs they stand in the places of tensors."""
    n = x.shape[0]
    return 1 - x, 2 - i, 1 / x, 30 // i, 2.0**x, 7 % i, n - x, n / i, x + n, n * i, torch.where(x > 0, n, x), torch.where(x > 0, x, 0.5), (x * 9).fmod(n), i.fmod(-n + 1), x.masked_fill(x > 0, n), i.roll(n - 1)


@case(steps=lambda: [call(torch.randn(3), torch.tensor(flag), torch.tensor([not flag])) for flag in (True, False)], functional=True,
      reference_wrong="it leaves conditions outside the delegate")
def conditions_taken_out(self, x, f, g):
    """Branches by truth values that were taken out of tensors."""
    return torch.cond(f.item(), lambda x: x + 1, lambda x: x * 2, (x,)), torch.cond(g.item(), lambda x: x.exp(), lambda x: -x, (x,))


@case(steps=lambda: [call(torch.randn(n, 3, 2), torch.randn(3, 2)) for n in (2, 0, 4)], dynamic=lambda: {"x": {0: Dim("n", min=0, max=8)}, "w": None},
      reference_wrong="what is left over of a shape without elements cannot be inferred")
def norms_of_no_rows(self, x, w):
    """Normalisation over several dimensions, of no rows in one of the calls."""
    return F.layer_norm(x, (3, 2)), F.layer_norm(x, (3, 2), w, w * 2)
