"""Where the reference's operators answer wrongly, ignore an argument, take a size for a constant, or stop: a family a case, in the order
of its handlers. Only eager PyTorch's answer counts."""
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

from case import CASES, call, case

A = torch.ops.aten
T = torch.tensor
INF, NAN = float("inf"), float("nan")
ODD = [NAN, INF, -INF, 0.0, -0.0, 1.5, -2.5, 0.5, -0.5, 2.5, 3e38, 1e-30]
FLOATS = "sigmoid tanh rsqrt exp sqrt reciprocal sin cos tan asin acos atan sinh cosh asinh acosh atanh log log2 log10 log1p erf expm1".split()
KEPT = "floor ceil trunc abs sign square neg logical_not isnan isinf round".split()


def fault(why, steps, **options):
    """A case without the reference's file, whose program does not say where in the source its nodes are from (most of the bytes otherwise)."""

    def register(subject):
        case(steps, reference_wrong=why, **{"rtol": 1e-5, "atol": 1e-6} | options)(subject)
        CASES[subject.__name__]["bare"] = True
        return subject

    return register


def whole(*sizes, low=-9, high=10, dtype=torch.int64):
    return torch.randint(low, high, sizes, dtype=dtype)


def rows(*counts, columns=4):
    return [call(torch.randn(n, columns)) for n in counts]


def any_rows(low=0, high=9):
    return lambda: {"x": {0: Dim("n", min=low, max=high)}}


# Functions of one operand.


@fault("integers and truth values meet functions of floats as they come", lambda: [call(T([0, 1, 2, 5]), T([0, 1, -2, 5], dtype=torch.int8), T([0, 1, 2, 255], dtype=torch.uint8), T([True, False, True, False]))])
def integers_in_every_function(self, i, k, u, b):
    """Functions whose result is a float, of integers and truth values; the others keep the type, but for the square of a truth value."""
    return (*[getattr(torch, name)(x) for name in FLOATS for x in (i, b)], *[getattr(torch, name)(x) for name in KEPT for x in (k, u)],
            k.bitwise_not(), u.bitwise_not(), i.int().bitwise_not(), b.bitwise_not(), b.sign(), b.square(), b.isinf(), b.isnan(), F.relu6(k), F.hardtanh(i, -2, 3))


@fault("rounding to decimals is left outside the delegate", lambda: [call(T(ODD), torch.randn(8).half() * 10, torch.randn(8).bfloat16() * 10)], rtol=2e-3, atol=1e-3)
def odd_numbers_in_every_function(self, x, h, b):
    """NaN, infinities, zeros of both signs; rounding to decimals, once also in halves; slopes of every kind; bounds that are no numbers, or the wrong way round."""
    return (*[getattr(torch, name)(x) for name in FLOATS + KEPT], x.round(decimals=2), x.round(decimals=-2), h.round(decimals=1), b.round(decimals=1), h.round(decimals=3),
            *[F.leaky_relu(x[:10], slope) for slope in (0.01, 0.0, -0.5, 1.0, 2.0)], F.hardtanh(x), F.hardtanh(x, -2, 0.5), x.clamp(min=0), x.clamp(max=0), x.clamp(2, -2),
            x.clamp(x.flip(0), None), x.clamp(None, x.flip(0)))


@fault("bounds are cut to the tensor's type, by way of a single, and share one name", lambda: [call(T([0, 5, 2**62, -(2**62), 2**53 + 3]), T([0, 16777219, 2147483647, -5], dtype=torch.int32), torch.randn(4), T([3, -3, 0, 5]))])
def bounds_of_integers(self, i, j, x, k):
    """Integers clamped at fractions, at numbers that singles do not hold, at the ends of the type, at tensors of another type."""
    return (i.clamp(0, 3), x.clamp(0, 3), i.clamp(min=-1.5), i.clamp(max=2.5), j.clamp(max=16777217), j.clamp(min=-(2**31), max=2**31 - 1), i.clamp(max=2**53 + 1), i.clamp(min=2**40 + 1),
            k.clamp(x, None), x.clamp(None, k), k.clamp(k.flip(0), None), i.clamp(0.0, 3.0))


# In place.


@fault("written in place, operators are functions with another slot", lambda: [call(torch.rand(5) * 0.9 + 0.05)])
def functions_in_place(self, x):
    """Every function of one operand as it is written in place, of a tensor and of a view whose base is read afterwards."""
    names = [name + "_" for name in FLOATS + KEPT + ["relu"] if name not in ("acosh", "isnan", "isinf")]
    bases = [x.clone() for _ in names]
    for name, base in zip(names, bases):
        getattr(base[1:], name)()
    return (*bases, (x + 1).acosh_(), F.silu(x * 1, inplace=True), A.gelu_(x * 1), F.leaky_relu(x * 1, 0.2, True), F.hardtanh(x * 2, inplace=True))


@fault("the type of what is written to is not that of the result", lambda: [call(torch.randn(4).half(), torch.randn(4), T([7, -7, 2**31 - 1, 5], dtype=torch.int32), T([3, -3, 2, 2**33]), T([100, -100, 5, 127], dtype=torch.int8))],
       rtol=1e-3, atol=1e-3)
