"""Where the reference lowers to something wrong, or not at all: here only eager PyTorch's answer counts."""
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

from case import call, case


@case(steps=lambda: [call(torch.tensor([-2, 0, 1, 4, 9]))], reference_wrong="the fractional scalar is cut to the tensor's integer type")
def integer_with_fractional_scalar(self, i):
    """Integers compared with, raised to, divided by and clamped at numbers with a fraction."""
    return i < 0.5, i >= 0.5, i == 1.5, i.abs() ** 0.5, i % 1.5, i.clamp(-0.5, 2.5), i + 0.5, i * 2.5


@case(steps=lambda: [call(torch.randn(4), torch.randn(4).bfloat16(), torch.tensor([3, -3]))], rtol=1e-2, atol=1e-2,
      reference_wrong="constants of equal value share one name, so the first one's type wins")
def one_scalar_in_two_dtypes(self, x, h, i):
    """The same scalar beside float32, bfloat16 and integers."""
    return x.relu(), h.relu(), i.relu(), x.clamp(0, 1), h.clamp(0, 1), i.clamp(0, 1), x * 0.0, h + 0.0


@case(steps=lambda: [call(torch.randn(2, 3, 4), torch.randn(2, 3, 4))], reference_wrong="fused into an RMSNorm over the last axis without looking at axis or operand")
def not_quite_rms_norm(self, x, y):
    """Two near misses of RMSNorm: the mean over another axis, and another tensor than the squared one; and the true one."""
    middle = x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-5)
    other = y * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)
    true = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)
    return middle, other, true


@case(steps=lambda: [call(torch.randn(3, 4, 5), torch.tensor([2, 0]), torch.tensor([1, 4]), torch.tensor([[0, 1], [2, 2]]))],
      reference_wrong="index.Tensor puts the indexed axes first always, and takes one index of the tensor's rank for take_along_axis")
def index_forms(self, x, i, j, matrix):
    """Indexing by tensors: an inner pair of axes, separated axes, one axis by a matrix, an index of equal rank, negative indices."""
    return x[:, i, j], x[i, :, j], x[matrix], x[0][matrix[:, :1] * 0], x[:, :, -i], x[0, i], x[matrix, 1:3]


@case(steps=lambda: [call(torch.tensor([[3.0, -1.0, 2.0, 2.5], [0.0, 9.0, -4.0, 1.0]]), torch.tensor([1, 2, 3], dtype=torch.int32))],
      rtol=1e-3,  # one output is float16, whose neighbours are that far apart
      reference_wrong="descending, largest and the result type of a cumulative sum are ignored")
def orders(self, x, i):
    """Sorting downwards, the smallest k, cumulative sums in another type."""
    values, indices = x.sort(dim=1, descending=True)
    small, where = x.topk(2, dim=-1, largest=False)
    return values, indices, small, where, i.cumsum(0), i.cumsum(0, dtype=torch.float32), x.argsort(1, descending=True), x.softmax(0, dtype=torch.float16)


@case(steps=lambda: [call(torch.arange(6).view(2, 3))], reference_wrong="without an axis it repeats rows instead of elements")
def repeat_interleave_flat(self, x):
    """repeat_interleave without an axis flattens first."""
    return x.repeat_interleave(2), x.repeat_interleave(2, dim=0)


@case(steps=lambda: [call(torch.randn(n, 2, 6, 6)) for n in (2, 1, 3)], dynamic=lambda: {"x": {0: Dim("n", min=1, max=4)}},
      reference_wrong="the batch size at export is written into the file")
def pooling_dynamic_batch(self, x):
    """Pooling and argmax over everything with a symbolic batch."""
    return F.max_pool2d(x, 2), F.avg_pool2d(x, 3, 1, 1), F.max_pool2d(x, 3, 2, 1), x.argmax(), F.adaptive_avg_pool2d(x, 1)


