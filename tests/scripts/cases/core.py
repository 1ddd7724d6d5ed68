"""Core ATen overloads for which the reference has no lowering, each called by its own name, and kin of them."""
import torch
from torch.export import Dim
from torch.nn import functional as F

from case import call, case

A = torch.ops.aten
nan, inf = float("nan"), float("inf")
PLACES = torch.tensor([[0, 2], [1, 3], [4, 0]])


@case(steps=lambda: [call(torch.randn(5, 4), torch.randn(3, 4), torch.randn(5, 4).round(), torch.tensor([[0, nan], [inf, 1], [1, 1], [1, 1]]))], functional=True, rtol=1e-4, atol=1e-5)
def core_distances(self, x, y, whole, odd):
    """Of pairs of rows of two matrices and of one: every order, NaN, one row, no columns."""
    orders = (0.0, 0.5, 1.0, 2.0, 3.0, inf)
    return (*(A._pdist_forward(whole if p == 0 else x, p) for p in orders), *(A._cdist_forward(x, y, p, None) for p in orders[1:]), A._cdist_forward(whole, y.round(), 0.0, None), A._pdist_forward(odd), A._pdist_forward(x[:1]),
            A._pdist_forward(x[:2]), A._pdist_forward(x[:, :0], 1.0), A._cdist_forward(x[:, :0], y[:, :0], 2.0, None), A._cdist_forward(x[:0], y, 2.0, 1), F.pdist(x))


@case(steps=lambda: [call(torch.cat([torch.linspace(-8, 8, 33), torch.tensor([0, -0.0, 20, -20, 60, nan])]), torch.randn(5).half(), torch.arange(4))], rtol=1e-5, atol=1e-6)
def bessel_functions(self, x, h, i):
    """Modified ones of the first kind, order 0 and 1, scaled and not."""
    return torch.i0(x), torch.special.i0e(x), torch.special.i1(x), torch.special.i1e(x), torch.special.modified_bessel_i0(x), torch.special.modified_bessel_i1(x), torch.i0(i), torch.special.i1e(h).float()


@case(steps=lambda: [call(torch.randn(5, 5), torch.randn(5, 4), torch.randint(-9, 9, (5, 5)), torch.randn(()), torch.tensor(0), torch.tensor([0, 0]))])
def core_scatters(self, x, s, n, r, zero, zeros):
    """Into scalars and by scalars, by no index, numbers that are no whole ones into whole ones; sums, means, products and extremes."""
    i = PLACES.clone()
    each = [A.scatter_reduce.two(x, 1, i, s, how, include_self=own) for how in ("sum", "prod", "mean", "amax", "amin") for own in (True, False)]
    scalars = [A.scatter_reduce.two(r, 0, zeros, s[0, :2], how, include_self=own) for how in ("sum", "mean", "amax") for own in (True, False)]
    return (A.scatter.src(x, 1, i, s), A.scatter.src(x, -1, i, s), A.scatter.src(n, 0, i[:2], n), A.scatter.src(x, 1, i[:0], s), A.scatter.src(r, 0, zero, r + 1), A.scatter.value(x, 0, i, nan), A.scatter.value(n, 1, i, 2.7),
            A.scatter.value(n, 1, i, True), A.gather(r, 0, zero), A.gather(r, 0, zeros), A.gather(x[0], 0, zero), A.gather(x, -1, i), A.gather(n, 1, i[:0]), A.scatter_add(r, 0, zeros, s[0, :2]), *each, *scalars,
            A.scatter_reduce.two(n, 0, i, n[:3, :2], "mean"), A.scatter_reduce.two(n, 0, i, n[:3, :2], "amin", include_self=False))


@case(steps=lambda: [call(torch.randn(3, n), PLACES.clone() % 4, torch.randn(3, m), torch.randint(0, 5, (3, m))) for n, m in ((5, 4), (7, 2))], dynamic=lambda: ({1: Dim("n", min=5, max=12)}, None, {1: Dim("m", min=2, max=9)}, {1: Dim("m", min=2, max=9)}))
def core_scatters_of_any_length(self, x, i, s, j):
    """Where the axis, or the number of what is written, is known at run time."""
    return [A.scatter_reduce.two(x, 1, j, s, how, include_self=own) for how in ("sum", "prod", "mean", "amax", "amin") for own in (True, False)] + [A.scatter.src(x, 1, i, s), A.scatter.value(x, 1, i, 2.0), A.gather(x, 1, j)]


