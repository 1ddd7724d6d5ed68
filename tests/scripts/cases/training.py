"""Derivatives: the operators that a step of training calls, one kind a case, and whole steps."""
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

from case import call, case, model

A = torch.ops.aten
STEP = dict(training=True, rtol=1e-3, atol=1e-5, reference_wrong="the reference lowers what is run, not what is trained")


def numbers():
    """Gradients, and places on both sides of every corner."""
    return call(torch.linspace(-2, 3, 14), torch.tensor([-3, 3, -3.5, 3.5, 0, -0.0, 1, -1, 0.5, -0.5, 2, 25, -25, float("nan")]), torch.rand(14), torch.randn(3, 8).half(), torch.randn(3, 8).half())


@case(steps=lambda: [numbers()], functional=True, rtol=2e-3, atol=1e-5)
def derivatives_of_activations(self, g, x, y, h, k):
    """Of single elements, at their corners and at NaN; some of halves, which are computed in single precision."""
    gates, (soft, buffer) = (A.glu_backward(h[:, :4], k, 1), A._prelu_kernel_backward(h, k, k[:, :1])), A.log_sigmoid_forward(x)
    return (A.threshold_backward(g, x, 0), A.threshold_backward(g, x, 0.5), A.gelu_backward(g, x), A.gelu_backward(g, x, approximate="tanh"), A.gelu_backward(h, k), A.silu_backward(g, x), A.silu_backward(h, k),
            A.sigmoid_backward(g, y), A.tanh_backward(g, y), A.hardtanh_backward(g, x, -3, 3), A.hardswish_backward(g, x), A.hardsigmoid_backward(g, x), A.leaky_relu_backward(g, x, 0.1, False),
            A.elu_backward(g, 1, 1, 1, False, x), A.elu_backward(g, 0.5, 2, 3, True, x), A.softplus_backward(g, x, 2.0, 3.0), soft, A.log_sigmoid_backward(g, x, buffer), A.mish_backward(g, x),
            A.hardshrink_backward(g, x, 0.5), A.softshrink_backward(g, x, 0.5), A.logit_backward(g, y), A.logit_backward(g, y, 0.25), gates, A.native_dropout_backward(h, k > 0, 2.0))


@case(steps=lambda: [call(torch.randn(n, 5), torch.randn(n, 5), torch.rand(n, 5), torch.rand(n, 5), torch.randint(0, 5, (n,)), torch.rand(5), torch.randn(())) for n in (4, 1)],
      dynamic=lambda: ({0: Dim("n", min=1, max=9)},) * 5 + (None, None))
def derivatives_of_losses(self, g, x, y, z, target, weight, total):
    """None, the mean and the sum of elements, softmax and its logarithm, classes with weights and one that is ignored."""
    each = [f for r, g in ((0, g), (1, total), (2, total)) for f in (A.mse_loss_backward(g, x, y, r), A.smooth_l1_loss_backward(g, x, y, r, 0.5), A.huber_loss_backward(g, x, y, r, 0.2),
            A.binary_cross_entropy_backward(g, y, z, None, r), A.binary_cross_entropy_backward(g, y, z, z, r), A.soft_margin_loss_backward(g, x, y, r))]
    return (*each, A.nll_loss_backward(g[:, 0], x, target, None, 0, -100, total), A.nll_loss_backward(total, x, target, weight, 1, 1, total), A.nll_loss_backward(total, x, target, weight, 2, 1, total),
            A._softmax_backward_data(g, y, 1, torch.float32), A._log_softmax_backward_data(g, x, -1, torch.float32), A._softmax_backward_data(total, total, 0, torch.float32))


@case(steps=lambda: [call(torch.randn(n, 6, 4, 3), torch.randn(n, 6, 4, 3), torch.randn(6), torch.randn(6), torch.rand(6) + 0.5) for n in (2, 3)], dynamic=lambda: ({0: Dim("n", min=2, max=9)},) * 2 + (None,) * 3, rtol=1e-4, atol=1e-4)
def derivatives_of_normalisations(self, g, x, w, m, v):
    """Statistics as results, and derivatives from them: layers, groups, batches in training and not, all results and some."""
    _, lm, lr = A.native_layer_norm(x, [4, 3], w.sum() * x[0, 0], None, 1e-5)
    _, gm, gr = A.native_group_norm(x, w, m, x.shape[0], 6, 12, 3, 1e-5)
    y, bm, br = A._native_batch_norm_legit.no_stats(x, w, m, True, 0.1, 1e-5)
    layers = A.native_layer_norm_backward(g, x, [4, 3], lm, lr, x[0, 0], x[0, 0], [True, True, True]), A.native_layer_norm_backward(g, x, [4, 3], lm, lr, None, None, [True, False, False])[0]
    groups = A.native_group_norm_backward(g, x, gm, gr, w, x.shape[0], 6, 12, 3, [True, True, True]), A.native_group_norm_backward(g, x, gm, gr, None, x.shape[0], 6, 12, 3, [True, False, True])[2]
    batches = A.native_batch_norm_backward(g, x, w, m, v, bm, br, True, 1e-5, [True, True, True]), A.native_batch_norm_backward(g, x, w, m, v, None, None, False, 1e-5, [True, True, True])
    return lm, lr, gm, gr, y, bm, br, layers, groups, batches, A._fused_rms_norm(x, [3], None, 1e-5)


