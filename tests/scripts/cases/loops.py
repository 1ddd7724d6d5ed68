"""Loops: of any length, of no rounds, of many, inside of others; and those that count."""
import torch
from torch import nn
from torch.export import Dim

from case import call, model

TIGHT = dict(rtol=1e-4, atol=1e-5)
scan, loop_map, while_loop = torch._higher_order_ops.scan, torch._higher_order_ops.map, torch._higher_order_ops.while_loop


def lengths(*sizes, least=2):
    return lambda: ({0: Dim("n", min=least, max=64)},) * sizes[0]


class loops_of_any_length(nn.Module):
    """Several carries that change places, an integer among them, weights from around, results that nothing reads, the other way round."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.register_buffer("bias", torch.randn(3))

    def forward(self, x, y):
        def step(carry, now):
            a, b, count = carry
            new = torch.tanh(self.inner(a) + now[0] + self.bias)
            return (b + now[1], new, count + 1), (new * count, torch.maximum(a, now[1]))

        (a, b, count), (first, second) = scan(step, (x[0] * 0, y[0], torch.tensor(1)), (x, y))
        last, back = scan(lambda c, now: (c * 0.5 + now, c + now), x[0] * 0, x, reverse=True)
        return a, b, count, first, second, last, back


model("loops_of_any_length", loops_of_any_length, lambda: [call(torch.randn(n, 3), torch.randn(n, 3)) for n in (5, 2, 9)],
      dynamic=lengths(2), **TIGHT)


class loops_of_no_rounds(nn.Module):
    """A loop that may make none: the carry stays as it was."""

    def forward(self, x, state):
        last, rest = scan(lambda c, now: (torch.tanh(c) + now, (c * now).half()), state, x)
        return last, rest


model("loops_of_no_rounds", loops_of_no_rounds, lambda: [call(torch.randn(n, 2, 3), torch.randn(2, 3)) for n in (4, 1, 0)],
      dynamic=lambda: ({0: Dim("n", min=0, max=64)}, None), **TIGHT)


class maps_of_any_length(nn.Module):
    """Bodies that are taken apart: normalisation, convolution, sorting; one that writes to what it made."""

    def __init__(self):
        super().__init__()
        self.norm, self.conv = nn.LayerNorm(4), nn.Conv1d(2, 3, 3, padding=1)

    def forward(self, x):
        def body(now):
            made = now.clone().add_(1)
            return self.conv(self.norm(made)), now[:, now[0].argsort()], made.half().softmax(-1)

        return loop_map(body, x)


model("maps_of_any_length", maps_of_any_length, lambda: [call(torch.randn(n, 2, 4)) for n in (3, 6)], dynamic=lengths(1), functional=True,
      rtol=1e-3, atol=1e-4)


class loops_inside_loops(nn.Module):
    """Sums over rows of sums over columns, the outer length open."""

    def forward(self, x):
        def outer(carry, rows):
            last, seen = scan(lambda c, now: (c * 0.5 + now, c + now), carry, rows)
            return last, seen.sum(0)

        return scan(outer, x[0, 0] * 0, x)


model("loops_inside_loops", loops_inside_loops, lambda: [call(torch.randn(n, 4, 3)) for n in (5, 3)], dynamic=lengths(1), **TIGHT)


class long_loops(nn.Module):
    """Of so many rounds that they are not written out."""

    def forward(self, x):
        counted = while_loop(lambda i, y: i < 300, lambda i, y: (i + 1, torch.tanh(y) * 1.5 + i), (torch.tensor(0), x[0]))
        return *counted, *scan(lambda c, now: (c * 0.9 + now, torch.tanh(c).sum()), x[0] * 0, x)


model("long_loops", long_loops, lambda: [call(torch.randn(300, 2))], **TIGHT)


class counted_loops(nn.Module):
    """Loops whose rounds follow from numbers, by one counter or two, and from a size."""

    def forward(self, x):
        one = while_loop(lambda i, y: i < 5, lambda i, y: (i + 1, y * 1.5), (torch.tensor(0), x[0]))
        two = while_loop(lambda i, j, y: i < j, lambda i, j, y: (i * 2, j + 1, y + j), (torch.tensor(1), torch.tensor(20), x[0]))
        size = while_loop(lambda i, y: i < x.shape[0], lambda i, y: (i + 2, y * 1.5 + i), (torch.tensor(1), x[0] + 1))
        return *one, *two, *size


model("counted_loops", counted_loops, lambda: [call(torch.randn(n, 3)) for n in (5, 2, 8)], dynamic=lengths(1), **TIGHT)