def types_in_place(self, h, x, i, j, k):
    """Arithmetic in place keeps the type of what it writes to, whatever the other operand is; factors of it, powers, quotients."""
    c = [v.clone() for v in (h, h, h, h, i, k, k, i, i, i, i, x, x, x, x, x)]
    return (c[0].add_(x), c[1].mul_(0.1), c[2].div_(x), c[3].sub_(x, alpha=0.3), c[4].add_(j), c[5].add_(i), c[6].mul_(3), c[7].floor_divide_(j), c[8].remainder_(j), c[9].pow_(2), c[10].div_(j, rounding_mode="floor"),
            c[11].add_(i), c[12].sub_(1.5, alpha=2), c[13].clamp_(min=-0.5).clamp_(max=h), c[14].abs_().pow_(2.5), c[15].abs_().pow_(x))


# Two operands.


@fault("a number on the left is not lifted", lambda: [call(T([0.5, -1.5, 2.0, 3.0]), T([3, -3, 2, 7]))], functional=True)
def numbers_on_the_left(self, x, i):
    """Python's numbers as first operands."""
    return 1 - x, 2 / x, 2**x, 5 % x, 7 // x, 5 - i, 5 // i, 5 % i, 2 ** i.abs(), 1.5**i, 2.5 / i, 3 & i, 3 | i, 6 ^ i, 1.5 > x, 2 == i, 1.5 % i, 1 << i.abs(), torch.rsub(x, 2, alpha=3), torch.rsub(x, x * 2, alpha=0.5)


@fault("a symbolic operand is not lifted", lambda: [call(torch.randn(n), whole(n)) for n in (5, 3)], dynamic=lambda: {"x": {0: Dim("n", min=2, max=9)}, "i": {0: Dim("n", min=2, max=9)}})
def sizes_as_operands(self, x, i):
    """A size known when the program runs in arithmetic and comparisons with floats and integers, as factor of an operand, as bound, as what fills, as end of a range of fractions."""
    n = x.shape[0]
    return (x + n, x - n, x * n, x / n, n - x, n / x, x**n, x % n, x // n, x < n, torch.add(x, x, alpha=n), i + n, n - i, i * n, i / n, i % n, i // n, i < n, i == n, i.clamp(max=n),
            torch.full_like(i, n), torch.full((2,), n), torch.full((n,), n),
            torch.arange(0, n, 0.5), torch.arange(0.5, n), torch.arange(0.0, n, 1.0))


@fault("a number in a tensor travels as a single", lambda: [call(T([1, 2, -3]), torch.randn(3), T(n)) for n in (2**25 + 1, -7)])
def elements_as_operands(self, i, x, s):
    """A number taken out of a tensor, in arithmetic with integers and floats; beyond 2^24, too."""
    n = s.item()
    return i + n, i * 0 + n, i == n, x * n, n - x


@fault("fractional numbers are cut to the tensor's type", lambda: [call(T([0, 1, 2**53 + 1, 2**53, -1]), T([True, False]), T([0, 255], dtype=torch.uint8), T([16777216.0, 0.1]), T([-128, 127], dtype=torch.int8), T([0.1, 0.2, -0.1]).half())])
def comparisons_with_numbers(self, i, b, u, x, k, h):
    """Every type compared with fractions, with numbers beyond it, with infinity, with NaN; halves with what they hold only nearly."""
    return (i < 0.5, i >= -0.5, i != 2.5, i == 2**53 + 1, i > 2**53, i <= INF, i > NAN, b > 0.5, b == 2, b < True, b != 1, u > -1, u < 255.5, u == 256, k >= -128.5, k < 128, x == 16777217, x > 0.1,
            h < 0.1, h == 0.1, h.bfloat16() >= 0.1, i < x[0], i == x[0] + 0.5, k < i[0], torch.logical_xor(b, x), torch.logical_and(k, x), torch.logical_or(i[:2], x * NAN))


@fault("promotion is MLX's, and numbers take the type of the first operand", lambda: [call(torch.randn(4), T([3, -3, 0, 5]), torch.randn(4).half(), T([True, False, True, False]), T(1.5), T(2**40), T([1, 2, 3, -4], dtype=torch.int8))], rtol=1e-3, atol=1e-3)
def operands_of_mixed_types(self, x, i, h, b, s, n, k):
    """Integers, halves of both kinds, truth values and scalar tensors together: the type in which torch computes."""
    return (torch.maximum(x, i), torch.minimum(x, h), torch.maximum(h, i), torch.atan2(i, i.flip(0)), torch.atan2(x, i), torch.logaddexp(x, h.float()), x * i, h * i, h + x, b + h, h + h.bfloat16(), torch.maximum(h, h.bfloat16()),
            torch.where(b, h, h.bfloat16()), i & 3, i.int() | i, b & b, b | (i > 0), i & b, h + s, h * n, i + s, k * n, i / s, h == s, i < s, torch.maximum(k, n), torch.where(b, i, s), torch.where(b, 1.0, 2.0), torch.where(b, k, 2.5),
            torch.where(b, 1, x), torch.where(b, True, False), b + 1, b * 2.5, torch.add(b, b), torch.add(i.int(), i, alpha=2), torch.add(x, i, alpha=2.5), torch.sub(h, h, alpha=0.1))


@fault("quotients are rounded before their floor is taken, truncation is left outside the delegate",
       lambda: [call(T([1.0, 0.3, 0.7, -1.0, 5.0, 1e10, 0.0, INF]), T([0.1, 0.1, -0.1, 0.1, 0.2, 3.0, -2.0, 2.0]), T([1.0, -1.0, 0.0, NAN, 5.0, -5.0]), T([0.0, 0.0, 0.0, 1.0, INF, INF]), T([2.9990, 299.75, -2.999, 1.0]).half(), T([1.0, 100.0, 1.0, 0.1]).half())], rtol=1e-3)
