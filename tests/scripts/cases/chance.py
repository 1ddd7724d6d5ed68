"""Random numbers: which they are differs at every run, so what is compared is whether they keep the laws of their distribution.

Each answer is a truth about thousands of draws that fails with a chance of less than one in 10^9.
"""
import math

import torch
from torch.export import Dim
from torch.nn import functional as F

from case import call, case

N = 4096
OUTSIDE = "it leaves these operators outside the delegate"


def near(x, mean, deviation):
    """The mean of N or more draws is within 7 of its own deviations."""
    return ((x.float().mean() - mean).abs() < 7 * deviation / math.sqrt(N)) & x.float().isfinite().all()


def within(x, low, high):
    return (x >= low).all() & (x <= high).all()


def random(**more):
    return dict(reference_wrong=OUTSIDE) | more


@case(steps=lambda: [call(torch.zeros(64, 64))], functional=True, **random())
def random_uniform(self, x):
    """Uniform numbers in [0, 1) of each type: bounds, mean, spread; two draws are two; uniform elsewhere."""
    u, v, h, b = torch.rand(64, 64), torch.rand_like(x), torch.rand(N, dtype=torch.float16), torch.rand(N, dtype=torch.bfloat16)
    w = torch.empty_like(x).uniform_(-3.0, 5.0)
    return (near(u, 0.5, 0.2887), near((u - 0.5) ** 2, 1 / 12, 0.0745), within(u, 0, 1), (u < 1).all(), (u != v).any(), near((u - 0.5) * (v - 0.5), 0.0, 1 / 12),
            near(h, 0.5, 0.2887), (h < 1).all(), near(b, 0.498, 0.2887), (b < 1).all(), within(b, 0, 1), near(w, 1.0, 2.31), within(w, -3, 5), u.sum() + x.sum() > 0)


@case(steps=lambda: [call(torch.full((N,), 2.0), torch.full((N,), 0.5))], **random())
def random_normal(self, mean, std):
    """Normal numbers: mean, spread, tails, no skew; of a mean and deviation that are tensors or numbers; their exponentials."""
    z, like = torch.randn(N), torch.randn_like(mean)
    of = [torch.normal(mean, std), torch.normal(mean, 0.5), torch.normal(2.0, std), torch.normal(2.0, 0.5, (N,)), torch.empty_like(mean).normal_(2.0, 0.5)]
    return (near(z, 0.0, 1.0), near(z ** 2, 1.0, 1.415), near(z ** 3, 0.0, 3.88), near((z.abs() < 1).float(), 0.6827, 0.4655), near((z > 2).float(), 0.02275, 0.1492),
            near(z * like, 0.0, 1.0), *(near(y, 2.0, 0.5) for y in of), *(near((y - 2) ** 2, 0.25, 0.354) for y in of),
            near(torch.empty_like(mean).log_normal_(0.0, 1.0).log(), 0.0, 1.0), near(torch.randn(N, dtype=torch.bfloat16), 0.0, 1.0))


@case(steps=lambda: [call(torch.full((N,), 0.25), torch.tensor([0.0, 1.0, 0.5]))], functional=True, **random())
def random_choices(self, p, edges):
    """Yes and no with a probability, exponential and geometric waits, Cauchy's median; never and always are exact."""
    e, g, c = torch.empty_like(p).exponential_(2.0), torch.empty_like(p).geometric_(0.25), torch.empty_like(p).cauchy_(1.0, 2.0)
    yes = torch.bernoulli(p)
    sure = torch.bernoulli(edges)
    return (near(yes, 0.25, 0.433), ((yes == 0) | (yes == 1)).all(), sure[0], sure[1], near(torch.empty_like(p).bernoulli_(0.75), 0.75, 0.433),
            near(torch.zeros(N, dtype=torch.int32).bernoulli_(p), 0.25, 0.433),
            near(e, 0.5, 0.5), (e > 0).all(), near((e > 1).float(), math.exp(-2), 0.342), near(g, 4.0, 3.465), (g >= 1).all(), (g == g.floor()).all(), near((c > 1).float(), 0.5, 0.5),
            near((c > 3).float(), 0.25, 0.433))


@case(steps=lambda: [call(torch.zeros(N)), call(torch.zeros(N + 5))], dynamic=lambda: ({0: Dim("n", min=N, max=N + 9)},), **random())
def random_integers(self, x):
    """Integers below a bound, in a range, of other types; below a size; permutations, of known and unknown length."""
    n = x.shape[0]
    i, j, k = torch.randint(0, 10, (n,)), torch.randint_like(x, -5, 5), torch.randint(7, (n,), dtype=torch.int32)
    big, p, q = torch.randint(-2**30, 2**30, (n,)), torch.randperm(n), torch.randperm(9)
    return (near(i, 4.5, 2.873), within(i, 0, 9), (i == 9).any(), near(j, -0.5, 2.873), within(j, -5, 4), j.float() + 0 == j,
            near(k, 3.0, 2.0), within(k, 0, 6), within(big, -2**30, 2**30 - 1), near(big.float() / 2**30, 0.0, 0.5774),
            p.sort().values == torch.arange(n), (p != torch.arange(n)).any(), q.sort().values)


@case(steps=lambda: [call(torch.tensor([1.0, 0.0, 3.0, 4.0]))], **random())
def random_draws_by_weight(self, w):
    """Places drawn by weight: one of each row, several with repetition, several without."""
    rows = w.expand(N, 4)
    one, again, without = torch.multinomial(rows, 1), torch.multinomial(rows, 3, True), torch.multinomial(rows, 3)
    from_one = torch.multinomial(w, N, True)
    return (near((one == 2).float(), 0.375, 0.4842), (one != 1).all(), near((again == 3).float().sum(1), 1.5, 0.867), (again != 1).all(),
            without.sort(1).values, near((without[:, 0] == 3).float(), 0.5, 0.5), near((without[:, 1] == 3).float(), 0.125 * 4 / 7 + 0.375 * 4 / 5, 0.4818),
            near((from_one == 0).float(), 0.125, 0.331))


@case(steps=lambda: [call(torch.full((8, 16, 32), 2.0), torch.randn(64, 64))], functional=True, **random())
def dropout_that_is_meant(self, x, z):
    """Dropout that the model keeps at inference, as Tacotron 2 does: of elements, of channels, of what SELU gives, of attention's weights; nothing and all dropped."""
    y, f = F.dropout(x, 0.25, True), F.dropout1d(x, 0.5, True)
    n, which = torch.native_dropout(x, 0.25, True)
    a = F.alpha_dropout(z, 0.2, True)
    rows = f.mean(2)
    ones = torch.ones(1, 4, 32, 32)
    attended = F.scaled_dot_product_attention(z.view(1, 4, 32, 32), z.view(1, 4, 32, 32), ones, dropout_p=0.5)
    return (near(attended, 1.0, 5.7), (attended.std() > 0.05), near(y, 2.0, 1.155), ((y == 0) | ((y - 2 / 0.75).abs() < 1e-5)).all(), ((rows == 0) | ((rows - 4).abs() < 1e-5)).all(), (rows == 0).any(), (rows > 0).any(),
            near(n, 2.0, 1.155), (n > 0) == which, near(a, 0.0, 1.01), near(a ** 2, 1.0, 1.6), F.dropout(x, 0.0, True), F.dropout(x, 1.0, True),
            near(F.dropout(x.to(torch.bfloat16), 0.5, True), 2.0, 2.0))
