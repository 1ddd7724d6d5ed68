"""Operators that fall apart into others, a family a case, with the inputs at which formulas go wrong."""
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

from case import call, case

OUTSIDE = "it leaves these operators outside the delegate"
inf, nan = float("inf"), float("nan")
ODD = [nan, inf, -inf, 0.0, -0.0, 1.5, -2.5, 0.5, 3e38, 1e-30]


def whole(*sizes, low=-9, high=10, dtype=torch.int64):
    return torch.randint(low, high, sizes, dtype=dtype)


def operators(**more):
    return dict(rtol=1e-4, atol=1e-5, reference_wrong=OUTSIDE) | more


@case(steps=lambda: [call(torch.tensor(ODD)), call(torch.randn(10) * 3)], **operators())
def odd_numbers(self, x):
    """Functions of single elements at NaN, infinities, zeros of both signs, and beyond what halves hold."""
    return (F.hardshrink(x), F.softshrink(x), x.frac(), x.isfinite(), x.isposinf(), x.isneginf(), x.isreal(), x.sgn(), x.signbit(), x.nan_to_num(),
            x.nan_to_num(1.0, 2.0, 3.0), x.fmod(2.5), torch.heaviside(x, x * 0 + 0.5), torch.copysign(x, x.flip(0)), torch.copysign(x, -0.0),
            torch.fmax(x, x.flip(0)), torch.fmin(x, x.flip(0)), torch.hypot(x, x.flip(0)), torch.isclose(x, x.flip(0), equal_nan=True), x.exp2(),
            torch.xlogy(x, x.flip(0)), x.erfc(), torch.special.entr(x), torch.logaddexp2(x, x))


@case(steps=lambda: [call(torch.rand(8) * 0.9 + 0.05, torch.tensor([0.0, 1.0, 3.0, -4.0, 7.5, -0.5, 9.0, 2.0]))], **operators())
def special_functions(self, u, x):
    """Error functions and their kin, on both sides of where their formulas meet; angles, sinc, logit."""
    return (x.erfc(), torch.special.erfcx(x.abs()), torch.special.ndtr(x), torch.special.log_ndtr(x), u.erfinv(), (-u).erfinv(), u.logit(),
            torch.cat([u[:2], -u[:2]]).logit(0.2), x.sinc(), x.deg2rad(), x.rad2deg(), torch.special.xlog1py(x, u), torch.ldexp(u, x.long()),
            torch.special.entr(u), torch.hypot(x, u), F.rrelu(x))


@case(steps=lambda: [call(torch.tensor([3.0, -1.5, 0.25, 60000.0], dtype=torch.float16), torch.tensor([nan, inf, -inf, 2.5], dtype=torch.bfloat16))],
      **operators(rtol=1e-2, atol=1e-3))
def operators_in_halves(self, h, b):
    """Half types: limits of the type, results rounded once."""
    return (F.hardshrink(h), F.softshrink(h), b.nan_to_num(), h.nan_to_num(), h.fmod(0.75), h.exp2().nan_to_num(), h.sinc(), F.mse_loss(h, h * 2), h.median(),
            h.cumprod(0)[:3], b.isfinite(), torch.var_mean(h[:3]), h[:3].norm(), torch.hypot(h[:3], h[1:]), F.normalize(h[:3], dim=0))


@case(steps=lambda: [call(torch.tensor([7, -7, 9, -9, 0, 5]), torch.tensor([3, 3, -3, -3, 2, 7], dtype=torch.int32),
                          torch.tensor([-128, -127, 127, 5, -5, 100], dtype=torch.int8), torch.tensor([200, 255, 3, 0, 17, 128], dtype=torch.uint8))], **operators())