def quotients_that_round_up(self, x, y, a, b, h, g):
    """Floor division and truncation where the quotient rounds up to a whole number; by zero and infinity; in halves."""
    modes = [torch.div(*operands, rounding_mode=mode) for operands in ((x, y), (a, b), (h, g), (x, 0.1)) for mode in ("floor", "trunc")]
    return (*modes, x // y, x // -0.1, x // 2, x % y, a // b, a % b, h // g, h // 0.1)


@fault("a number beside a scalar tensor makes it a vector; truncation is left outside the delegate",
       lambda: [call(T(-7), T([7, -7, 9, -9, 0, 5]), T([3, 3, -3, -3, 2, 7]), T([200, 3, 255, 0, 17, 99], dtype=torch.uint8), T([-128, 127, 5, -5, 0, 100], dtype=torch.int8))])
def quotients_of_integers(self, s, i, j, u, k):
    """Every rounding of quotients of integers, by tensors and by numbers, whole and fractional; of rank 0; what is computed from them."""
    modes = [torch.div(*operands, rounding_mode=mode) for operands in ((i, j), (u, T(7, dtype=torch.uint8)), (k, 3), (i, 2.5), (s, 2), (s, 2.0), (s, s * 2)) for mode in (None, "floor", "trunc")]
    return (*modes, s // 3, s % 3, (i // j) * j, (i // j) + 0.5, (i // j) // 2, (i / j).int(), (i / j) * 2)


@fault("integers to negative powers are 0 even where the base is 1 or -1, and fractional exponents are cut", lambda: [call(T([2, -2, 1, -1, -1, 0, 3, -3]), T([3, 3, -1, -1, -2, 0, -2, 0])), call(T([1, -1]), T([-1, 0]))],
       dynamic=lambda: {"i": {0: Dim("n", min=2, max=9)}, "j": {0: Dim("n", min=2, max=9)}})
def integers_to_negative_powers(self, i, j):
    """Integers to powers of every sign, by tensors and numbers, and numbers to them."""
    return (i**j, i.int() ** j.int(), i.to(torch.int8) ** j.to(torch.int8), i**2, i**3, i**0, i**0.5, i**-0.5, i**2.5, i.float() ** -2, 2 ** j.abs(), 1**j, (-1) ** j, (i > 0) ** 2, i.abs().to(torch.uint8) ** 2)


# Reductions.


@fault("sums and products stay in 32 bits, a result type is ignored or refused",
       lambda: [call(T([[2**30, 2**30, 2**30], [2**30, 7, 2**30]], dtype=torch.int32), T([200, 255, 255], dtype=torch.uint8), T([-128, -128, 127], dtype=torch.int8), T([True, True, False]), torch.randn(2, 3) * 3)], rtol=2e-3)
def sums_that_overflow(self, i, u, k, b, x):
    """Sums, products and running sums of narrow integers and truth values are 64 bits wide; in another type they are computed in it."""
    return (i.sum(), i.sum(0), i.cumsum(1), i.prod(1), u.sum() - 1000, k.sum(), b.sum() * 2**33, u.cumsum(0), k.cumsum(0), b.cumsum(0), u.prod(), k.prod(), b.prod(), i.cumsum(1, dtype=torch.float32), x.cumsum(0, dtype=torch.int32),
            x.cumsum(1, dtype=torch.float16), b.cumsum(0, dtype=torch.int8), i.cumsum(-1, dtype=torch.int8), x[0, 0].cumsum(0), A.sum.dim_IntList(x, None, True, dtype=torch.float16), A.mean.dim(x, None, True, dtype=torch.float16), i.prod(dtype=torch.float32))


@fault("extremes along an axis are left outside the delegate; lists of no axes, integers and truth values go wrong",
       lambda: [call(T([[1.0, NAN, 3.0], [4.0, 5.0, -6.0]]), whole(2, 3), T([[True, False], [False, False]]), T([[0, 7], [3, 4]], dtype=torch.uint8))])
def extremes_of_every_kind(self, x, i, b, u):
    """Extremes, their places and truth along axes, lists of axes, no axes, with axes kept; of NaN, integers and truth values."""
    return (x.amax((0, 1)), x.amax(()), x.amax((), True), i.amin(-1, True), i.amax(), b.amax(0), x.max(), i.min(), *x.max(1), *i.min(0, True), x.amin((1, 0), True), x.argmax(1), x.argmin(1), x.argmax(), i.argmax(), u.argmin(0), x[0, 0].argmax(), x[0, 0].argmax(0, True),
            x.any(), x.all(1), x.any((0, 1)), x.all((0, 1), True), u.any(), u.all(1), A.any.dims(x, None), A.all.dims(u, None, True), b.any(0, True), i.logsumexp(0), i.logsumexp((), True), (i * INF).logsumexp(1))


@fault("the number of elements at export is written into the file", lambda: [call(torch.randn(n, m)) for n, m in ((5, 4), (2, 7), (1, 1))], dynamic=lambda: {"x": {0: Dim("n", min=1, max=9), 1: Dim("m", min=1, max=9)}})
def places_among_all(self, x):
    """The place of extremes among all elements of a matrix whose both sizes are known when the program runs, and arithmetic below zero on it."""
    return x.argmax(), x.argmin(), x.argmax(keepdim=True), x.argmax(1), x.argmin(0, True), x.argmax() - 10, -x.argmin()


@fault("halves are rounded on the way", lambda: [call(torch.randn(3, 200).half() * 3, torch.rand(3, 400).bfloat16())], rtol=4e-3, atol=1e-3)
def reductions_of_halves(self, h, b):
    """Reductions of halves are computed in single precision and rounded once."""
    return (h.log_softmax(1), h.softmax(1), h.logsumexp(1), h.var(1), h.std(), h.mean(1), h.sum(1), h.prod(0), h.norm(), b.softmax(-1), b.log_softmax(0), b.logsumexp(1), b.mean(), b.sum(1), b.var(1), F.layer_norm(h, (200,)), F.rms_norm(b, (400,)))


# New tensors.


@fault("numbers travel as singles; fractions are refused", lambda: [call(torch.randn(2))], functional=True)
def numbers_that_fill(self, x):
    """Tensors full of one number: beyond what singles hold, not finite, with a fraction to be cut, of every type; ranges of floats and of none."""
    return (torch.full((2,), 16777217), torch.full((2,), 2**53 + 1), torch.full((2,), -(2**63)), torch.full((2,), 2**31 - 1, dtype=torch.int32), torch.full((2,), True), torch.full((2,), NAN), torch.full((2,), -INF, dtype=torch.float16),
            torch.full((2,), -1.7, dtype=torch.int64), torch.full((2,), 2.5, dtype=torch.bool), torch.full((), 7), torch.full((2,), 0.1, dtype=torch.bfloat16), torch.full_like(x, 16777217, dtype=torch.int32), torch.full_like(x, 2.9, dtype=torch.int32),
            x.long().fill_(2.7), torch.ones(2, dtype=torch.uint8), torch.scalar_tensor(3) + x, torch.scalar_tensor(True), torch.scalar_tensor(2**53 + 1, dtype=torch.int64), torch.arange(0, 2, 0.5), torch.arange(3.5), torch.arange(1, 4.5, dtype=torch.int64),
            torch.arange(5, dtype=torch.float16), torch.arange(5, 0, -2, dtype=torch.float32), torch.arange(0), torch.arange(-3, 3, dtype=torch.int8), torch.arange(0, 1, 0.1, dtype=torch.bfloat16), A.arange.start_step(0, 1, 0.25, dtype=None), torch.arange(2.5, dtype=torch.int32),
            torch.empty_strided((2, 2), (2, 1)).fill_(1.0), F.pad(x.long(), (1, 1), value=2**40 + 1), F.pad(x > 0, (1, 0), value=True))


@fault("full, arange and repeat cannot make tensors without elements", lambda: [call(torch.randn(n, 2), torch.arange(n) % 3) for n in (3, 0, 5)], dynamic=lambda: {"x": {0: Dim("n", min=0, max=9)}, "i": {0: Dim("n", min=0, max=9)}})
def nothing_made_of_a_symbolic_size(self, x, i):
    """What is filled, counted and repeated by a size that is 0 in one of the calls."""
    n = x.shape[0]
    return (x.new_zeros(n, 2), torch.full((n,), 2**53 + 1), torch.full_like(x, NAN), torch.full((n, 2), n), torch.ones_like(i), torch.arange(n), torch.arange(n, dtype=torch.float32), torch.arange(2, n + 2), x.repeat_interleave(2), x.repeat_interleave(2, 0), x.repeat_interleave(3, 1),
            x.repeat(2, 2), x[:, :1].expand(-1, 3), torch.arange(3.0)[i], torch.ones(3, 3)[i, i], torch.ones(2, 3, 4)[:, i, i], torch.cat([x, x[:0]]), x.flip(0), F.pad(x, (0, 0, 1, 0)), F.embedding(i, torch.ones(3, 2)), x.new_ones(3, 0)[i])


# Copies.


@fault("layouts other than the plain one are refused", lambda: [call(torch.randn(1, 2, 3, 4))])
def layouts_asked_for(self, x):
    """Memory formats, devices and pinning change no value; ExecuTorch's copies by order of dimensions."""
    import executorch.exir.passes.dim_order_ops_registry  # noqa: F401  registers dim_order_ops

    last, ops = torch.channels_last, torch.ops.dim_order_ops
    return (x.contiguous(memory_format=last) + 1, x.to(memory_format=last).relu(), x.clone(memory_format=last).sum(1), torch.empty_like(x, memory_format=last).fill_(2.0), x.contiguous(memory_format=last).permute(0, 2, 3, 1).reshape(1, -1), x.to("cpu"),
            torch.zeros(2, device="cpu", pin_memory=False) + 1, x.to(torch.float16, non_blocking=True), A._to_copy(x, dtype=torch.bfloat16, non_blocking=True), ops._to_dim_order_copy(x, dtype=torch.float16), ops._clone_dim_order(x))


@fault("a source is copied without the destination's shape and type", lambda: [call(T([1.9, -1.9, 0.0, 100.5]), T([0, 1, -1, 127]), torch.randn(2, 4).half())])
def copies_and_casts(self, x, i, h):
    """Casts between all types, and copies into tensors of another shape and type."""
    types = (torch.float16, torch.bfloat16, torch.float32, torch.int8, torch.int32, torch.int64, torch.uint8, torch.bool)
    return (*[v.to(t) for v in (x, i) for t in types], A.copy(h, x), A.copy(i, x), A.copy(x, h[0]), x.type_as(h), A.alias(x) + 1)


# Products of matrices.


@fault("matrices of integers are an error when run", lambda: [call(whole(3, 4), whole(4, 5))], functional=True)
def products_of_integers(self, x, y):
    """Products of integers in every spelling, wrapping where they overflow."""
    return (x @ y, torch.bmm(x[None], y[None]), F.linear(x, y.t()), torch.addmm(x[:1, :1], x, y, alpha=2, beta=3), x.mv(y[:, 0]), x[0].dot(y[:, 0]), torch.matmul(x[None, None], y), x.int() @ y.int(), x.to(torch.uint8) @ y.to(torch.uint8), (x * 2**20) @ (y * 2**20))


@fault("a factor of zero does not hide what is no number", lambda: [call(torch.randn(2, 3, 5), torch.randn(2, 3, 4), torch.randn(2, 4, 5))], rtol=1e-4)
def products_without_their_bias(self, b, x, y):
    """Where beta is 0 the bias is not looked at, though it is NaN; biases of every shape; vectors in linear layers."""
    n = b * NAN
    return (torch.addmm(n[0], x[0], y[0], beta=0), torch.addmm(n[0, 0], x[0], y[0], beta=0, alpha=2), torch.baddbmm(n, x, y, beta=0), torch.addmv(n[0, :, 0], x[0], y[0, :, 0], beta=0), torch.addbmm(n[0], x, y, beta=0),
            torch.addmm(b[0, 0], x[0], y[0], beta=0.5, alpha=2), torch.addmm(b[0, 0, :1], x[0], y[0]), torch.addmm(b[0, :, :1], x[0], y[0]), F.linear(x, y[0].t(), b[0, 0]), F.linear(x[0, 0], y[0].t()), F.linear(x, y[0, :, 0]))


# Shapes.


@fault("an empty vector among others is an error", lambda: [call(torch.randn(2, 3), whole(2, 3), torch.randn(2, 3).half(), T([[True, False, True]] * 2))])
def joined_with_nothing(self, x, i, h, b):
    """Tensors of different types joined, and with vectors without elements, which torch passes over."""
    return (torch.cat([x, i]), torch.cat([h, x], -1), torch.cat([i, b]), torch.cat([x, torch.empty(0)]), torch.cat([torch.empty(0, dtype=torch.int64), i]), torch.cat([i, torch.empty(0)]), torch.stack([x, i, h]), torch.stack([i, b], 1), torch.cat([x]))


@fault("a list of one size is taken for the size of chunks; missing bounds and negative ones are refused", lambda: rows(6, 4, 9), dynamic=any_rows(4))
def pieces_of_every_kind(self, x):
    """Slices and pieces of an axis of symbolic length and of one of known length, from either end, beyond it, with steps, of nothing."""
    n = x.shape[0]
    return (x[1:], x[:-1], x[::2], x[-2:], x[2:4], x[:99], x[99:], x[3:1], x.narrow(0, 1, n - 1), x[-1], x[n - 1], x[:, -2], x.select(-1, -1), *x.split([2, n - 2]), *x.split([n]), A.slice(x, 0), A.slice(x, 0, 2), A.slice(x, 0, None, None), A.slice(x, 1, None, 2), A.slice(x, 1, -3, -1, 1),
            x[:, 1::3], x[:, -9:2], *x.split(3, 1), *x.split((1, 1, 2), 1), *x.split([4], 1), *x.split([0, 4, 0], 1), *x.split(9, 1), *x[:, :0].split([0], 1), *x.chunk(3, 1), *A.split_copy(x, 3, -1), *x.unbind(1))


@fault("a missing start is refused", lambda: [call(torch.randn(n + 1, 4), torch.randn(n, 4)) for n in (4, 2)], dynamic=lambda: {"x": {0: Dim("n", min=2, max=8) + 1}, "s": {0: Dim("n", min=2, max=8)}}, functional=True)
def written_slices_of_every_kind(self, x, s):
    """Slices written with missing, negative and too large bounds, with steps, of another type, of nothing."""
    return (torch.slice_scatter(x, s, 0, 1), torch.slice_scatter(x, s, 0, None, x.shape[0] - 1), torch.slice_scatter(x, s[:1], 0, -1), torch.slice_scatter(x, s[:1].long(), 0, -2, -1), torch.slice_scatter(x, s[:0], 0, 2, 2), torch.slice_scatter(x, x[:, :2], 1, None, 2),
            torch.slice_scatter(x, x[:, :2] * 2, 1, 0, 99, 2), torch.slice_scatter(x, x + 1), torch.slice_scatter(x, x[:, 1:3], 1, 1, 4, 2))


@fault("rolling flat is refused, without an axis rows are repeated, negative padding fails when run", lambda: rows(5, 2, 8), dynamic=any_rows(2, 8))
def arrangements_of_symbolic_rows(self, x):
    """Rolled flat and by shifts beyond the size, turned over no axes, repeated flat, repeated zero times, padded up to a size and cropped."""
    n = x.shape[0]
    return (x.roll(1), x.roll(-5), x.roll(n // 2, 0), x.roll(99, 0), x.roll((1, 2), (1, 1)), x.flip(()), x.flip(0, -1), x[0, 0].roll(1), x[0, 0].flip(0), x.repeat_interleave(2), x.repeat_interleave(2, -1), x.repeat_interleave(2, output_size=8 * n), x.repeat_interleave(0, 1), x.repeat(0, 1), x.repeat(n, 1), x.tile((2, 1, 1)),
            F.pad(x, (0, 0, 0, 8 - n)), F.pad(x, (0, 0, -1, 1)), F.pad(x, (0, 0, n, -2)), F.pad(x, (1, -1, 0, 2), value=-INF), F.pad(x, (-2, -2)))


@fault("views are left to other passes", lambda: [call(torch.randn(3, 4))])
def views_that_are_copies(self, x):
    """Views in the spelling of the edge dialect, and expansion with its flag."""
    return (A.permute_copy(x, (-1, 0)), A.transpose_copy(x, 0, -1), A.squeeze_copy(x[None]), A.squeeze_copy.dims(x[None], [0, -1]), A.squeeze_copy.dim(x[None], 0), A.unsqueeze_copy(x, -1), A.expand_copy(x[:1], [2, 3, 4]), A.expand(x[:1], [3, -1], implicit=True), A.view_copy(x, [12]), A.slice_copy(x, 0, 1, 3), A.select_copy(x, 0, -1),
            A.alias_copy(x), A.detach_copy(x), A._reshape_alias_copy(x, [12], [1]), A.diagonal_copy(x, 1), A.as_strided_copy(x, (2, 2), (1, 4), 0), A.unfold_copy(x, 0, 2, 1), *A.unbind_copy(x), *A.split_with_sizes_copy(x, [1, 3], 1))


# Reading and writing by index.


@fault("indices have the length they had at export", lambda: [call(torch.randn(4, 5, 6), T(i), T(j)) for i, j in (([3, 0, 2], [1, 1, -1]), ([1], [2]), ([1, 2, 3, -4], [2, 0, 0, 1]))],
       dynamic=lambda: {"x": None, "i": {0: Dim("n", min=1, max=9)}, "j": {0: Dim("n", min=1, max=9)}})
def indices_of_symbolic_length(self, x, i, j):
    """Several indices of a length known when the program runs: first axes, inner ones, separated ones, broadcast together, beside a number."""
    return x[i, j], x[:, i, j], x[i, :, j], x[i], x[i[:, None], j], x[i, j, 0], x[:, i, j] * 2, x[i, 1:, j], x[..., j], x.index_select(2, j + 1)


@fault("an index of the tensor's rank is taken along the axis", lambda: [call(torch.randn(4, 4), T([[3, 0], [2, -1]]), T(2), T([True, False, True, True]))], functional=True)
def index_of_equal_rank(self, x, i, one, mask):
    """Indices of as many axes as the tensor, of none, of 32 bits, from the end; an axis stays where a single one is selected; masks that keep the size."""
    return (x[i], x[:, i], x[i, i.t()], x[i.int()], x[-1 - i], x.index_select(0, one), x.index_select(-1, one[None].int()), x[0, 0].index_select(0, one[None] * 0), x[one], A.index(x, [None, one]), x[one, i], x.masked_fill(mask, 0.0), A.index_put(x, [mask], T(2.0)), x.gather(0, i % 4), x[0].gather(0, i[0] % 4),
            F.embedding(i % 4, x), F.embedding(i % 4, x, padding_idx=0, scale_grad_by_freq=True), F.embedding(one.int(), x))


@fault("positions are 32 bits wide and unsigned inside the delegate", lambda: [call(torch.randn(3, 4))])
def positions_used_as_indices(self, x):
    """Positions that an order gives as indices of copies, scatters and sums; compared, clamped, divided, joined and complemented below zero."""
    at, best = x.argsort(1), x.argmax(1)
    return (x.index_copy(0, x.argsort(0)[:, 0], x * 2), torch.zeros(3, 4).index_copy(1, x[0].argsort(), x), x.gather(1, at), torch.zeros_like(x).scatter(1, at, 1.0), x.index_add(0, x[:, 0].argsort(), x), x.scatter_add(1, at, x), x[torch.arange(3), best - 4], best // -2, best % -3, ~best, best < -1,
            torch.where(best > 1, best, -1), torch.stack([best, -x.argmin(1)]), at.sum(1) - 100, best.clamp(min=-1), (best - 2).sign(), best.to(torch.int8) - 9, x.sort(-1).indices.int() - 3, best.float() / -2)


@fault("largest, sorted and descending are ignored", lambda: [call(T([[1.0, NAN, 3.0, -INF], [INF, 2.0, 0.0, -2.0]]), T([[5, 3, 9], [1, -(2**63), 2**63 - 1]]), T([True, False, True]), T([0, 255, 3], dtype=torch.uint8), T([1.0, 2.0, 1.0, 2.0, 2.0, 1.0]))])
def orders_of_every_kind(self, x, i, b, u, ties):
    """The first of either order and whole orders, of NaN, of the least integer, of truth values; equals stay in order where that is promised, and values are those at the places."""
    k = ties.topk(4)
    return (*x.topk(3), *x.topk(2, largest=False), *x[:, 2:].topk(2, 0), *i.topk(2), *i.topk(2, largest=False), *i.topk(0), x.topk(3, sorted=False).values.sort().values, *x[0, 0].topk(1), ties[k.indices] - k.values, k.values,
            *x.sort(0), x.sort(1, True).values, *torch.sort(ties, stable=True), *torch.sort(ties, stable=True, descending=True), torch.argsort(ties, stable=True, descending=True), *i.sort(descending=True), *i.sort(), *torch.sort(b, descending=True, stable=True), *u.sort(descending=True), *x[0, 0].sort())


@fault("the sum over places that several rows share, and shapes that differ, are left outside the delegate", lambda: [call(torch.randn(3, 5), T([[0, 2], [1, 1], [4, 0]]), torch.randn(3, 4))], rtol=2e-3)
def sums_at_places(self, x, i, s):
    """Sums scattered by an index shorter than the tensor and the source, along either axis; of integers and halves; at a place named twice."""
    return x.scatter_add(1, i, s), x.scatter_add(0, i % 3, s[:, :2]), x.scatter_add(1, i[:2, :1], s), x.long().scatter_add(1, i, (s * 9).long()), x.half().scatter_add(1, i, s.half())


# Normalisation.


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm1d(4), nn.BatchNorm1d(4), nn.BatchNorm2d(4), nn.BatchNorm3d(4)])
        for norm in self.norms:
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.normal_(norm.weight)


@fault("only the last axis is normalised, groups have static sizes, batch norm takes three or four axes", lambda: [call(torch.randn(n, 4, h, 5), torch.randn(4), torch.randn(4, 5)) for n, h in ((2, 3), (3, 6))],
       dynamic=lambda: {"x": {0: Dim("n", min=1, max=9), 2: Dim("h", min=2, max=9)}, "w": None, "m": None}, rtol=1e-4, atol=1e-5)
class norms_of_every_kind(Norms):
    """Layer and root-mean-square norms over several axes, with parts of their parameters; group norms of ranks 2 to 5; batch norms of as many."""

    def forward(self, x, w, m):
        y = x[:, :, 0]
        return (F.layer_norm(y, (4, 5)), F.layer_norm(y, (4, 5), m, m), F.layer_norm(y, (5,), m[0]), F.layer_norm(y, (5,), None, m[0]), F.layer_norm(y, (5,), m[0], m[1], 1e-3), A.native_layer_norm(y, [4, 5], m, None, 1e-5)[0], F.rms_norm(y, (4, 5)), F.rms_norm(y, (4, 5), m, 1e-3), A.rms_norm(y * 1e-4, [5], m[0], None),
                F.group_norm(x, 2), F.group_norm(x, 2, w, w), F.group_norm(y, 4, w, w), F.group_norm(y[:, :, 0], 2, w, w), F.group_norm(x[..., None], 1), *[norm(v) for norm, v in zip(self.norms, (y[:, :, 0], y, x, x[..., None]))],
                A._native_batch_norm_legit_no_training(y, w, None, w, w.abs(), 0.1, 1e-5)[0])


@fault("places between pixels are computed in double precision", lambda: [call(*[torch.arange(n * 10.0).view(1, 1, n, 10) for n in (3, 5, 7, 13)], torch.arange(69 * 60.0).view(1, 1, 60, 69))])
def nearest_pixels(self, *images):
    """The nearest pixel in sizes and factors at which single precision decides; in factors that come to the same size, or twice it, small images are taken as they lie."""
    *small, large = images
    sizes = [F.interpolate(x[..., :2], size=(n, 2)) for x in small for n in (1, 2, 4, 9, 14, 20, 41, 49)]
    factors = [F.interpolate(x, scale_factor=f) for x in small[:3] for f in (0.5, 1.5, (3, 0.7), 0.4, 1.1, 2.05, (2.1, 1.1))]
    return (*sizes, *factors, F.interpolate(large, scale_factor=1.005)[..., ::7, ::7], F.interpolate(small[1][0], scale_factor=1.05), F.interpolate(small[0][:, None], scale_factor=(1.1, 2.05, 1.05)), F.interpolate(small[1], scale_factor=1.5, recompute_scale_factor=True),
            F.interpolate(small[1], scale_factor=2.05, mode="nearest-exact"))


@fault("the number of pixels at export is written into the file", lambda: [call(torch.arange(2.0 * h * w).view(1, 2, h, w)) for h, w in ((6, 8), (5, 7), (9, 2))], dynamic=lambda: {"x": {2: Dim("h", min=2, max=9), 3: Dim("w", min=2, max=9)}})
def nearest_pixels_of_any_size(self, x):
    """The nearest pixel where sizes are known when the program runs, by factors and to a given size."""
    return F.interpolate(x, scale_factor=2), F.interpolate(x, size=(7, 5)), F.interpolate(x, scale_factor=1.5)


# Convolution and pooling.


@fault("padding by name and convolutions that are not transposed leave the delegate once decomposed", lambda: [call(torch.randn(b, 4, h, w), torch.randn(6, 4, 3, 2), torch.randn(4, 3, 3, 3), torch.randn(6)) for b, h, w in ((2, 7, 8), (1, 9, 5))],
       dynamic=lambda: {"x": {0: Dim("b", min=1, max=4), 2: Dim("h", min=5, max=12), 3: Dim("w", min=5, max=12)}, "w": None, "t": None, "b": None}, rtol=1e-4, atol=1e-4)
def convolutions_of_every_kind(self, x, w, t, b):
    """Convolutions by kernels that are inputs: padded by name, by numbers for all axes, dilated, by groups, transposed with and without groups, in the one operator that is all of them."""
    line, one, v = x[:, :, 0], [1, 1], w[..., 0]
    return (F.conv2d(x, w, padding="same"), F.conv2d(x, w, padding="valid"), F.conv1d(line, v, padding="same", dilation=2), F.conv2d(x, w, stride=[2], padding=[1], dilation=[2]), F.conv3d(x[:, :, None], w[:, :, None], padding="same"), A.convolution(x, w, b, one, one, one, False, [0, 0], 1), A.convolution(x, w[:, :2], None, [2, 2], [0, 1], [1, 2], False, [0, 0], 2),
            A.convolution(line, v, b, [1], [2], [1], False, [0], 1), A.convolution(x, t, None, [2, 2], one, one, True, [1, 0], 1), F.conv_transpose2d(x, t, groups=2, stride=2), F.conv_transpose2d(x, t, dilation=2, padding=(1, 0)), F.conv_transpose1d(line, t[..., 0], stride=3, padding=1, output_padding=2), F.conv_transpose1d(line, t[..., 0], groups=2))


@fault("last windows, dilation, divisors and places are refused or go wrong, and the batch at export is written into the file", lambda: [call(torch.randn(b, 3, h, 8) - 5) for b, h in ((2, 6), (1, 5), (3, 9))],
       dynamic=lambda: {"x": {0: Dim("b", min=1, max=4), 2: Dim("h", min=5, max=9)}}, rtol=1e-4)
def pooling_of_every_kind(self, x):
    """Pooling of one to three axes with a symbolic batch and height: dilated, last windows reaching beyond the end, padding that counts and does not, other divisors, places, negative elements, no batch."""
    line, volume = x[:, :, 0], x[:, :, None, :4] * torch.arange(3.0).view(3, 1, 1)
    return (F.max_pool2d(x, 3, 2, 1), F.max_pool2d(x, 2, 1, 0, 2), F.avg_pool2d(x, 3, 1, 1), F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), F.avg_pool1d(line, 3, 2, 1, True, False), F.max_pool1d(line, 3, 2, 1, 1, True), F.avg_pool3d(volume, 2, 2, 1, True, False), F.max_pool3d(volume, 2, 2, 1), F.avg_pool2d(x[:, :, :4] * 1, 2, divisor_override=3),
            F.max_pool2d(x[0], 2), F.avg_pool1d(line[0], 2), *F.max_pool1d(line, 2, return_indices=True), *F.max_pool2d(x[:, :, :4], 2, return_indices=True), F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1))


