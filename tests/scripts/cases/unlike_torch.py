"""Where an instruction of MLX does not answer as torch does, and the program is written so that it does: rows that a mask hides whole, sums of
halves, places of NaN, integers to negative powers."""
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

from case import CASES, call, case

T = torch.tensor
INF, NAN = float("inf"), float("nan")
attend = F.scaled_dot_product_attention
WRONG = "rows that a mask hides whole are NaN to MLX"
HALVES = "it adds halves up in their own type"
POWERS = "an integer to a negative power does not end on its CPU backend"
REASONS = (WRONG, HALVES, POWERS, "it passes over NaN")


def heads(q=3, k=5, n=4, kv=4, width=8, dtype=torch.float32):
    return [torch.randn(2, h, length, width).to(dtype) for h, length in ((n, q), (kv, k), (kv, k))]


def hiding(*shape, rows=(1,), dtype=torch.float32):
    """Numbers, with minus infinity here and there, and throughout these rows."""
    mask = torch.randn(*shape)
    mask[..., 0] = -INF
    mask[..., [row for row in rows if row < shape[-2]], :] = -INF
    return mask.to(dtype)


@case(steps=lambda: [call(*heads(), hiding(2, 1, 3, 5), hiding(3, 5), T([[True, False, False, True, True], [True] * 5]), T([0, 5]))], rtol=1e-4, reference_wrong=WRONG)
def float_masks(self, q, k, v, m, flat, padding, lengths):
    """Masks that are added: given, filled, chosen, summed, of lower rank, one column wide, by length, finite as far as they can be; NaN is not hidden."""
    filled = torch.zeros(2, 1, 1, 5).masked_fill(padding[:, None, None], -INF)
    causal = torch.full((3, 5), -INF).triu(1)
    chosen = torch.where(padding[:, None, None].expand(2, 1, 3, 5), T(-INF), T(0.0))
    lowest = torch.finfo(torch.float32).min
    by_length = torch.zeros(2, 1, 1, 5).masked_fill(~(torch.arange(5)[None] < lengths[:, None])[:, None, None], -INF)
    twice = torch.zeros(2, 1, 1, 5).masked_fill(padding[:, None, None], lowest)
    return (attend(q, k, v, m), attend(q, k, v, flat), attend(q[0], k[0], v[0], m[0]), attend(q[0, 0], k[0, 0], v[0, 0], flat), attend(q, k, v, filled), attend(q, k, v, causal),
            attend(q, k, v, causal + filled), attend(q, k, v, chosen), attend(q, k, v, m[..., 1:2]), attend(q, k, v, by_length), attend(q, k, v, twice + twice),
            attend(q, k, v, twice), attend(q, k, v, padding[:, None, None].expand(2, 1, 3, 5)), attend(q, k, v, m * 2 - 1, scale=0.3), attend(q, k, v, torch.sqrt(flat)))


class float_masks_of_weights(nn.Module):
    """Constants as masks: one that hides a row, one that hides none, and a bias from a table."""

    def __init__(self):
        super().__init__()
        self.register_buffer("some", hiding(3, 5))
        self.register_buffer("causal", torch.full((3, 5), -INF).triu(1))
        self.table = nn.Parameter(torch.randn(7, 4))
        self.register_buffer("distance", torch.arange(3)[:, None] - torch.arange(5)[None] + 4)

    def forward(self, q, k, v):
        bias = self.table[self.distance].permute(2, 0, 1)
        return attend(q, k, v, self.some), attend(q, k, v, self.causal), attend(q, k, v, bias), attend(q, k, v, bias[None] + self.causal), attend(q, k, v, self.some + bias)


case(steps=lambda: [call(*heads())], rtol=1e-4, reference_wrong=WRONG)(float_masks_of_weights)


@case(steps=lambda: [call(*heads(kv=2), hiding(2, 1, 3, 5), hiding(2, 4, 3, 5)), call(*heads(4, 6, kv=2), hiding(2, 1, 4, 6), hiding(2, 4, 4, 6))],
      dynamic=lambda: {"q": {2: Dim("l", min=2, max=9)}, "k": {2: Dim("s", min=2, max=9)}, "v": {2: Dim("s", min=2, max=9)},
                       **{m: {2: Dim("l", min=2, max=9), 3: Dim("s", min=2, max=9)} for m in ("m", "each")}}, rtol=1e-4, reference_wrong=WRONG)