@case(steps=lambda: [call(torch.randn(3, n), torch.randn(9), torch.randint(0, 9, (6,))) for n in (4, 7)], dynamic=lambda: ({1: Dim("n", min=4, max=9)}, None, None))
def core_storage(self, x, line, i):
    """Tensors as the memory that they lie in: windows that overlap, of symbolic sizes, written to; other sizes; strides, offsets and numbers of elements as numbers."""
    n = x.shape[1]
    y, z = x.clone(), line.clone()
    A.as_strided(y, [3, 2], [n, 1], 1).mul_(2)
    size = torch.empty(0).resize_(2, 3).fill_(1.5)
    return (A.as_strided(line, [4, 3], [2, 1]), A.as_strided(line, [], [], 5), A.as_strided(line, [0, 3], [1, 1]), A.as_strided(x, [n, 3], [1, n], 0), A.as_strided(x, [n - 2, 3], [1, 1], 2), A.as_strided(i, [2, 2], [2, 0], 1),
            A.as_strided_scatter(line, x[:2, :2], [2, 2], [3, 1], 1), y, z.resize_(2, 2), A.resize(line, [3, 3]), size, A.empty_strided([2, n], [1, 2]).fill_(1.0), A.empty_strided([2], [1]).copy_(line[:2]),
            A.empty.memory_format([2, 0]), x * A.sym_stride.int(x, 0), x + A.sym_numel(x), x + A.sym_storage_offset(x), x + (1 if A.sym_is_contiguous(x) else 2))


@case(steps=lambda: [call(torch.randn(4, 6, 5), torch.randn(4, 4, 2))], functional=True, rtol=1e-4, atol=1e-5)
def core_transforms(self, x, pairs):
    """Fourier transforms as export takes them apart: real to complex, back, complex; each scale, several axes; and those of Hermitian numbers."""
    z = torch.view_as_complex(pairs)
    forth = [torch.view_as_real(A._fft_r2c(x, d, n, half)) for d, n, half in (([1], 0, True), ([1], 1, False), ([0], 2, True), ([0, 2], 0, True))]
    back = [A._fft_c2r(z, d, n, m) for d, n, m in (([1], 0, 6), ([1], 1, 7), ([0], 2, 6), ([0, 1], 2, 7))]
    return (*forth, *back, torch.view_as_real(A._fft_c2c(z, [1], 1, False)), torch.view_as_real(A._fft_c2c(z, [0, 1], 0, True)), torch.fft.hfft2(z), torch.fft.hfftn(z, norm="ortho"), torch.fft.hfft2(z, s=(3, 5), norm="forward"),
            torch.view_as_real(torch.fft.ihfft2(x)), torch.view_as_real(torch.fft.ihfftn(x, s=(4, 5), norm="ortho")), torch.complex(x, x + 1).conj().imag, torch.complex(x, x).abs())