@case(steps=lambda: [call(torch.randn(2, 4, 9, 8), torch.randn(2, 4, 7, 6), torch.randn(2, 3, 5), torch.randn(1, 2, 4, 5, 3))], rtol=1e-4, atol=1e-4)
def derivatives_of_convolutions(self, x, y, line, cube):
    """In one, two and three dimensions: steps, gaps, padding, groups, transposed; to the input, the weight and the bias, and to some of them."""
    def of(x, channels, kernel, stride, padding, dilation, turned=False, more=0, groups=1, mask=(True, True, True)):
        n = len(kernel)
        w = x.new_ones(x.shape[1] if turned else channels, (channels if turned else x.shape[1]) // groups, *kernel) + x.flatten()[0]
        how = [[stride] * n, [padding] * n, [dilation] * n, turned, [more] * n, groups]
        z = A.convolution(x, w, None, *how)
        return [t for t, wanted in zip(A.convolution_backward(z.sin(), x, w, [z.shape[1]], *how, list(mask)), mask) if wanted]
    return (*of(x, 6, [3, 2], 1, 1, 1), *of(x, 6, [3, 2], 2, 1, 2, groups=2), *of(x, 4, [3, 3], 3, 0, 1, groups=4), *of(y, 3, [3, 2], 2, 1, 1, True, 1), *of(y, 6, [2, 3], 1, 0, 2, True, 0, 2),
            *of(line, 4, [3], 2, 1, 1), *of(line, 4, [2], 2, 0, 1, True), *of(cube, 2, [2, 2, 2], 2, 1, 1, groups=2), *of(cube, 3, [2, 2, 2], 1, 0, 1, True),
            *of(x, 6, [3, 3], 1, 1, 1, mask=(True, False, False)), *of(x, 6, [3, 3], 2, 1, 1, mask=(False, True, False)))


@case(steps=lambda: [call(torch.randn(n, 3, 7, 8), torch.randn(n, 3, 4, 4), torch.randn(n, 3, 3, 4), torch.randn(n, 3, 1, 1), torch.randn(n, 2, 4, 5, 3)) for n in (2, 3)], dynamic=lambda: ({0: Dim("n", min=1, max=9)},) * 5, rtol=1e-4, atol=1e-5,
      reference_wrong="its file reads a slot that nothing has written")
def derivatives_of_pools(self, x, g, h, one, cube):
    """Averages with and without padding counted, cut at the end, by a divisor of their own; adaptive ones that divide and that do not; the largest to their places."""
    y, at = A.max_pool2d_with_indices(x, [3, 3], [2, 2], [1, 1], [1, 1], True)
    z, there = A.max_pool3d_with_indices(cube, [2, 2, 2])
    return (A.avg_pool2d_backward(h, x, [2, 2], [], [0, 0], False, True, None), A.avg_pool2d_backward(g, x, [3, 3], [2, 2], [1, 1], False, True, None), A.avg_pool2d_backward(g, x, [3, 3], [2, 2], [1, 1], False, False, None),
            A.avg_pool2d_backward(g, x, [3, 3], [2, 2], [1, 1], False, True, 5), A.avg_pool2d_backward(h, x, [3, 3], [2, 2], [0, 0], True, False, None), A._adaptive_avg_pool2d_backward(h, x), A._adaptive_avg_pool2d_backward(one, x),
            A.max_pool2d_with_indices_backward(y + 1, x, [3, 3], [2, 2], [1, 1], [1, 1], True, at), A.max_pool3d_with_indices_backward(z.cos(), cube, [2, 2, 2], [2, 2, 2], [0, 0, 0], [1, 1, 1], False, there),
            A.avg_pool3d_backward(z, cube, [2, 2, 2], [2, 2, 2], [0, 0, 0], False, True, None), A._adaptive_avg_pool3d_backward(z, cube))


@case(steps=lambda: [call(torch.randn(1, 2, 7, 9), torch.randn(1, 2, 3, 4), torch.randn(2, 7), torch.randn(1, 2, 8, 10, 4))], rtol=1e-4, atol=1e-5)
def derivatives_of_resampling(self, large, small, line, cube):
    """Nearest, linear and cubic, larger and smaller, by sizes and by a factor; reflected and repeated edges."""
    to = [1, 2, 5, 6]
    return (A.upsample_nearest2d_backward(large, [7, 9], to), A.upsample_nearest2d_backward(small, [3, 4], to), A._upsample_nearest_exact2d_backward(large, [7, 9], to), A.upsample_bilinear2d_backward(large, [7, 9], to, False),
            A.upsample_bilinear2d_backward(small, [3, 4], to, True), A.upsample_bilinear2d_backward(cube[..., 0], [8, 10], [1, 2, 4, 5], False, 2.0, 2.0), A.upsample_bicubic2d_backward(large, [7, 9], to, False),
            A.upsample_bicubic2d_backward(small, [3, 4], to, True), A.upsample_linear1d_backward(line[None], [7], [1, 2, 4], False), A.upsample_nearest1d_backward(line[None], [7], [1, 2, 3]),
            A.upsample_trilinear3d_backward(cube, [8, 10, 4], [1, 2, 3, 4, 3], False), A.upsample_nearest3d_backward(cube, [8, 10, 4], [1, 2, 4, 5, 2], 2.0, 2.0, 2.0),
            A.reflection_pad2d_backward(large, large[..., :4, :6], [1, 2, 2, 1]), A.replication_pad2d_backward(large, large[..., :4, :6], [1, 2, 2, 1]), A.reflection_pad1d_backward(line, line[:, :4], [2, 1]),
            A.replication_pad1d_backward(line, line[:, :3], [0, 4]), A.replication_pad3d_backward(cube, cube[..., :6, :8, :2], [1, 1, 0, 2, 2, 0]))


@case(steps=lambda: [call(torch.randn(n, 3), torch.randn(n, 4, 3), torch.randn(n, 5, 4), torch.randint(0, 7, (n, 5)), torch.rand(n, 3) > 0.5) for n in (3, 2)], dynamic=lambda: ({0: Dim("n", min=2, max=9)},) * 5)
def derivatives_of_parts(self, g, windows, rows, index, mask):
    """Slices, rows, diagonals and windows put back; rows looked up added up, without the padding, by how often they occur; what a mask took."""
    n = g.shape[0]
    return (A.slice_backward(g, [n, 9], 1, 2, 8, 2), A.slice_backward(g, [n, 9], 1, -3, 9999, 1), A.select_backward(g[:, 0], [n, 5], 1, -1), A.diagonal_backward(g, [n, 4, 5], 2, 1, 2), A.unfold_backward(windows, [n, 9], 1, 3, 2),
            A.unfold_backward(windows, [n, 12], -1, 3, 3), A.embedding_dense_backward(rows, index, 7, -1, False), A.embedding_dense_backward(rows, index, 9, 2, False), A.embedding_dense_backward(rows, index, 7, 2, True),
            A.masked_scatter_backward(g, mask, [9]), A.masked_scatter_backward(g, mask, [2, 2]))


@case(steps=lambda: [call(torch.randn(4, 3), torch.randn(4, 3).round(), torch.randint(0, 7, (8,)), torch.tensor([0, 3, 3, 6]), torch.randn(1, 2, 5, 6), torch.rand(1, 3, 4, 2) * 2.6 - 1.3, torch.randn(1, 2, 3, 4))], rtol=1e-4, atol=1e-4)
def derivatives_of_rows(self, x, y, index, offsets, image, grid, g):
    """Distances of every order, of equal rows too; lengths of weights; rows in bags; products of three; places between pixels, some outside; smooth resampling."""
    orders = (0.0, 1.0, 1.5, 2.0, 3.0, float("inf"))
    distances = [A._cdist_backward(x[:, :1] + y[:, 0], x, y, p, A._cdist_forward(x, y, p, None)) for p in orders] + [A._pdist_backward(x.flatten()[:6], y, p, A._pdist_forward(y, p)) for p in orders]
    table = torch.cat([x, y])[:7]
    bags = [A._embedding_bag_backward(x, index, offsets, *A._embedding_bag(table, index, offsets, False, 1, False, None, False, padding)[1:], 7, often, 1, False, None, padding) for often, padding in ((False, -1), (True, -1), (False, 2))]
    length = y.abs().sum(1, keepdim=True)
    w, n = A._weight_norm_interface(x, length, 0)
    return (*distances, *bags, *A._weight_norm_interface_backward(w.sin(), x, length, n, 0),
            A._trilinear(x, x[:3].reshape(1, 3, 3), y, [1, 3], [0], [1, 2], [2, 3]), *A.grid_sampler_2d_backward(g, image, grid, 0, 0, False, [True, True]), *A.grid_sampler_2d_backward(g, image, grid, 0, 0, True, [True, True]),
            A._upsample_bilinear2d_aa_backward(g, [3, 4], [1, 2, 7, 5], False), A._upsample_bicubic2d_aa_backward(g, [3, 4], [1, 2, 7, 5], False), A._upsample_bilinear2d_aa_backward(g, [3, 4], [1, 2, 2, 3], False))


@case(steps=lambda: [call(torch.randn(4, 3, 5)), call(torch.randn(4, 3, 5) * 2 + 1)], functional=True, rtol=1e-5, atol=1e-5)
class batch_norm_in_training(nn.Module):
    """Running statistics follow the batches from call to call; the operators give those that they used."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(3))
        for name in "abcd":
            self.register_buffer("mean_" + name, torch.randn(3))
            self.register_buffer("var_" + name, torch.rand(3) + 0.5)

    def forward(self, x):
        w, b = self.weight, self.bias
        return (F.batch_norm(x, self.mean_a, self.var_a, w, b, True, 0.3), *A._native_batch_norm_legit(x, w, None, self.mean_b, self.var_b, True, 0.1, 1e-3), *A.native_batch_norm(x, None, b, self.mean_c, self.var_c, True, 0.1, 1e-5),
                *A._native_batch_norm_legit(x, w, b, self.mean_a, self.var_a, False, 0.1, 1e-5), *A._batch_norm_with_update(x, w, b, self.mean_d, self.var_d, 0.5, 1e-5)[:3], *A._native_batch_norm_legit.no_stats(x, None, None, True, 0.1, 1e-5),
                *A._native_batch_norm_legit_no_training(x, w, b, self.mean_d, self.var_d, 0.1, 1e-5))


class Convolutions(nn.Module):
    """A step of training of a network for images."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.up = nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"), nn.Conv2d(4, 6, 3, 2, groups=2), nn.ConvTranspose2d(6, 4, 2, 2)
        self.weight, self.norm, self.last = nn.Parameter(torch.rand(4) + 0.5), nn.GroupNorm(2, 6), nn.Linear(4, 5)

    def forward(self, x, target):
        x = F.max_pool2d(F.relu(F.batch_norm(self.first(x), None, None, self.weight, None, True)), 2)
        x = self.up(F.silu(self.norm(self.second(x))))
        x = F.avg_pool2d(F.interpolate(x, scale_factor=2.0, mode="bilinear"), 2)
        return F.cross_entropy(self.last(F.leaky_relu(x.mean((2, 3)))), target)


