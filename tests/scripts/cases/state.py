"""Mutation: buffers written once, twice, through views; their first value; inputs written to; orders that matter."""
import torch
from torch import nn
from torch.export import Dim

from case import call, case


def numbers(*calls):
    return [call(torch.tensor(values)) for values in calls]


@case(steps=lambda: numbers([1.0, 2.0], [3.0, -1.0], [0.5, 0.5]), functional=True)
class buffer_mutated_twice(nn.Module):
    """One buffer written two times in one call, and read before, between and after."""

    def __init__(self):
        super().__init__()
        self.register_buffer("state", torch.zeros(2))

    def forward(self, x):
        before = self.state.clone()
        self.state.add_(x)
        between = self.state * 10
        self.state.mul_(2)
        return before, between, self.state + 0


@case(steps=lambda: numbers([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]), functional=True, reference_wrong="mutable buffers start at zero whatever the program says")
class buffer_initial_state(nn.Module):
    """A mutable buffer that does not start at zero."""

    def __init__(self):
        super().__init__()
        self.register_buffer("state", torch.tensor([10.0, -20.0, 0.5]))
        self.register_buffer("calls", torch.tensor(7))

    def forward(self, x):
        self.state.add_(x)
        self.calls.add_(1)
        return self.state * 2, self.calls + 0


@case(steps=lambda: numbers([1.0, 2.0], [3.0, 4.0]), functional=True)
class buffer_returned(nn.Module):
    """The mutated buffer itself as output; a view of it taken before it is written shows the new value."""

    def __init__(self):
        super().__init__()
        self.register_buffer("state", torch.zeros(2, 2))

    def forward(self, x):
        row = self.state[0]
        self.state.copy_(self.state + x)
        return self.state, row * 1


@case(steps=lambda: numbers([1.0, 2.0], [3.0, 4.0], [5.0, 6.0]), functional=True)
class buffer_view_written(nn.Module):
    """A shift register: a view of the buffer is written, from another view of it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("history", torch.zeros(4, 2))

    def forward(self, x):
        self.history[:-1].copy_(self.history[1:].clone())
        self.history[-1] = x
        return self.history.sum(0), self.history[1:3] * 1


@case(steps=lambda: [call(torch.randn(1, n, 4), torch.arange(p, p + n)) for p, n in ((0, 3), (3, 1), (4, 2))],
      dynamic=lambda: {"x": {1: Dim("n", min=1, max=6)}, "positions": {0: Dim("n", min=1, max=6)}}, functional=True)
class cache_by_index(nn.Module):
    """A cache written at the positions of a tensor, by index_copy_ and by index assignment, and read whole."""

    def __init__(self):
        super().__init__()
        self.register_buffer("one", torch.zeros(1, 8, 4), persistent=False)
        self.register_buffer("two", torch.zeros(1, 8, 4), persistent=False)

    def forward(self, x, positions):
        self.one.index_copy_(1, positions, x)
        self.two[:, positions] = x * 2
        return self.one.sum(-1), self.two - self.one


@case(steps=lambda: [call(torch.randn(2, 1, 4), torch.tensor([p])) for p in (0, 1, 5)], functional=True)
class cache_by_slice(nn.Module):
    """A cache written by a slice whose start is read from a tensor."""

    def __init__(self):
        super().__init__()
        self.register_buffer("cache", torch.zeros(2, 8, 4), persistent=False)

    def forward(self, x, position):
        start = position[0].item()
        torch._check(start >= 0)
        torch._check(start + 1 <= 8)
        self.cache[:, start:start + 1] = x
        return self.cache.sum(1), self.cache.narrow(1, start, 1) + 0


@case(steps=lambda: [call(torch.randn(4, 5))], functional=True)
def in_place_on_views(self, x):
    """In-place operators on slices, rows, transposes and diagonals of one tensor; each later read sees them all."""
    y = x.clone()
    y[:, 1:3] += 1
    y[0] = 0
    y.t()[4].mul_(2)
    y[1:3, ::2].neg_()
    y.view(-1)[-3:] = 9
    y.relu_()
    return y, y.sum(0), x


@case(steps=lambda: [call(torch.tensor([1.0, 2.0, 3.0]), torch.tensor(2.0)), call(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor(0.5))],
      functional=True, mutated_inputs=(0,))
def user_input_mutation(self, x, y):
    """The caller's tensor is written to."""
    x.mul_(y)
    return x + 1, y