@case(steps=lambda: [call(torch.randn(1, 4, 3, 8), torch.randn(1, 2, 5, 8))], rtol=1e-4, atol=1e-4)
def attention_key_is_value(self, q, kv):
    """Attention whose keys and values are one node: a repeated head."""
    repeated = kv.repeat_interleave(2, dim=1)
    return F.scaled_dot_product_attention(q, repeated, repeated)


@case(steps=lambda: [call(torch.randn(1, 2, 3, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8), torch.randn(4, 8))], rtol=1e-4, atol=1e-4)
def attention_causal_lengths(self, q, k, v, flat):
    """Causal attention with more keys than queries counts from the first; without heads; with scale and a float mask."""
    mask = torch.zeros(3, 5).masked_fill(torch.ones(3, 5).tril() == 0, float("-inf"))
    return (F.scaled_dot_product_attention(q, k, v, is_causal=True), F.scaled_dot_product_attention(flat, flat, flat, is_causal=True),
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3))


@case(steps=lambda: [call(torch.randn(2, 3))], reference_wrong="float steps are cut to integers")
def ranges_of_floats(self, x):
    """arange with float bounds and steps, downwards too, and linspace."""
    return x.sum() + torch.arange(0.0, 1.0, 0.25), torch.arange(5, 0, -2), torch.arange(1.5, 4), torch.linspace(0, 1, 5)


@case(steps=lambda: [call(torch.randn(2, 3, 4))], reference_wrong="a reduction over everything drops the kept axes")
def reductions_over_everything(self, x):
    """Reductions without axes, with an empty list of axes, and with all axes kept."""
    return x.sum(), x.mean((0, 1, 2), keepdim=True), x.amax(), x.var(correction=0), x.std((0, 2)), x.logsumexp((0, 1), keepdim=True), x.argmax(keepdim=True)


@case(steps=lambda: [call(torch.randn(1, 3, 6))], reference_wrong="negative padding compiles and then fails when run")
def negative_padding(self, x):
    """Padding by a negative number crops."""
    return F.pad(x, (-1, 2)), F.pad(x, (0, -2, 1, -1), value=3.0)


@case(steps=lambda: [call(torch.randn(2, 4))], reference_wrong="without eps it takes 1e-5")
class rms_norm_default_eps(nn.Module):
    """RMSNorm without eps uses the smallest step of its type; with one, that one."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4) + 0.5)

    def forward(self, x):
        tiny = x * 1e-4
        return F.rms_norm(tiny, (4,), self.weight), F.rms_norm(tiny, (4,), self.weight, 1e-3), F.rms_norm(x, (4,))


def hides_all(mask):
    """A mask of truth values one of whose queries sees no key."""
    mask[..., 1, :] = False
    return mask


@case(steps=lambda: [call(torch.randn(1, 4, 3, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8), hides_all(torch.rand(1, 1, 3, 5) > 0.4), torch.randn(3, 8), hides_all(torch.rand(3, 3) > 0.4))],
      rtol=1e-4, atol=1e-4, reference_wrong="a query that sees no key gets the mean of all values")
def attention_hidden_queries(self, q, k, v, mask, flat, square):
    """Attention under a mask of truth values that hides every key from a query, which gets zeros; with heads and without."""
    return (F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True),
            F.scaled_dot_product_attention(flat, flat, flat, attn_mask=square))


@case(steps=lambda: [call(torch.tensor([0, 3, 200, 253, 255], dtype=torch.uint8), torch.tensor([-128, -3, 0, 1, 127], dtype=torch.int8))],
      reference_wrong="numbers beyond the tensor's type are not wrapped into it")
def scalars_beyond_the_type(self, u, i):
    """Python's integers become elements modulo the range of the type, except as bounds of clamp."""
    return u == -3, u + 300, u | -2, torch.where(u > 3, u, -1), torch.full_like(u, -1), u.masked_fill(u > 3, -1), i + 300, i == 257, u.clamp(-3, 250), i.clamp(-300, 3)