def operators_on_integers(self, i, j, k, u):
    """Integers: remainders with the dividend's sign, shifts, running products, quotients at the edges of 8 and 32 bits."""
    edge = torch.stack([j.clamp(0, 0) - 2147483647 - 1, j * 0 + 2147483647])
    return (i.fmod(4), i.fmod(j), u.fmod(7), i << 2, i >> 1, i << j.abs().long(), u >> 3, u << 1, k >> 2, i.cumprod(0), i.cummax(0), u.cummin(0), i.diff(), i.bool().diff(),
            i.count_nonzero(), i.nan_to_num(), i.isfinite(), i.signbit(), k // 3, torch.div(k, 7, rounding_mode="trunc"), k % -7, edge // 3, edge // 7, edge % 7,
            torch.div(edge, -3, rounding_mode="trunc"), torch.linalg.vecdot(i.float(), i.float()), i[:2].outer(i) @ i.view(6, 1), i.kthvalue(2))


@case(steps=lambda: [call(torch.tensor([[3.0, -1.5, 2.0, 9.0], [0.5, nan, -4.25, 1.0]]), torch.tensor([[7, -8, 5], [-3, 4, 0], [2, 2, -9]]))], **operators())
def order_and_diagonals(self, x, i):
    """Medians (NaN counts as one, or does not), ranks, quantiles, diagonals, differences, extremes with their places, running ones."""
    return (x.median(), x[0].median(), x.median(1), x.median(0, keepdim=True), x.nanmedian(), x.nanmedian(1), i.median(), i.median(-1), i.kthvalue(2, dim=0), i.diagonal(),
            i.diagonal(-1), i.diagonal(3), x.diagonal(-1, 1, 0), i.trace(), x.diff(), i.diff(n=2, dim=0), x.diff(prepend=x[:, :1]), x.max(1), i.min(0, keepdim=True), x.aminmax(dim=1),
            x.aminmax(), x.cummax(1), x.cummin(0), x[0].logcumsumexp(0), torch.msort(i), x.quantile(0.3, dim=1), x[0].quantile(0.5), x[0].quantile(0.9, interpolation="lower"),
            x.nansum(1), x.nanmean(), x.nansum())


@case(steps=lambda: [call(torch.randn(3, 4), torch.randn(4)), call(torch.randn(5, 4), torch.randn(4))], dynamic=lambda: {"x": {0: Dim("n", min=2, max=9)}, "y": None}, **operators())
def rows_of_unknown_number(self, x, y):
    """Families that must not write the number of rows at export into the file."""
    return (x.diff(), x.median(1), x.cumprod(1), x.logcumsumexp(1), torch.cdist(x, x), torch.einsum("nd,md->nm", x, x), torch.einsum("nd,d->n", x, y), torch.diag_embed(x),
            F.one_hot(x.argmax(1), 4), F.cross_entropy(x, x.argmax(1)), F.normalize(x), torch.var_mean(x, 1), x.roll(1, 0), torch.searchsorted(y.sort().values, x),
            torch.isin(x.argmax(1), torch.tensor([1, 2])), x.rot90(), torch.meshgrid(x[:, 0], y, indexing="ij"), x.max(1), torch.linalg.norm(x), F.gelu(x), x.aminmax(dim=1),
            torch.cosine_similarity(x, y[None]), x.count_nonzero(0), x.nansum(1), torch.addr(x, x[:, 0], y))


@case(steps=lambda: [call(torch.randn(2, 3, 4), torch.randn(2, 3, 5), torch.tensor([2, 0, 3]))], **operators(functional=True))
class bilinear_and_repetitions(nn.Module):
    """What is left of a bilinear layer and of repetitions in a functional program: products of three, and which element each place repeats."""

    def __init__(self):
        super().__init__()
        self.layer, self.bare = nn.Bilinear(4, 5, 6), nn.Bilinear(4, 5, 2, bias=False)

    def forward(self, x, y, n):
        return (self.layer(x, y), self.bare(x[0, 0], y[0, 0]), x.repeat_interleave(n, 1, output_size=5), torch.repeat_interleave(n, output_size=5),
                torch.repeat_interleave(n.to(torch.int32), output_size=5))