def float_masks_of_any_length(self, q, k, v, m, each):
    """Masks of symbolic sizes over grouped heads; a causal one that the program makes, of which no row is hidden whole."""
    l, s = q.shape[2], k.shape[2]
    causal = torch.where(torch.arange(s)[None] <= torch.arange(l)[:, None], 0.0, -INF)
    return (attend(q, k, v, m, enable_gqa=True), attend(q, k, v, each, enable_gqa=True), attend(q, k, v, causal, enable_gqa=True),
            attend(q, k, v, torch.full((l, s), -INF).triu(1), enable_gqa=True), attend(q, k, v, causal + m, enable_gqa=True))


@case(steps=lambda: [call(*heads(dtype=torch.bfloat16), *heads(dtype=torch.float16), hiding(2, 1, 3, 5, dtype=torch.bfloat16), hiding(3, 5, dtype=torch.float16),
                          torch.cat([hiding(1, 5), hiding(1, 5, rows=(0,)), torch.full((1, 5), torch.finfo(torch.float32).min)]))], rtol=2e-2, atol=1e-2, reference_wrong=WRONG)
def float_masks_in_halves(self, q, k, v, h, i, j, m, n, single):
    """Halves with masks of their own type and with singles, of which the lowest number is beyond halves and hides nothing whole."""
    return attend(q, k, v, m), attend(h, i, j, n), attend(q, k, v, single), attend(h, i, j, single.masked_fill(single < -1e30, -INF)), attend(q, k, v, single.clamp(min=-9))


@case(steps=lambda: [call(*heads(k=0), torch.zeros(2, 4, 3, 0))], reference_wrong=WRONG)
def attention_without_keys(self, q, k, v, m):
    """No keys at all: zeros."""
    return attend(q, k, v), attend(q, k, v, m), attend(q, k, v, m > 0), attend(q[0], k[0], v[0])