class Words(nn.Module):
    """A step of training of a network for words."""

    def __init__(self):
        super().__init__()
        self.table, self.layer = nn.Embedding(9, 8, padding_idx=1), nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True)
        self.slopes, self.last = nn.PReLU(), nn.Linear(8, 9)

    def forward(self, x, target):
        return F.cross_entropy(self.last(self.slopes(self.layer(self.table(x)))).transpose(1, 2), target)


class Steps(nn.Module):
    """A step of training of a recurrent network."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm, self.last = nn.LSTM(3, 4, batch_first=True), nn.RMSNorm(4), nn.Linear(4, 1)

    def forward(self, x, target):
        return F.binary_cross_entropy(torch.sigmoid(self.last(F.softplus(self.norm(self.layer(x)[0])))), target)


model("training_of_convolutions", Convolutions, lambda: [call(torch.randn(3, 1, 12, 12), torch.tensor([0, 2, 4])) for _ in range(2)], **STEP)
model("training_of_attention", Words, lambda: [call(torch.randint(0, 9, (2, 5)), torch.randint(0, 9, (2, 5))) for _ in range(2)], **STEP)
model("training_of_recurrence", Steps, lambda: [call(torch.randn(2, 2, 3), torch.rand(2, 2, 1)) for _ in range(2)], **STEP)