@case(steps=lambda: [call(torch.randn(n, 5, 4, 2), torch.tensor([3, -1, 0]), torch.tensor([[-4], [1]])) for n in (3, 1)], dynamic=lambda: {"x": {0: Dim("n", min=1, max=8)}, "i": None, "j": None},
      reference_wrong="indexing beside an axis of symbolic size is left outside the delegate")
def index_beside_dynamic(self, x, i, j):
    """Several indices beside an axis of symbolic size: adjacent and separated ones, from either end."""
    return x[:, i, j], x[:, i, :, j[0] // 3], x[:, i, j].sum(0)


@case(steps=lambda: [call(torch.randn(1, 4, 3, 4, 5), torch.randn(8, 2, 2, 2, 2), torch.randn(8), torch.randn(4, 3, 1, 2, 2))], rtol=1e-4, atol=1e-4,
      reference_wrong="convolutions in three dimensions by groups are left outside the delegate")
def convolution_groups_3d(self, x, weight, bias, back):
    """Convolutions in three dimensions by groups, and transposed."""
    return F.conv3d(x, weight, bias, padding=1, groups=2), F.conv3d(x[0], weight, groups=2), F.conv_transpose3d(x, back, stride=2, groups=2)


@case(steps=lambda: [call(torch.tensor([[0.0, 2.0], [float("nan"), -0.0]]), torch.tensor([0, 7], dtype=torch.uint8))], reference_wrong="a list of no axes reduces all of them")
def truth_along_no_axes(self, x, u):
    """any and all over an empty list of axes look at each element; the same axis rolled twice."""
    return (torch.ops.aten.any.dims(x, []), torch.ops.aten.all.dims(u, []), torch.ops.aten.any.dims(u, [], True), x.roll((1, 2), (1, 1)))


@case(steps=lambda: [call(torch.randn(n, 3)) for n in (2, 4)], dynamic=lambda: {"x": {0: Dim("n", min=1, max=8)}})
class nothing_at_all(nn.Module):
    """Tensors without elements: reductions over nothing, products of nothing, state of nothing."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(0, 3))
        self.weight = nn.Parameter(torch.randn(2, 0))

    def forward(self, x):
        none = x[:, 3:]
        self.seen.add_(1.0)
        return none.logsumexp(-1), none.sum(-1), F.linear(none, self.weight), none.softmax(-1), none.exp(), self.seen * 2


@case(steps=lambda: [call(torch.tensor([[3.0, -1.0, 2.0], [0.0, 9.0, -4.0]]))], reference_wrong="positions are unsigned inside the delegate, so their negatives wrap")
def positions_are_signed(self, x):
    """Arithmetic below zero on what argmax, argsort, topk and sort return."""
    return (-x.argmax(1), x.argmin() - 5, -x.argsort(1), x.topk(2).indices - 4, x.sort(1).indices * -1, x.max(1).indices - 7, (x.argmax(1) - 2).float(), (x.argmin(1) - 2) // 2)


@case(steps=lambda: [call(torch.zeros(2, 3), torch.tensor([1, -2, 3]), torch.tensor(2.75))], reference_wrong="copy takes the source as it is")
def copy_takes_shape_and_type_of_the_destination(self, x, row, number):
    """A copy broadcasts to the destination and is cast to its type."""
    whole = torch.zeros(2, 3, dtype=torch.int64)
    return x.clone().copy_(row), whole.copy_(number), torch.ops.aten.copy(x, row), torch.ops.aten.copy(row, number)


@case(steps=lambda: [call(torch.randn(2, 5, 6), torch.randn(2, 7))], rtol=1e-4, atol=1e-4, reference_wrong="it compiles and then fails when run")
class unbatched_convolution(nn.Module):
    """Convolutions and pooling of a single sample without a batch axis."""

    def __init__(self):
        super().__init__()
        self.plane, self.line, self.up = nn.Conv2d(2, 3, 2), nn.Conv1d(2, 3, 3, padding=1), nn.ConvTranspose2d(2, 3, 2, stride=2)

    def forward(self, x, y):
        return self.plane(x), self.line(y), self.up(x), F.max_pool2d(x, 2), F.avg_pool1d(y, 3)


@case(steps=lambda: [call(torch.randn(2, 3, 4, 4, dtype=torch.bfloat16), torch.randn(2, 3, 5, dtype=torch.float16))], rtol=1e-2, atol=1e-2,
      reference_wrong="eps is a constant in single precision, which makes everything after it single")
class batch_norm_in_halves(nn.Module):
    """Batch normalisation of half types stays in them."""

    def __init__(self):
        super().__init__()
        self.plane, self.line = nn.BatchNorm2d(3).bfloat16(), nn.BatchNorm1d(3).half()
        for norm in (self.plane, self.line):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, x, y):
        return self.plane(x), self.line(y), self.plane(x) * 3 - x


@case(steps=lambda: [call(torch.randn(2, 3, 4), torch.randn(()))], reference_wrong="no axes are no reduction, and a reduction over everything drops the kept axes")
def reductions_over_no_axes(self, x, scalar):
    """An empty list of axes, or none, is all of them; kept where that is asked for."""
    return (x.logsumexp((), keepdim=True), x.sum(()), x.mean((), keepdim=True), x.amax(()), x.sum(None, keepdim=True), x.mean(None, keepdim=True), x.var(None, keepdim=True), scalar.logsumexp(()),
            scalar.logsumexp(0), x.argmax(keepdim=True), x.all(), torch.linalg.vector_norm(x, keepdim=True))


@case(steps=lambda: [call(torch.randn(2, 4), torch.rand(3, 4) + 0.5)], reference_wrong="the weight's shape is not looked at")
def rms_norm_with_a_matrix_of_weights(self, x, w):
    """What looks like RMSNorm with a weight of two axes is none."""
    normal = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)
    return normal[:, None] * w, normal * w[:1], normal * w[0]


@case(steps=lambda: [call(torch.randn(0, 3), torch.arange(3))], reference_wrong="full, arange and repeat cannot make tensors without elements")
def nothing_made(self, x, i):
    """New tensors without elements: full, arange, repeated, repeated each, of a scatter, of a triangle."""
    return (x.new_full((0, 2), 3.0), torch.arange(0), x.repeat(2, 2), i.repeat(0, 2), x.repeat_interleave(2, 0), i[:0].repeat_interleave(3), x.tril(), torch.cat([x, x.new_ones(0, 3)]), x.new_zeros(2, 0) @ x,
            F.one_hot(i[:0], 4), x.cumsum(0), x.sort(1).values, torch.zeros(0).sum() + x.sum())


@case(steps=lambda: [call(torch.tensor([1.0, -2.0]), torch.tensor(a), torch.tensor(b)) for a, b in ((True, True), (False, True), (True, False))],
      reference_wrong="what a branch made is overwritten by the next branch of the program")
def two_conditions(self, x, first, second):
    """Branches beside one another and inside one another: each result stays what it is."""
    one = torch.cond(first, lambda x: x + 1, lambda x: x * 2, (x,))
    three = torch.cond(second, lambda x: x + 3, lambda x: x * 4, (x,))
    inner = torch.cond(first, lambda x: torch.cond(second, lambda x: x.exp(), lambda x: -x, (x,)), lambda x: x - 1, (x,))
    return one + three, one, inner


@case(steps=lambda: [call(torch.tensor([0.5, -1.0])) for _ in range(2)], reference_wrong="state whose bytes equal those of a constant does not load")
class state_equal_to_a_constant(nn.Module):
    """Two states and a constant that are alike at first: only what is written to changes."""

    def __init__(self):
        super().__init__()
        self.fixed = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.register_buffer("seen", torch.tensor([1.0, 2.0]))
        self.register_buffer("other", torch.tensor([1.0, 2.0]))

    def forward(self, x):
        before = self.seen * self.fixed
        self.seen.add_(x)
        self.other.mul_(self.fixed)
        return before, self.seen - self.fixed, self.other + x


@case(steps=lambda: [call(torch.randn(2, 3, 4, dtype=torch.bfloat16) + 40, torch.tensor([40.0, 39.5, 41.0]).bfloat16(), torch.rand(3).bfloat16() + 0.01, torch.randn(3).bfloat16(), torch.randn(3).bfloat16())],
      rtol=1e-2, atol=1e-2, reference_wrong="eps is a constant in single precision, which makes everything after it single")
def batch_norm_by_given_statistics_in_halves(self, x, mean, var, weight, bias):
    """Statistics of half types that are no weights: centred and scaled in single precision, rounded once."""
    y = F.batch_norm(x, mean, var, weight, bias)
    return y, y + x, F.batch_norm(x, mean, var)


@case(steps=lambda: [call(torch.randn(2, 3), torch.randint(-100, 100, (2, 3)))],
      rtol=1e-3,  # one output is float16
      reference_wrong="result types of sums are ignored, corrections are cut to integers")
def reductions_in_another_type(self, x, i):
    """Sums and products in another type; corrections with a fraction; variances in the old spelling."""
    return (i.sum(1, dtype=torch.float32), i.sum(dtype=torch.int32), x.sum(0, dtype=torch.float16), i.prod(1, dtype=torch.float32), i.float().mean(1), x.mean(0, dtype=torch.float32),
            x.var(1, correction=0.5), x.std((0, 1), correction=1.5), torch.ops.aten.var.dim(x, [1], False), torch.ops.aten.std.dim(x, [0], True, True), x.to(torch.int32).sum(0, keepdim=True))


@case(steps=lambda: [call(torch.randn(n, 3, 4, 5), torch.rand(3), torch.randn(3)) for n in (2, 3)], dynamic=lambda: {"x": {0: Dim("n", min=2, max=5)}, "w": None, "b": None},
      rtol=1e-3,  # one output comes from float16
      reference_wrong="normalisation by the batch is left outside the delegate")
def batch_norm_of_the_batch(self, x, w, b):
    """Batch normalisation that keeps no statistics takes those of the batch."""
    return F.batch_norm(x, None, None, w, b, training=True), F.batch_norm(x[:, :, 0, 0].half(), None, None, training=True).float()


@case(steps=lambda: [call(torch.randn(1, 2, l, 8), torch.randn(1, 2, s, 8), torch.randn(3, 2, 4, 8), torch.randn(2, 3, 2, 5, 8)) for l, s in ((5, 3), (3, 6), (4, 4))],
      dynamic=lambda: {"q": {2: Dim("l", min=1, max=9)}, "k": {2: Dim("s", min=1, max=9)}, "many": None, "deep": None}, rtol=1e-4, atol=1e-4,
      reference_wrong="attention is declined for every call when it is for one: of unequal batches, of other ranks, causal with more queries than keys")
def attention_of_every_shape(self, q, k, many, deep):
    """Causal attention with lengths known at run time, more queries than keys too; broadcast batches; five axes and three; values of another
    width; masks of every rank; scales of zero."""
    attend = F.scaled_dot_product_attention
    return (attend(q, k, k, is_causal=True), attend(q[0], k[0], k[0], is_causal=True), attend(many, k, k), attend(deep, deep, deep),
            attend(q, k, k[..., :3]), attend(many, many, many, many[:1, :1, :, :4]), attend(many, many, many, many[0, :, :, :4] > 0), attend(deep, deep, deep, scale=0.0))


@case(steps=lambda: [call(torch.randn(4, 3).t(), torch.randn(6, 4)[::2], torch.randn(1, 3).expand(4, 3), torch.randn(1, 3, 4, 5).to(memory_format=torch.channels_last))],
      reference_wrong="examples that are not contiguous are refused")
def examples_of_odd_strides(self, turned, rows, wide, image):
    """Exported with examples that are transposed, every second row, expanded and channels-last: what the caller gives is contiguous."""
    return turned + 1, turned.t() @ rows, rows[:, 1], wide * 2, image.mean(1), image.flatten(2)