@case(steps=lambda: [call(torch.randn(6) * 5, torch.randint(-9, 9, (6,)), torch.randn(6).half() * 5, torch.tensor([nan, inf, -inf, 0, -0.0, 1.5]), torch.randint(0, 3, (2, 3, 4)), torch.tensor([[0, nan, 2], [3, -0.0, nan]]))], rtol=1e-3)
def core_numbers(self, x, i, h, odd, n, m):
    """Element by element and along axes: quotients and rests by numbers, powers of numbers, angles, truth; NaN, infinity, whole numbers, no elements, no axes."""
    b, out = x > 0, torch.empty(6)
    quotients = [f(t, s) for t in (x, i, h) for s in (2, -3, 2.5) for f in (A.fmod.Scalar, lambda t, s: A.div.Scalar_mode(t, s, rounding_mode=None), lambda t, s: A.div.Scalar_mode(t, s, rounding_mode="trunc"), lambda t, s: A.div.Scalar_mode(t, s, rounding_mode="floor"))]
    return (*quotients, A.fmod.Scalar(odd, 2), A.fmod.Tensor(odd, x), A.fmod.Tensor(i, i * 0 + 4), A.pow.Scalar(2, x), A.pow.Scalar(-2, n), A.pow.Scalar(0, odd), A.elu(odd), A.elu(h, 0.5, 2, 3), A.atan2.out(x, odd, out=out), out, A.logical_xor(odd, i),
            A.logical_xor(b, x), A.fill.Scalar(i, 2.7), A.fill.Scalar(b, 3), A.fill.Scalar(x[:0], nan), A.any.dims(n, [0, -1]), A.any.dims(n, None, True), A.any.dims(m, [1]), A.any.dims(b[:0], [0]), *A.max.dim(m, 1), *A.min.dim(n, -2, True),
            *A.max.dim(x[0], 0), A.squeeze.dim(x[0], 0), A.squeeze.dim(n[:1], 0), A.select_scatter(n, n[0], 0, -1), A.diagonal(n, 1, -2, -1), *A.native_dropout(x, 0.5, False), *A.native_dropout(x, 0.0, True))


@case(steps=lambda: [call(torch.randn(2, 3, 5, 6), torch.randn(3, 6, 4, 5), torch.randn(2, 12, 30), torch.tensor([nan, inf, -inf, 0, 1, -1, 0.3, -9]).reshape(2, 2, 2, 1).expand(2, 2, 2, 2).contiguous(), torch.randn(2, 3, 7))], rtol=1e-4, atol=1e-5, reference_wrong="its file pads by a negative number")
def core_images(self, x, y, columns, grid, line):
    """Adaptive pools that do not divide, with positions; columns into an image; edges; sizes in between; places outside of an image, none of them numbers."""
    there = A.grid_sampler_2d(x, grid[:, :, 1:].nan_to_num().clamp(-9, 9), 0, 0, False), A.grid_sampler_2d(x, grid[:, 1:].nan_to_num().clamp(-9, 9), 1, 1, True), A.grid_sampler_2d(x, grid[:, 1:].nan_to_num().clamp(-9, 9), 2, 2, False)
    return (A.adaptive_avg_pool1d(line, [3]), A._adaptive_avg_pool2d(x, [3, 4]), A._adaptive_avg_pool2d(y, [1, 1]), A._adaptive_avg_pool3d(x, [2, 3, 4]), A.col2im(columns, [4, 5], [2, 2], [1, 1], [1, 1], [1, 1]), A.reflection_pad1d(line, [1, 2]), A.reflection_pad2d(x, [1, 2, 0, 3]),
            A.reflection_pad3d(x, [1, 1, 2, 0, 1, 0]), A.replication_pad2d(x, [7, -1, 1, 2]), A.replication_pad3d(x, [1, 1, 2, 0, 1, 0]), A.upsample_bilinear2d.vec(x, [7, 4], False, None), A.upsample_bilinear2d.vec(x, None, True, [1.5, 0.75]), *there, A.grid_sampler_2d(x, grid, 1, 0, True) * 0,
            *F.adaptive_max_pool2d(x, (3, 4), return_indices=True), *F.adaptive_max_pool1d(line, 4, return_indices=True), *F.adaptive_max_pool3d(x, (2, 3, 4), return_indices=True))


@case(steps=lambda: [call(torch.randn(7, 4), torch.randint(0, 7, (8,)), torch.tensor([0, 3, 3, 6]), torch.randn(3, 4), torch.randn(12), torch.tensor(0.5), torch.tensor(2))], functional=True)
def core_rows(self, table, index, offsets, x, values, part, count):
    """Rows in bags, rows written, what a mask takes; numbers taken out of tensors and used again."""
    mask, number = x > 0, A._local_scalar_dense(part)
    bags = [A._embedding_bag(table, index, offsets, False, mode)[0] for mode in (0, 1, 2)]
    return (*bags, A._embedding_bag(table, index, offsets, False, 0, False, values[:8])[0], A.index_put(table, [offsets], x.new_ones(4, 4)), A.index_put(table, [None, count], values[:7], True), A.masked_scatter(x, mask, values), A.masked_scatter(x[0], mask, values),
            A.masked_scatter(x, mask & False, values[:0]), x * number, x.half() + number, number - x, torch.where(x > number, x, number), x + A._local_scalar_dense(count))