@case(steps=lambda: [call(torch.randn(3, 4), torch.rand(3, 4) * 0.8 + 0.1, torch.tensor([0, 3, -100]), torch.rand(4))], **operators(functional=True))
def losses(self, x, u, t, w):
    """Losses: none, mean and sum; weights, ignored targets, smoothing, both forms of targets."""
    s = torch.sign(x)
    return (*[f(x, u, reduction=r) for r in ("none", "mean", "sum") for f in (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.kl_div, F.binary_cross_entropy_with_logits)],
            F.binary_cross_entropy(u, u.flip(0)), F.binary_cross_entropy(u.round(), u), F.binary_cross_entropy_with_logits(x, u, w, pos_weight=w), F.smooth_l1_loss(x, u, beta=0.0),
            F.huber_loss(x, u, delta=0.2), F.poisson_nll_loss(x, u), F.poisson_nll_loss(u, u * 3, log_input=False, full=True), F.soft_margin_loss(x, s), F.hinge_embedding_loss(x, s),
            F.margin_ranking_loss(x, u, s), F.cosine_embedding_loss(x, u, s[:, 0]), F.triplet_margin_loss(x, u, u.flip(0)), F.multi_margin_loss(x, t.clamp(min=0)),
            F.cross_entropy(x, t), F.cross_entropy(x, t, reduction="none"), F.cross_entropy(x, t, w, label_smoothing=0.1), F.cross_entropy(x, u.softmax(1), label_smoothing=0.2),
            F.cross_entropy(x.t()[None], t.new_tensor([[0, 1, 3]]) % 4), F.nll_loss(x, t, w), F.nll_loss(x[0], t[1]), F.kl_div(x, u, log_target=True, reduction="batchmean"))


@case(steps=lambda: [call(torch.randn(3, 4), torch.randn(2, 3, 4))], **operators(functional=True))
class lengths_and_distances(nn.Module):
    """Norms of every order, of vectors and matrices; distances; normalisation of weights and of slices."""

    def __init__(self):
        super().__init__()
        self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
        self.convolution = nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 2, 2), dim=0)

    def forward(self, x, b):
        norms = [torch.linalg.vector_norm(x, order, dim=1) for order in (0, 1, 2, 3, 0.5, inf, -inf)]
        distances = [torch.cdist(b, b.flip(1), p=p) for p in (1.0, 2.0, 3.0, inf)]
        return (*norms, *distances, x.norm(), x.norm(p=1, dim=0, keepdim=True), torch.linalg.norm(x), torch.linalg.norm(x, dim=1), torch.linalg.matrix_norm(b),
                torch.linalg.matrix_norm(x, 1), torch.linalg.matrix_norm(b, -inf, keepdim=True), torch.norm(x, "fro"), F.normalize(x, dim=-1), F.pairwise_distance(x, b[0]),
                F.cosine_similarity(x, b), F.cosine_similarity(x * 0, x, dim=0), torch.dist(x, b[0], 1), x.renorm(2, 0, 1.0), self.layer(x), self.convolution(b), torch.cdist(x[:0], x))