class float_masks_of_layers(nn.Module):
    """Multi-head attention with and without its weights: of hidden rows these are NaN in torch as well."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x, padding, m):
        plain = torch.softmax(x @ x.mT + m[:, :1], -1)
        a = self.attention
        padded = F.multi_head_attention_forward(*[x.mT.permute(2, 0, 1)] * 3, 8, 2, a.in_proj_weight, a.in_proj_bias, None, None, False, 0.0, a.out_proj.weight, a.out_proj.bias,
                                                training=False, key_padding_mask=padding, need_weights=False)[0]
        return (padded, self.attention(x, x, x, attn_mask=m.flatten(0, 1), need_weights=False)[0],
                *self.attention(x, x, x, key_padding_mask=padding), plain, torch.ops.aten._safe_softmax(m, -1))


case(steps=lambda: [call(torch.randn(2, 4, 8), T([[True] * 4, [False, True, False, False]]), hiding(2, 2, 4, 4))], rtol=1e-4, reference_wrong=WRONG)(float_masks_of_layers)


def many(n, columns=2):
    return torch.rand(n, columns) * 0.2 + 0.9


@case(steps=lambda: [call(many(2500).bfloat16(), many(2500).half())], rtol=8e-3, atol=1e-3, reference_wrong=HALVES)
def sums_of_many_halves(self, b, h):
    """Everything that adds halves up, over enough of them that sums in the type itself stop growing."""
    def of(x):
        y = x.mT.contiguous()
        return (x.sum(), x.sum(0), y.sum(-1, keepdim=True), x.mean(), x.mean(0), y.mean(1), x.var(), y.var(1, correction=0), x.std(0), x[:40].prod(0), x.cumsum(0)[::250],
                x.logsumexp(0), y.logsumexp(1), x.norm(), y.norm(dim=1), x.nansum(), x.nanmean(0), (x > 1).to(x.dtype).sum(0), F.avg_pool1d(y[None], 2000, 250), F.adaptive_avg_pool1d(y[None], 1),
                F.adaptive_avg_pool1d(y[None], 2), F.adaptive_avg_pool2d(y[None, None], (1, 3)), x.var(0)[:1] * 0 + x[:2].sum(0)[:1], F.mse_loss(x, 1 - x), x.softmax(0).sum(0),
                F.group_norm(y[None], 1).abs().mean(), F.layer_norm(y, (2500,))[:, :3], x.abs().mean((0, 1)))
    return *of(b), *of(h)


@case(steps=lambda: [call(many(n).bfloat16()) for n in (300, 2500)], dynamic=lambda: {"x": {0: Dim("n", min=1, max=4096)}}, rtol=8e-3, atol=1e-3,
      reference_wrong=HALVES)
def sums_of_any_number_of_halves(self, x):
    """The same over symbolic sizes."""
    return x.sum(0), x.mean(), x.std(0), x.cumsum(0)[-1], x.logsumexp(0), x[:, :2].sum(1), F.adaptive_avg_pool1d(x.mT[None], 1)


@case(steps=lambda: [call(T([[1.0, NAN, 3.0, NAN], [NAN, INF, 2.0, 0.0], [INF, 1.0, NAN, -INF], [2.0, 5.0, 5.0, -1.0], [-INF] * 4, [NAN] * 4]), T([3, 7, 7, 1]))],
      reference_wrong="it passes over NaN")
def places_of_nan(self, x, i):
    """Where the extremes are: the first NaN, if there is one, also after an infinity; the first of several that are equal."""
    h, b = x.half(), x.bfloat16()
    return (x.argmax(), x.argmin(), x.argmax(1), x.argmin(1), x.argmax(0, keepdim=True), x.argmin(-1, keepdim=True), x.argmax(keepdim=True), *x.max(1), *x.min(1), *x.max(0, keepdim=True),
            h.argmax(1), b.argmin(1), *b.max(1), i.argmax(), i.float().argmin(), x[0, 1].argmax(), x[:, :1].argmin(1), x[:0].argmax(1), (x > 1).int().argmax(1), *x.aminmax(dim=1), *x.cummax(1),
            *x[:2].topk(2, 1), *x.sort(1), *x.median(1), x[3].argmax(), *x[:3].kthvalue(2, 1))


@case(steps=lambda: [call(T([0, 1, -1, 2, -2, 3, -3, 7]), T([-3, -2, -1, 0, 1, 2, 3, 5]), T([-128, -1, 127, 5], dtype=torch.int8), T([3, 0, 255], dtype=torch.uint8), T([True, False, True])),
                     call(T([-1, -1, 0, 0, 1, 5, 2, -7]), T([-8, -(2**63), -1, 0, -5, -1, 40, 3]), T([-1, -2, 3, -128], dtype=torch.int8), T([1, 2, 7], dtype=torch.uint8), T([False, False, True]))],
      reference_wrong=POWERS)
def integer_powers(self, i, e, k, u, b):
    """Integers to powers of every sign, of every type, by tensors and by numbers; bases 0, 1 and -1; powers that overflow."""
    return (i ** e, i[:, None] ** e[None], i.int() ** e.int(), k ** k, torch.pow(2, e), torch.pow(-1, e), torch.pow(1, e), torch.pow(0, e), torch.pow(-3, k), i[:3] ** u.long(), u ** u,
            i[:3] ** b, i ** 3, i ** 0, i ** e[:1], i.float() ** e, torch.pow(k, T(-1, dtype=torch.int8)), i ** T([2, 0, 1, 5, 3, 4, 2, 1]))


@case(steps=lambda: [call(torch.arange(-3, 3)), call(torch.arange(-2, 2))], dynamic=lambda: {"x": {0: Dim("n", min=2, max=9)}}, reference_wrong=POWERS)
def integer_powers_by_sizes(self, x):
    """Exponents made of sizes, which may be negative as far as the program knows."""
    e = torch.arange(x.shape[0]) - 4
    return x ** e, x ** (x.shape[0] + 1), torch.pow(2, e)


for name in [n for n, c in CASES.items() if c["reference_wrong"] in REASONS]:
    CASES[name]["bare"] = True