@fault("half_to_float and result types are ignored, a scalar is an error", lambda: [call(torch.randn(3, 4), whole(4), T([[-INF, -INF], [-INF, 1.0], [NAN, 0.0], [1000.0, 0.0]]))], rtol=1e-3, atol=1e-5)
def softmax_of_every_kind(self, x, i, odd):
    """Softmax and its logarithm in another type, of integers, of a scalar, of rows that are infinitely small or no numbers."""
    return (x.softmax(0, dtype=torch.float16), x.half().softmax(1, dtype=torch.float32), i.softmax(0, dtype=torch.float32), x[0, 0].softmax(0), odd.softmax(1), x.log_softmax(0, dtype=torch.float16), i.log_softmax(0, dtype=torch.float32), x[0, 0].log_softmax(0), odd.log_softmax(1), A._softmax(x, 1, False), A._log_softmax(x, -1, False))


# Operators that the reference has no handlers for.


@fault("it leaves these operators outside the delegate", lambda: [call(torch.randn(2, 3, 4, 6), whole(2, 3, 4, 2, low=0, high=6), torch.rand(2, 3, 2, 2) * 2 - 1)], rtol=1e-4)
def operators_without_handlers(self, x, i, grid):
    """Core operators in the overloads that a decomposed program has."""
    bag = A._embedding_bag(x[0, 0], T([1, 2, 3, 0]), T([0, 2]))[0]
    return (A._adaptive_avg_pool2d(x, (2, 3)), A._adaptive_avg_pool3d(x[:, None], (1, 2, 3)), A.adaptive_avg_pool1d(x[0], 3), A._cdist_forward(x[0], x[1], 2.0, None), A._cdist_forward(x[0], x[1], 1.0, None), bag, A.any.dims(x > 1, [0, 1]), A.as_strided(x, (2, 2), (1, 3)), A.diagonal(x, 1, -2, -1), A.div.Scalar_mode(x, 0.3, rounding_mode="trunc"),
            A.elu(x), A.elu(x, 0.5, 2.0, 3.0), A.fmod.Scalar(x, 0.3), A.fmod.Tensor(x, x.flip(0)), A.gather(x, 3, i), A.grid_sampler_2d(x, grid, 0, 0, False), A.index_put(x, [i[0, 0, :, 0] % 2], x[:1]), A.logical_xor(x, x > 0), A.masked_scatter(x, x > 0, x.flip(0)), *A.max.dim(x, 1), *A.min.dim(x, -1, True), A.native_dropout(x, 0.5, False)[0], A.pow.Scalar(2.0, x),
            A.scatter.src(x, 3, i, x), A.scatter.value(x, 3, i, 2.0), A.scatter_reduce.two(x, 3, i, x, "amax"), A.upsample_bilinear2d.vec(x, [7, 9], False, None), A.fill.Scalar(x, 2.0), A.select_scatter(x, x[:, 0], 1, 2), F.pad(x[0], (1, 2), "circular"), A.reflection_pad1d(x[0], [1, 2]), A.reflection_pad2d(x, [1, 1, 2, 0]), A.reflection_pad3d(x, [1, 1, 2, 0, 1, 0]),
            A.replication_pad2d(x, [1, 1, 2, 0]), A.replication_pad3d(x, [1, 1, 2, 0, 1, 0]), A.col2im(x.reshape(1, 24, 6)[:, :, :6], [3, 4], [2, 2], [1, 1], [0, 0], [1, 1]), torch.fft.rfft(x[0, 0]).real, torch.fft.irfft(torch.fft.rfft(x[0, 0])))
