"""Weights: shared, tied, transposed, expanded, views of one storage; several methods over the same ones."""
import torch
from torch import nn
from torch.nn import functional as F

from case import call, case


@case(steps=lambda: [call(torch.tensor([[1, 5, 0]]))])
class weight_of_two_operators(nn.Module):
    """One weight as embedding table, as linear weight, and as plain operand."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 6))

    def forward(self, ids):
        x = F.embedding(ids, self.weight)
        return F.linear(x, self.weight), self.weight.sum(1), x @ self.weight.t()


@case(steps=lambda: [call(torch.tensor([[1, 5, 0]]))])
class tied_modules(nn.Module):
    """Tied modules: two names of the state dict, one storage."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(8, 6)
        self.head = nn.Linear(6, 8, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.embed(ids))


@case(methods=["encode", "decode"], steps=lambda: {"encode": [call(torch.tensor([2, 7])), call(torch.tensor([0, 1]))], "decode": [call(torch.randn(2, 6))]})
class tied_across_methods(nn.Module):
    """Two methods over one table: the file holds it once."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(16, 6)

    def encode(self, ids):
        return self.table(ids)

    def decode(self, x):
        return x @ self.table.weight.t()


@case(methods=["forward", "prefill", "score"],
      steps=lambda: {"forward": [call(torch.randn(1, 8))], "prefill": [call(torch.randn(4, 8)), call(torch.randn(4, 8))], "score": [call(torch.randn(1, 8), torch.tensor(2))]})
class three_methods(nn.Module):
    """Three methods with weights of their own and shared ones, different shapes, one of them with state."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(8, 8)
        self.own = nn.Linear(8, 3)
        self.register_buffer("total", torch.zeros(8))

    def forward(self, x):
        return self.shared(x).relu()

    def prefill(self, x):
        y = self.shared(x)
        self.total.add_(y.sum(0))
        return self.total * 1

    def score(self, x, k):
        return self.own(self.shared(x)) * k


@case(steps=lambda: [call(torch.randn(3, 5), torch.randn(1, 3, 6, 6))])
class strided_weights(nn.Module):
    """Parameters that are not contiguous: a transposed matrix, a channels-last convolution kernel, every second row."""

    def __init__(self):
        super().__init__()
        self.turned = nn.Parameter(torch.randn(4, 5).t())
        self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.rows = nn.Parameter(torch.randn(8, 4)[::2])

    def forward(self, x, image):
        return x @ self.turned, F.linear(x @ self.turned, self.rows), self.conv(image), self.turned.t() + 1


@case(steps=lambda: [call(torch.randn(4))])
class views_of_one_storage(nn.Module):
    """Two parameters that overlap in one storage, one buffer deep inside a larger one, an expanded one."""

    def __init__(self):
        super().__init__()
        base = torch.randn(10, 4)
        self.low = nn.Parameter(base[2:5])
        self.high = nn.Parameter(base[4:8])
        self.register_buffer("inside", torch.randn(100)[10:14])
        self.register_buffer("expanded", torch.randn(4).expand(3, 4))

    def forward(self, x):
        return self.low * x, self.high @ x, self.inside + x, self.expanded - x, self.low[2] - self.high[0]


@case(steps=lambda: [call(torch.randn(2, 4))])
class unused_weights(nn.Module):
    """Parameters and buffers that nothing reads."""

    def __init__(self):
        super().__init__()
        self.used = nn.Linear(4, 4)
        self.never = nn.Linear(4, 64)
        self.register_buffer("neither", torch.ones(64))

    def forward(self, x):
        return self.used(x)


@case(steps=lambda: [call(torch.randn(2, 2))])
class equal_constants(nn.Module):
    """Equal bytes under several names and shapes; empty and rank-0 parameters; every weight type."""

    def __init__(self):
        super().__init__()
        self.register_buffer("a", torch.full((2, 2), 3.0))
        self.register_buffer("b", torch.full((2, 2), 3.0))
        self.register_buffer("c", torch.full((4,), 3.0))
        self.register_buffer("nothing", torch.empty(0, 2))
        self.register_buffer("scalar", torch.tensor(0.5))
        self.register_buffer("f16", torch.tensor([[1.5, 2.5]], dtype=torch.float16))
        self.register_buffer("bits", torch.tensor([[True, False]]))
        self.register_buffer("bytes", torch.tensor([[1, 200]], dtype=torch.uint8))

    def forward(self, x):
        return x + self.a, x - self.b + self.c[0], torch.cat((x, self.nothing)), x * self.scalar + self.f16, torch.where(self.bits, x, self.bytes)