@case(steps=lambda: numbers([3, 1, 2], [5, 5, 5]), functional=True)
class counter(nn.Module):
    """Integer state of rank 0, and booleans."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("seen", torch.zeros(6, dtype=torch.bool))

    def forward(self, ids):
        self.count += ids.sum()
        self.seen.index_fill_(0, ids, True)
        return self.count * 1, ~self.seen, self.seen.sum()


@case(steps=lambda: numbers([1.0, 2.0], [3.0, 4.0]), functional=True)
class two_buffers_swapped(nn.Module):
    """Two buffers exchange values: the order of the writes matters."""

    def __init__(self):
        super().__init__()
        self.register_buffer("a", torch.zeros(2))
        self.register_buffer("b", torch.zeros(2))

    def forward(self, x):
        old = self.a.clone()
        self.a.copy_(self.b)
        self.b.copy_(old + x)
        return self.a + 0, self.b + 0


@case(steps=lambda: [call(torch.randn(3, 4))], functional=True)
class no_grad_region(nn.Module):
    """A region under torch.no_grad, which export keeps as a higher-order operator with a subgraph."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        y = self.linear(x)
        with torch.no_grad():
            scale = (y * y).mean(-1, keepdim=True)
        with torch.enable_grad():
            return y / (scale + 1)


@case(steps=lambda: [call(torch.randn(3)), call(torch.randn(3))], reference_wrong="the state before the write is returned as it is after it")
class state_is_what_is_given(nn.Module):
    """A buffer becomes what the caller gives, which is returned, too: nothing is computed."""

    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(3))

    def forward(self, x):
        before = self.last.clone()
        return self.last.copy_(x), before


@case(steps=lambda: numbers([1.0, 2.0], [3.0, 4.0]), functional=True, reference_wrong="parameters that are written to start at zero, as all state")
class parameter_written(nn.Module):
    """A parameter, not a buffer, that the program writes to."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -1.5]), requires_grad=False)

    def forward(self, x):
        before = self.weight * x
        self.weight.add_(x)
        return before, self.weight * 2


@case(steps=lambda: [call(torch.tensor(v)) for v in ([1.0, 2.0, -0.5], [-1.0, -2.0, 0.5], [3.0, 0.25, 1.0], [-4.0, 1.0, 2.0])], bare=True)
class branches_write_buffers(nn.Module):
    """Branches that write to buffers, to views of them, to tensors of the call: both, one of them, a branch inside a branch, by what a buffer says; read afterwards through every alias."""

    def __init__(self):
        super().__init__()
        self.register_buffer("sum", torch.zeros(3))
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("grid", torch.arange(12.0).reshape(4, 3))
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("started", torch.tensor(False))

    def forward(self, x):
        def both(x):
            self.sum.add_(x)
            self.scale.mul_(2)
            return x + self.scale.sum()

        def one(x):
            self.scale.sub_(1)
            return x * 2

        def inner(x):
            def deep(x):
                self.calls.add_(1)
                self.grid[1].add_(x)
                return x + 1

            return torch.cond(x.max() > 1, deep, lambda x: x - self.sum, (x,))

        def column(x):
            self.grid[:, 0].copy_(self.grid[:, 1] * 0.5)
            return x * self.calls

        def first(x):
            self.started.fill_(True)
            self.sum.copy_(x)
            return x.clone()

        row, left = self.grid[2], self.grid[:, :2]
        local = x * 3
        part = local[1:]

        def by_row(x, row, left):
            row.add_(x)
            return left.sum() + self.grid.sum()

        def by_left(x, row, left):
            left.mul_(-0.5)
            return row.sum()

        def write(a, b):
            a.add_(1)
            return a * b

        a = torch.cond(x.sum() > 0, both, one, (x,))
        b = torch.cond(a.sum() > 0, inner, column, (a,))
        c = torch.cond(self.started, lambda x: x - self.sum, first, (b,))
        d = torch.cond(x[0] > 0, by_row, by_left, (x, row, left))
        e = torch.cond(x[1] > 0, write, lambda a, b: a - b, (local, local))
        return a, b, c, d, e, local, part, row + 0, left * 1, self.sum + 0, self.scale * 1


@case(steps=lambda: [call(torch.tensor([[2, 0], [0, 1], [1, 2]]), torch.tensor([2, 1, 0]), torch.tensor(1, dtype=torch.int32), torch.randn(3, 2)) for _ in range(2)], bare=True)
class places_seen_through_views(nn.Module):
    """Copies to places that are a column, a row, every second one, reversed or computed of what is repeated, into constants, buffers and what they hold themselves."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(3, 2))
        self.register_buffer("cache", torch.zeros(3, 2))
        self.register_buffer("row", torch.arange(3.0))

    def forward(self, i, j, s, x):
        column, turned = i[:, 0], i.t()
        self.cache.index_copy_(0, column, x)
        self.row.copy_(self.row.index_copy(0, j, self.row))
        places = (column, turned[1], i.flatten()[::2] % 3, j.flip(0), (s.expand(3) * s.expand(3)).long())
        copies = [x.index_copy(0, at, -x) for at in places]
        return (*copies, self.table.index_copy(0, column, x), self.table.slice_scatter(x[:2], 0, 1, 3), self.cache * 1, self.row + 0)
