"""Odd types and values: integers, booleans, halves, casts, NaN and infinities."""
import torch
from torch.nn import functional as F

from case import call, case

INF, NAN = float("inf"), float("nan")


@case(steps=lambda: [call(torch.tensor([1, -7, 100], dtype=torch.int32), torch.tensor([3, 2**40, -5]),
                          torch.tensor([200, 255, 0], dtype=torch.uint8), torch.tensor([-128, 127, 5], dtype=torch.int8))])
def integer_promotion(self, i32, i64, u8, i8):
    """Integers of different types: the result type, and wrapping within it."""
    return i32 + i64, u8 + i8, u8 * u8, i8 - i32, i32 / 2, i32 * 0.5, i32.sum(), u8.float() / 3, -i8, i64.abs()


@case(steps=lambda: [call(torch.tensor([7, -7, 7, -7, 0, -1]), torch.tensor([2, 2, -2, -2, 3, 5]), torch.tensor([7.5, -7.5, 0.5, -0.0, 1e10, -3.0]))],
      reference_wrong="integer floor division leaves an unfloored float inside the delegate, so what follows is wrong")
def floor_division_signs(self, a, b, x):
    """Floor division and remainder of integers and floats of both signs, and what is computed from the quotient."""
    return ((a // b) * b, a % b, a // 4, a // -4, torch.div(a, b, rounding_mode="floor"), x // 2.0, x % -2.0, torch.div(x, 2.0, rounding_mode="trunc"))


@case(steps=lambda: [call(torch.tensor([True, False, True, False]), torch.tensor([True, True, False, False]), torch.tensor([1.5, 0.0, NAN, -2.0]))])
def booleans(self, a, b, x):
    """Booleans in logic, arithmetic, reductions and casts."""
    return (a & b, a | ~b, a ^ b, torch.logical_xor(a, x), a * x, a.sum(), a.float() + b, torch.where(a, x, 0.0), a.any(), b.all(), x.bool(), a == b)


@case(steps=lambda: [call(torch.tensor([NAN, INF, -INF, -0.0, 0.0, 1.0, -1.5]), torch.tensor([1.0, NAN, -INF, 0.0, -0.0, INF, NAN]))])
def not_finite(self, x, y):
    """NaN, infinities and signed zeros through comparisons, extrema, clamping and selection."""
    return (torch.maximum(x, y), torch.minimum(x, y), x.relu(), x.clamp(-1, 1), x.isnan(), x.isinf(), x == y, x != x, x < y, torch.where(x.isnan(), 0.0, x),
            x.amax(), x[1:].amax(), x.sign(), x[3:].softmax(0), 1 / x, x.sigmoid(), x.tanh())


@case(steps=lambda: [call(torch.tensor([60000.0, 6e-8, 1e-4, -1.0, 0.1, 2048.0], dtype=torch.float16), torch.randn(6, 6).half())], rtol=2e-3, atol=1e-5)
def half_float16(self, x, m):
    """float16: overflow to infinity, subnormals, a product, sums, and float32 beside it."""
    return x * 2, x / 2, x + 1, m @ x.clamp(-2, 2), m.mean(), x + x.float(), m.softmax(-1), x.sqrt(), (x * 0.1).float()


@case(steps=lambda: [call(torch.tensor([3e38, 1e-40, 1.0078125, -1.0, 0.1, 257.0], dtype=torch.bfloat16), torch.randn(6, 6).bfloat16())], rtol=1e-2, atol=1e-5)
def half_bfloat16(self, x, m):
    """bfloat16: range of float32, eight bits of fraction; a product, sums, and other types beside it."""
    return x * 2, x + 1, m @ x.clamp(-2, 2), m.mean(), x + x.float(), x * x.half().float().half().clamp(-9, 9), m.softmax(-1), x * 3


@case(steps=lambda: [call(torch.tensor([1.9, -1.9, 0.0, 255.0, 0.3333333]), torch.tensor([0, 1, 256, -1, 2**31]))],
      reference_wrong="two casts in a row are collapsed to the outer one, though the inner one changes the values")
def cast_chains(self, x, i):
    """Casts whose way back does not restore the value: through integers, halves and booleans."""
    return (x.int().float(), x.bfloat16().float(), x.half().float(), x.bool().float(), x.long(), i.to(torch.uint8).long(), i.int().long(), i.bool().int(),
            i.float().long(), x.to(torch.float32), x.short())


@case(steps=lambda: [call(torch.randn(3))], reference_wrong="integers travel as 32-bit floats and lose their low bits")
def large_integers(self, x):
    """Integer constants beyond 24, 31 and 53 bits."""
    big = torch.full((3,), 2**53 + 1, dtype=torch.int64)
    return big, big - 2**53, torch.full((2,), 16777217, dtype=torch.int32), torch.arange(2**31, 2**31 + 3), x.long() + 2**40 + 1


@case(steps=lambda: [call(torch.tensor([0.5, -3.0, 2.5, 1.5, -0.5]))])
def rounding(self, x):
    """Halves round to even; floor, ceiling and truncation of negatives keep the sign of zero."""
    return x.round(), x.floor(), x.ceil(), x.trunc(), x - x.trunc(), torch.round(x * 10) / 10


@case(steps=lambda: [call(torch.randn(2, 4))], rtol=1e-2, atol=1e-2)
def autocast(self, x):
    """A region under autocast: the casts stand nowhere in the exported graph."""
    with torch.autocast("cpu", torch.bfloat16):
        y = x @ x.t()
    return y, y.float() + x.sum()


class autocast_of_every_kind(torch.nn.Module):
    """Operators that autocast computes in half precision, in single and as they are; a region without it inside; float16."""

    def __init__(self):
        super().__init__()
        self.linear, self.conv, self.norm, self.slope = torch.nn.Linear(4, 4), torch.nn.Conv1d(2, 2, 1), torch.nn.LayerNorm(4), torch.nn.PReLU()

    def forward(self, x, h):
        with torch.autocast("cpu", torch.bfloat16):
            y = self.linear(x)
            z = self.conv(x[:2][None])
            both = torch.cat((y, x)), torch.stack((y, x))
            loss = F.mse_loss(y, x), y.prod(), F.cross_entropy(y, torch.zeros(4, dtype=torch.int64))
            products = torch.addmm(x[0], x, x), torch.einsum("ij,kj->ik", x, h), torch.bmm(x[None], x[None]), torch.baddbmm(x[None], x[None], x[None])
            kept = self.norm(x), x.softmax(-1), y.softmax(-1), y.exp(), x.pow(2), y.sum(), self.slope(x), x + h
            attention = F.scaled_dot_product_attention(x, x, x)
            with torch.autocast("cpu", enabled=False):
                single = x @ x
        with torch.autocast("cpu", torch.float16):
            half = self.linear(x)
        return (y, z, *both, *loss, *products, *kept, attention, single, half)


case(steps=lambda: [call(torch.randn(4, 4), torch.randn(4, 4).bfloat16())], rtol=2e-2, atol=2e-2)(autocast_of_every_kind)


@case(steps=lambda: [call(torch.randn(64).to(torch.bfloat16), torch.randn(64).to(torch.float16), torch.tensor(0.7))],
      rtol=0.0, atol=0.0, functional=True, reference_wrong="it rounds the numbers to halves first")
def halves_times_numbers(self, b, h, f):
    """Products and quotients of halves with numbers, and with scalar tensors of wider types: the number is not rounded, the result is, once."""
    return (b * 0.1, b / 0.7, h * 0.1, h / 3.3, b * f, h / f, b * torch.tensor(0.3, dtype=torch.float64), f * b, b * 0.5, b * 257, torch.div(b, 0.3, rounding_mode="trunc"), F.leaky_relu(b, 0.1),
            F.leaky_relu(h, -0.3), b + 0.1, h - 0.7, b + f)


@case(steps=lambda: [call(torch.randn(n)) for n in (300, 5)], dynamic=lambda: ({0: torch.export.Dim("n", min=2, max=512)},), bare=True, reference_wrong="it counts in halves, which get stuck")
def ranges_in_halves(self, x):
    """Ranges longer than a half has whole numbers, of known and of symbolic length, and one beyond those of a float."""
    n = x.shape[0]
    return [torch.arange(*bounds, dtype=t) for t in (torch.bfloat16, torch.float16) for bounds in ((300,), (2040, 2060), (0, -700, -3), (n,), (n, 3 * n, 2), (8,))] + [torch.arange(16777210, 16777226, dtype=torch.float32), x * torch.arange(n)]
