"""What constants decide, and programs cannot: sizes that follow from their values, and types that MLX lacks."""
import torch
from torch.export import Dim

from case import call, case


@case(steps=lambda: [call(torch.randn(3, 4)), call(torch.randn(5, 4))], dynamic=lambda: ({0: Dim("n", min=2, max=9)},))
class sizes_by_masks(torch.nn.Module):
    """Masks that are constants or made of some: read by, written by, of several dimensions, without any true element."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.tensor([True, False, True, True]))
        self.register_buffer("none", torch.zeros(4, dtype=torch.bool))
        self.register_buffer("square", torch.tensor([[True, False], [True, True]]))
        self.register_buffer("column", torch.tensor([[True], [False]]))

    def forward(self, x):
        kept = x[:, self.mask]
        pairs = x.reshape(-1, 2, 2)[:, self.square]
        made = x[:, self.mask & (torch.arange(4) > 0)]
        written = x.clone()
        written[:, self.mask] = kept * 2 + torch.arange(kept.shape[1])
        untouched = x.clone()
        untouched[:, self.none] = torch.ones(1, 0)
        selected = torch.masked_select(x, self.mask)
        broadcast = torch.masked_select(x[:2, :3], self.column)
        return kept, pairs, made, written, untouched, torch.cat([x, x[:, self.none]], 1), selected, broadcast


@case(steps=lambda: [call(torch.randn(3, 4)), call(torch.randn(2, 4))], dynamic=lambda: ({0: Dim("n", min=2, max=9)},))
class sizes_by_values(torch.nn.Module):
    """Positions, distinct values, counts and numbers taken out of constants, as sizes and indices."""

    def __init__(self):
        super().__init__()
        self.register_buffer("counts", torch.tensor([1, 0, 2, 3]))
        self.register_buffer("ids", torch.tensor([2, 1, 2, 3, 3, 1]))
        self.register_buffer("parts", torch.tensor([1, 2, 1]))
        self.register_buffer("length", torch.tensor(3))
        self.register_buffer("factor", torch.tensor(0.37))

    def forward(self, x):
        nonzero = x[:, self.counts.nonzero().squeeze(1)]
        values, inverse, count = torch.unique(self.ids, return_inverse=True, return_counts=True)
        runs = torch.unique_consecutive(self.ids)
        repeated = torch.repeat_interleave(x, self.counts, dim=1)
        first = x[:2]
        flat = torch.repeat_interleave(first, torch.tensor([1, 2, 0, 1, 0, 3, 1, 1]))
        cut = x[:, : self.length.item()] * self.factor.item()
        parts = [p.sum(1) for p in torch.split(x, self.parts.tolist(), 1)]
        return nonzero, x[:, values] * count, inverse, x[:, runs], repeated, flat, cut, torch.stack(parts)


@case(steps=lambda: [call(torch.randn(3, 4), torch.randn(3, 4).bfloat16())])
class doubles_of_constants(torch.nn.Module):
    """`f64` that constants alone decide, beside `f32` and halves: tables, grids, scalars, double complex numbers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.linspace(0, 1, 8, dtype=torch.float64).reshape(2, 4))
        self.register_buffer("scalar", torch.tensor(0.3, dtype=torch.float64))

    def forward(self, x, h):
        steps = 1 / torch.pow(10000.0, torch.arange(0, 4, 2, dtype=torch.float64) / 4)
        angles = torch.outer(torch.arange(3, dtype=torch.float64), steps)
        turned = torch.polar(torch.ones_like(angles), angles)
        rotated = torch.view_as_real(torch.view_as_complex(x.reshape(3, 2, 2)) * turned.to(torch.complex64)).flatten(1)
        down, across = torch.meshgrid(torch.linspace(0.5, 2.5, 3, dtype=torch.float64) / 3, torch.linspace(0.5, 3.5, 4, dtype=torch.float64) / 4, indexing="ij")
        grid = torch.stack([across, down], -1).reshape(-1, 2)
        inside = ((grid > 0.1) & (grid < 0.9)).all(-1, keepdim=True)
        anchors = torch.where(inside, torch.log(grid / (1 - grid)), torch.inf)
        scaled = (self.scalar - x) * torch.tensor(0.5, dtype=torch.float64) / self.scalar
        halved = (self.scalar - h) * self.scalar
        compared = torch.where(x > self.scalar, x, self.scalar)
        nearest = x[:, torch.linspace(0, 3, 3, dtype=torch.float64).round().long()]
        return (rotated, torch.view_as_real(turned).flatten(1).float(), anchors.to(torch.float32), inside, scaled, halved, x < self.scalar, compared,
                nearest, self.table.float(), x + torch.zeros(3, 4, dtype=torch.float64).float())


@case(steps=lambda: [call(torch.randn(3, 64), torch.tensor([1, 3, 31]), torch.randn(2, 64).bfloat16())], rtol=1e-4, atol=1e-4)
class weights_of_8_bit_floats(torch.nn.Module):
    """Weights of every 8-bit float, which are cast, scaled by rows or blocks and viewed before they are multiplied."""

    def __init__(self):
        super().__init__()
        w = torch.linspace(-3, 3, 32 * 64).reshape(32, 64)
        for name, dtype in [("a", torch.float8_e4m3fn), ("b", torch.float8_e5m2), ("c", torch.float8_e4m3fnuz), ("d", torch.float8_e5m2fnuz)]:
            self.register_buffer(name, w.to(dtype))
        self.register_buffer("rows", torch.rand(32, 1) + 0.5)
        self.register_buffer("blocks", torch.rand(4, 4) + 0.5)

    def forward(self, x, ids, h):
        by_rows = x @ (self.b.to(torch.float32) * self.rows).t()
        wide = self.blocks.repeat_interleave(8, 0).repeat_interleave(16, 1)
        by_blocks = torch.nn.functional.linear(x, (self.a.to(torch.float32) * wide).to(torch.bfloat16).float())
        viewed = self.a.to(torch.bfloat16).view(4, 8, 4, 16) * self.blocks.to(torch.bfloat16)[:, None, :, None]
        return (by_rows, by_blocks, torch.nn.functional.linear(h, viewed.view(32, 64)), torch.nn.functional.embedding(ids, self.a.to(torch.bfloat16)),
                x @ self.c.to(torch.float32).t() + self.d.to(torch.float32).t()[0], x @ self.a[:16].float().t() / 2)


@case(steps=lambda: [call(torch.tensor([0, 3, 700]), torch.randn(3, 4), torch.tensor(0.7, dtype=torch.float64)),
                     call(torch.tensor([1, 2, 9]), torch.randn(3, 4), torch.tensor(-0.2, dtype=torch.float64))],
      reference_wrong="it multiplies in place what is read again, and the total does not start as what it is")
class doubles_of_inputs(torch.nn.Module):
    """`f64` that inputs decide: positions, sums, a mask, an input, a result, a state."""

    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.tensor(1.5, dtype=torch.float64))
        self.register_buffer("weight", torch.linspace(0, 1, 4, dtype=torch.float64))

    def forward(self, ids, x, scale):
        steps = 1 / (10000 ** (torch.arange(0, 4, 2, dtype=torch.float64) / 4))
        angles = torch.outer(ids.float(), steps)
        rope = x * angles.cos().repeat_interleave(2, 1).float() 
        mask = torch.zeros(3, 4, dtype=torch.float64).masked_fill(x > 0, torch.finfo(torch.float64).min)
        masked = (x.double() + mask).softmax(-1).float()
        self.total.add_(x.sum(dtype=torch.float64))
        return rope, masked, x * scale, x.double() * self.weight, x * self.total.float()