@case(steps=lambda: [call(torch.randn(2, 3, 4), torch.randn(2, 4, 5), torch.randn(3, 3))], **operators())
def contractions(self, a, b, m):
    """Sums of products: equations with batches, traces, diagonals, broadcasting, three operands; tensordot, kron, cross, powers."""
    e = torch.einsum
    return (e("bij,bjk->bik", a, b), e("bij,bjk->kb", a, b), e("ii->", m), e("bii->bi", m[None]), e("...ij,...jk->...ik", a, b), e("bij,jk,bkl->il", a, b[0], b.mT), e("bij->j", a),
            e("i,j->ij", m[0], m[1]), e("bij,ij->b", a, a[0]), e("bhwc,hkc->bhwk", a[:, :, None], b[:1, :, :4].expand(3, 4, 4)), e("ij,jk", m, m), e("...i->...", a), a @ b[:1],
            torch.tensordot(a, b, dims=([2], [1])), torch.tensordot(m, m, dims=1), torch.kron(m, a[0]), torch.kron(m[0], m), torch.linalg.cross(m, m.t()), torch.cross(m, m[:1].expand(3, 3), dim=1),
            torch.linalg.matrix_power(m, 5), torch.linalg.multi_dot((a[0], b[0], b[1].t())), torch.addbmm(a[0] @ b[0], a, b, beta=0.5, alpha=2), torch.addr(m, m[0], m[1], beta=0.0),
            torch.inner(m, a[0].t()), F.bilinear(a[0], a[1], m.new_ones(2, 4, 4) * m[0, 0], m[0, :2]), torch.linalg.vecdot(a, b.mT[:, :3]), torch.baddbmm(a @ b, a, b, beta=2))


@case(steps=lambda: [call(torch.randn(3, 5), torch.tensor([[0, 2, 2], [1, 3, 1], [4, 0, -1]]).remainder(5), torch.randn(3, 4), torch.tensor([0, 2, 0]))], **operators())
def writing_by_index(self, x, at, source, rows):
    """Scatters that sum, multiply, average, take the largest; with and without what was there; where fewer rows have an index than there are."""
    reductions = [x.scatter_reduce(1, at, source, how, include_self=own) for how in ("sum", "prod", "mean", "amax", "amin") for own in (True, False)]
    by_rows = [x.index_reduce(0, rows, x.flip(0), how, include_self=own) for how in ("prod", "mean", "amax", "amin") for own in (True, False)]
    whole = (x * 9).long()
    return (*reductions, *by_rows, x.scatter(1, at[:, :2], source), x.scatter(1, at[:, :1], 2.0), x.scatter(1, at[:2], 2.0, reduce="multiply"), x.scatter_add(1, at[:2], source), x.scatter_add(0, at[:, :2] % 3, source),
            whole.scatter_reduce(1, at, whole, "amax"), whole.scatter_reduce(1, at, whole, "mean", include_self=False), x.put(at, source[:, :3]), x.put(at[:1], source[:1, :3], accumulate=True),
            x.masked_scatter(x > 0, source.repeat(2, 1)), x.index_add(0, rows, x, alpha=2), x.index_put((rows,), x.flip(0), accumulate=True), x.index_fill(1, rows, 3.0),
            torch.diagonal_scatter(x[:, :3], x[0, :3]), torch.select_scatter(x, x[:, 0], 1, -1), torch.slice_scatter(x, source[:, :2], 1, 1, 5, 2), x.clone().fill_diagonal_(2.0))


@case(steps=lambda: [call(torch.randn(7, 4), torch.tensor([[0, 5], [11, -1]]), torch.tensor([3, 0, 6, 6, 1, 2, 3, 5]), torch.tensor([0, 3, 3, 6]), torch.tensor([2, 0, 1, 3]))], **operators())
class reading_by_index(nn.Module):
    """Bags of rows, elements of the tensor taken flat, repeated rows, places among boundaries, membership, classes."""

    def __init__(self):
        super().__init__()
        self.bags = nn.ModuleList([nn.EmbeddingBag(7, 4, mode=m, padding_idx=p) for m in ("sum", "mean", "max") for p in (None, 3)])
        self.ended = nn.EmbeddingBag(7, 4, mode="sum", include_last_offset=True)

    def forward(self, x, at, rows, offsets, times):
        bounds = x[:, 0].sort().values
        return (*[bag(rows, offsets) for bag in self.bags], self.bags[0](rows.view(2, 4)), self.bags[0](rows, offsets, x[:2].flatten()), self.ended(rows, offsets), torch.take(x, at),
                torch.take_along_dim(x, rows), torch.take_along_dim(x, at[:1] % 4, 1), x[:4].repeat_interleave(times, 0, output_size=6), torch.bucketize(x, bounds),
                torch.bucketize(x, bounds, right=True, out_int32=True), torch.searchsorted(x.sort(1).values, x[:, :2]), torch.searchsorted(bounds, x * nan), torch.bucketize(x * inf, bounds, right=True),
                torch.isin(rows, times), torch.isin(rows, 6, invert=True), F.one_hot(rows, 7), x.gather(0, rows[:3, None]))