@case(steps=lambda: [call(torch.randn(5, 4), torch.randn(5, 4), torch.randint(0, 3, (3, 6)), torch.randn(4))], rtol=1e-4, atol=1e-5)
def samples(self, x, at, n, line):
    """Integrals and slopes of samples, powers and pairs of numbers, what occurs most often."""
    return (torch.trapezoid(x), torch.trapezoid(x, dx=0.5, dim=0), torch.trapezoid(x, at), torch.trapezoid(x, at[0]), torch.cumulative_trapezoid(x), torch.cumulative_trapezoid(x, at, dim=0), *torch.gradient(x), *torch.gradient(x, spacing=2.0, dim=1),
            *torch.gradient(x, dim=0, edge_order=2), torch.vander(line), torch.vander(line, 3, increasing=True), torch.linalg.vander(x, N=3), torch.combinations(line), torch.combinations(line, 2, True), *n.mode(1), *n.float().mode(0, keepdim=True))


@case(steps=lambda: [call(torch.randn(2, 2, h, w), torch.rand(2, k, 3, 2) * 2.6 - 1.3) for h, w, k in ((5, 6, 4), (7, 4, 2))], dynamic=lambda: ({2: Dim("h", min=3, max=9), 3: Dim("w", min=3, max=9)}, {1: Dim("k", min=2, max=9)}), rtol=1e-4, atol=1e-5)
def grid_sample_of_any_size(self, x, grid):
    """Images whose size is known at run time, at places of which as many are: each way between pixels, each kind of edge."""
    return [A.grid_sampler_2d(x, grid, mode, edge, aligned) for mode, edge, aligned in ((0, 0, False), (0, 1, True), (1, 2, False), (1, 0, True), (2, 1, False), (2, 2, True))]


@case(steps=lambda: [call(torch.randn(n, 3, 4, 4), torch.randn(1, 2, 3, 2, 2)) for n in (2, 3)], dynamic=lambda: ({0: Dim("n", min=2, max=6)}, None), rtol=1e-4, atol=1e-5, bare=True)
class core_storage_in_other_orders(torch.nn.Module):
    """Memory behind tensors with channels last (made so, cast so, convolved so, a weight), behind views of them, written to, and behind views that begin elsewhere."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 5, 1).to(memory_format=torch.channels_last)
        self.register_buffer("table", torch.randn(2, 3, 2, 2).contiguous(memory_format=torch.channels_last), persistent=True)

    def forward(self, x, v):
        c, d, last = x.contiguous(memory_format=torch.channels_last), v.contiguous(memory_format=torch.channels_last_3d), torch.channels_last
        made = [x.to(memory_format=last), x.clone(memory_format=last), (x * 2).to(memory_format=last), c + 1, self.conv(c).relu(), self.table, x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)]
        w = x.clone(memory_format=last)
        A.as_strided(w, [2, 2], [3, 1], 1).mul_(-2)
        w.add_(1)
        t, y = x.clone(), x * 1
        A.as_strided(t[1], [2, 3], [7, 2], 3).zero_()
        rows = y[:, 1:]
        return ([A.as_strided(m, [6], [1]) for m in (c, d, *made)] + [A.as_strided(c, [3, 2], [5, 2], 4), A.as_strided(d, [2, 2, 3], [12, 1, 4], 0), w, A.as_strided(w, [5], [2]), t, A.as_strided(c.permute(0, 2, 3, 1), [7], [1]), A.as_strided(c[1], [7], [1], 2),
                A.as_strided(c[1], [7], [1]), A.as_strided(rows, [4], [1]), A.as_strided(rows[1, 0], [2, 2], [4, 1]), A.as_strided(x.select(1, 2), [5], [1], 0), A.as_strided(y.transpose(1, 2)[:, 1:], [5], [1]), A.as_strided_copy(c, [6], [1], 1)])