@case(steps=lambda: [call(torch.randn(2, 3, 4), torch.randn(3))], **operators())
def arrangements(self, x, v):
    """Diagonals made and filled, turns, grids, parts side by side, strided reads, what is made of positions alone."""
    m = x[0]
    return (torch.diag(v), torch.diag(m, 1), torch.diag_embed(m), torch.diag_embed(m, 1), torch.diag_embed(m, -1, 0, 2), torch.diag_embed(m, 1, 2, 1), torch.diagflat(m, -1), x.diagonal(1, -2, -1), m.trace(),
            *[torch.rot90(m, k) for k in (1, 2, 3, -1)], torch.rot90(x, 1, (-1, 1)), m.fliplr(), m.flipud(), *torch.meshgrid(v, m[0], indexing="xy"), torch.cartesian_prod(v, m[0]), torch.block_diag(m, v, v[0]),
            nn.utils.rnn.pad_sequence([m, m[:2]]), nn.utils.rnn.pad_sequence([m, m[:2]], batch_first=True, padding_value=-1.0), F.channel_shuffle(x.mT[..., None].contiguous(), 2), *torch.broadcast_tensors(v[:, None], m),
            x.as_strided((2, 3), (4, 1), 1), x.as_strided((5, 3), (1, 1)), m + torch.eye(3, 4), torch.logspace(0, 1, 4) * v[0], v + torch.hann_window(3), v + torch.hann_window(3, periodic=False), v + torch.hamming_window(3),
            v + torch.blackman_window(3), *torch.tensor_split(x, (1, 3), dim=2), *x.chunk(3, 2), torch.hstack((m, m)), torch.dstack((m, m)), m.roll((1, -1), (0, 1)), v.sum().flip(0) if v.dim() == 0 else v.flip(0),
            F.pad(x, (1, 2), "circular"), F.pad(x, (1, 2), "reflect"), F.pad(x, (1, 2), "replicate"))


@case(steps=lambda: [call(torch.randn(2, 3, 5, 6), torch.rand(2, 4, 3, 2) * 2.6 - 1.3, torch.randn(2, 2, 3)), call(torch.randn(1, 3, 5, 6), torch.rand(1, 4, 3, 2) * 2.6 - 1.3, torch.randn(1, 2, 3))],
      dynamic=lambda: {"x": {0: Dim("b", min=1, max=4)}, "grid": {0: Dim("b", min=1, max=4)}, "theta": {0: Dim("b", min=1, max=4)}}, **operators())
def sampled_grids(self, x, grid, theta):
    """Images between pixels: every interpolation and every outside, corners aligned or not; grids of affine maps; a symbolic batch."""
    samples = [F.grid_sample(x, grid, mode, outside, aligned) for mode in ("bilinear", "nearest") for outside in ("zeros", "border", "reflection") for aligned in (True, False)]
    affine = [F.affine_grid(theta, (x.shape[0], 3, 4, 5), aligned) for aligned in (True, False)]
    return (*samples, F.grid_sample(x, grid, "bicubic", "border", False), *affine)


@case(steps=lambda: [call(torch.randn(1, 2, 3, 4, 5), torch.rand(1, 2, 3, 4, 3) * 2.6 - 1.3)], **operators())
def sampled_volumes(self, x, grid):
    """The same in three dimensions, and pooling of volumes that says where."""
    return (F.grid_sample(x, grid, align_corners=True), F.grid_sample(x, grid, "nearest", "border", False), *F.max_pool3d(x, 2, 1, 1, return_indices=True), F.interpolate(x, (4, 5, 6), mode="trilinear"))


@case(steps=lambda: [call(torch.randn(2, 4, 6, 8), torch.randn(2, 3 * 4, 5 * 6), torch.randn(1, 2 * 6, 3 * 2))], **operators())
def windows_and_columns(self, x, columns, apart):
    """Images as columns and back, overlapping or apart; pooling that says where, and its inverse."""
    pooled, at = F.max_pool2d(x, 2, return_indices=True)
    return (F.unfold(x, (2, 3), padding=1, stride=2), F.unfold(x[0], 2, dilation=2), F.fold(columns, (4, 5), (2, 2), padding=1), F.fold(apart, (5, 6), (2, 3), dilation=2, stride=(1, 2), padding=(0, 1)),
            pooled, at, F.max_unpool2d(pooled, at, 2), *F.max_pool2d(x, 3, 2, 1, return_indices=True), *F.max_pool2d(x, (3, 2), 2, 1, ceil_mode=True, return_indices=True), *F.max_pool1d(x[0], 3, return_indices=True),
            *F.adaptive_max_pool2d(x, (3, 4), return_indices=True), F.lp_pool2d(x.abs(), 2, 3), x.unfold(2, 2, 2).unfold(3, 3, 1), F.pixel_unshuffle(x, 2), F.pixel_shuffle(x, 2))


@case(steps=lambda: [call(torch.randn(2, 3, 4, 5), torch.randn(2, 3, 7))], **operators(functional=True))
class stored_statistics(nn.Module):
    """Instance norm with statistics of its own, batch norm beside it; variances and means in every spelling; attention rows with nothing to see."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList([nn.InstanceNorm2d(3, affine=True, track_running_stats=True), nn.InstanceNorm2d(3), nn.BatchNorm2d(3)])
        self.line = nn.InstanceNorm1d(3, affine=True, track_running_stats=True)
        for norm in (self.norms[0], self.norms[2], self.line):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, x, y):
        return (*[norm(x) for norm in self.norms], self.line(y), *torch.var_mean(y), *torch.var_mean(y, 1), *torch.var_mean(y, dim=(0, 1), correction=0, keepdim=True), *torch.std_mean(y, 0),
                *torch.std_mean(y, unbiased=False), y.var(0), y.var((0, 1), unbiased=False), y.std(1, correction=2, keepdim=True), torch.ops.aten._safe_softmax(y.masked_fill(y[:1] > -9, -inf), -1),
                torch.fake_quantize_per_tensor_affine(y, 0.1, 3, -8, 7), torch.fake_quantize_per_channel_affine(y, y[0, :, 0].abs() + 0.1, torch.zeros(3, dtype=torch.int32), 1, -8, 7))


def rows(*counts, columns=4):
    return [call(torch.randn(n, columns).index_put((torch.tensor([n // 2]), torch.tensor([1])), torch.tensor(float("nan"))), torch.randint(-4, 5, (n,)), torch.tensor([0.1, 0.5, 1.0])) for n in counts]


@case(steps=lambda: rows(5, 1, 8), dynamic=lambda: {"x": {0: Dim("n", min=1, max=9)}, "i": {0: Dim("n", min=1, max=9)}, "q": None}, **operators())
def order_of_an_unknown_number(self, x, i, q):
    """Medians, ranks, quantiles, running extremes, products and sums of logarithms along an axis whose length is known at run time."""
    plain = torch.nan_to_num(x)
    return (x.median(0), i.median(), x.nanmedian(0).values, x.T.kthvalue(1, 1), x.quantile(0.3, 0), x.quantile(q, 0, keepdim=True), plain.quantile(q[1], 0, interpolation="nearest"),
            x.nanquantile(0.7), x.nanquantile(q, 0, interpolation="higher"), x.cummax(0), i.cummin(0).values, x.cumprod(0), i.cumprod(0), x.logcumsumexp(0), plain.quantile(0.5), F.glu(plain.repeat(2, 1), 0))


@case(steps=lambda: [call(torch.randn(n, n, 3)) for n in (5, 4, 7)], dynamic=lambda: {"x": {0: Dim("n", min=4, max=9), 1: Dim("n", min=4, max=9)}}, **operators())
def diagonals_of_unknown_length(self, x):
    """Diagonals of square matrices of any size, beside the middle too."""
    return x.diagonal(), x.diagonal(1), x.diagonal(-2, 0, 1), x[..., 0].trace()


def image(*sizes):
    return [call(torch.randn(1, 2, h, w)) for h, w in sizes]


def any_image(low=4):
    return {"x": {2: Dim("h", min=low, max=20), 3: Dim("w", min=low, max=20)}}


@case(steps=lambda: image((6, 7)) + image((6, 7)), **operators())
def resampling_without_aliases(self, x):
    """Antialiased resampling, down and up, linear and cubic, by sizes and by factors, corners aligned or not."""
    smooth = lambda x, mode, **more: F.interpolate(x, mode=mode, antialias=True, **more)
    return (smooth(x, "bilinear", size=(4, 3)), smooth(x, "bicubic", size=(3, 4)), smooth(x, "bilinear", size=(9, 8)), smooth(x, "bicubic", scale_factor=(0.6, 1.7)), smooth(x, "bilinear", size=(3, 7), align_corners=True),
            smooth(x, "bicubic", size=(5, 2), align_corners=True), smooth(x[:, :1], "bilinear", scale_factor=0.5))


@case(steps=lambda: image((6, 7), (5, 12), (9, 4)), dynamic=any_image, **operators())
def resampling_of_any_size(self, x):
    """Resampling where sizes are known at run time: cubic ones, by factors and to a given size."""
    return (F.interpolate(x, scale_factor=1.5, mode="bicubic"), F.interpolate(x, size=(7, 3), mode="bicubic", align_corners=True), F.interpolate(x, scale_factor=2, mode="nearest-exact"), F.interpolate(x, size=(5, 6), mode="bilinear"),
            F.interpolate(x[:, :, 0], size=9, mode="linear"), F.interpolate(x[:, None], size=(2, 5, 3), mode="trilinear", align_corners=True))


@case(steps=lambda: image((6, 7), (8, 13), (10, 9)), dynamic=lambda: {"x": {2: 2 * Dim("h", min=3, max=10), 3: 2 * Dim("w", min=3, max=10) - 1}}, **operators())
def pooling_of_any_size(self, x):
    """Pooling where sizes are known at run time: to a given size, with a last window that reaches beyond the end, with divisors that vary."""
    return (F.adaptive_avg_pool2d(x, (3, 2)), F.max_pool2d(x, 3, 2, 1, ceil_mode=True), F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            F.avg_pool2d(x[0], (4, 2), 2, (2, 0), False, False))


@case(steps=lambda: image((6, 7), (5, 12), (9, 8)), dynamic=lambda: any_image(5), **operators())
def padding_of_any_size(self, x):
    """Padding by mirrored, repeated and wrapped elements where sizes are known at run time."""
    return (F.pad(x, (1, 2, 3, 0), "reflect"), F.pad(x, (1, 2, 0, 4), "replicate"), F.pad(x, (4, 2, 1, 3), "circular"), F.pad(x[0], (2, 1), "reflect"), F.pad(x[0], (0, 5), "replicate"))


@case(steps=lambda: [call(torch.randn(2, 4, 4))], reference_wrong="the reference leaves tril_indices outside the delegate")
def triangle_indices(self, x):
    """Places below and above diagonals, known when the program is lowered."""
    below, above = torch.tril_indices(4, 4, -1), torch.triu_indices(3, 4, 1)
    return x[:, below[0], below[1]], x[:, above[0], above[1]], above
