"""Layers that no single instruction runs: recurrence, transforms."""
import torch
from torch import nn
from torch.export import Dim

from case import call, case, model

OUTSIDE = "it leaves these operators outside the delegate"


@case(steps=lambda: [call(torch.randn(3, 2, 4), torch.randn(1, 2, 3)) for _ in range(2)], reference_wrong=OUTSIDE)
class recurrent_layers(nn.Module):
    """Recurrent layers: LSTM with two layers in both directions, with projection; GRU; plain ones; single steps."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 3, num_layers=2, bidirectional=True)
        self.projected = nn.LSTM(4, 3, proj_size=2, batch_first=True)
        self.gru = nn.GRU(4, 3, batch_first=True, bidirectional=True)
        self.tanh = nn.RNN(4, 3, bias=False)
        self.relu = nn.RNN(4, 3, nonlinearity="relu")
        self.cells = nn.ModuleList([nn.LSTMCell(4, 3), nn.GRUCell(4, 3), nn.RNNCell(4, 3), nn.RNNCell(4, 3, nonlinearity="relu")])

    def forward(self, x, h):
        lstm, gru, tanh, relu = self.cells
        return (self.lstm(x), self.projected(x), self.gru(x), self.tanh(x, h), self.relu(x, h),
                lstm(x[0], (h[0], h[0])), gru(x[0], h[0]), tanh(x[0], h[0]), relu(x[0], h[0]))


class RecurrentLayers(nn.Module):
    """Recurrent layers over one step: layers on each other, both directions, with projection, with a given state."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 3, num_layers=2, bidirectional=True, batch_first=True, dropout=0.5)
        self.projected = nn.LSTM(4, 3, proj_size=2, bias=False)
        self.gru = nn.GRU(4, 3, num_layers=2, batch_first=True)
        self.both = nn.GRU(4, 3, bidirectional=True, bias=False)
        self.tanh = nn.RNN(4, 3, batch_first=True, bidirectional=True)
        self.relu = nn.RNN(4, 3, nonlinearity="relu", num_layers=2)

    def forward(self, x, h):
        t = x.transpose(0, 1)
        return self.lstm(x), self.projected(t), self.gru(x, h), self.both(t, h), self.tanh(x, h), self.relu(t, h)


model("recurrent_layers_one_step", RecurrentLayers, lambda: [call(torch.randn(2, 1, 4), torch.randn(2, 2, 3))], reference_wrong=OUTSIDE)


def gates(n, dtype=torch.float32):
    """Queries, keys, values, gates and rates of `n` steps. Some gates are shut, nearly shut or open, some rates zero."""
    q, k, v, g, rate = torch.randn(1, n, 1, 4), torch.randn(1, n, 1, 4) / 2, torch.randn(1, n, 2, 5), torch.rand(1, n, 2), torch.rand(1, n, 2)
    g[:, 2::7], g[:, 4::9], g[:, 5::4], rate[:, 3::5] = 0, 1e-30, 1, 0
    return call(*(x.to(dtype) for x in (q, k, v, g, rate)))


@case(steps=lambda: {"any": [gates(n) for n in (5, 30, 1, 64, 67, 1)], "short": [gates(3) for _ in range(2)], "long": [gates(64) for _ in range(2)]},
      dynamic=lambda: {"any": [{1: Dim("n", min=1, max=256)}] * 5}, methods=["any", "short", "long"], rtol=1e-5, atol=2e-5)
class gated_delta(nn.Module):
    """The gated delta rule over few steps and over many, known at export and not, with a state that is kept."""

    def __init__(self):
        super().__init__()
        import executorch.backends.mlx.custom_kernel_ops.gated_delta_rule  # noqa: F401  registers mlx::gated_delta_rule
        self.register_buffer("state", torch.zeros(1, 2, 5, 4))

    def any(self, q, k, v, g, rate):
        return torch.ops.mlx.gated_delta_rule(q, k, v, g, rate, self.state, False)

    def short(self, *args):
        return self.any(*args)

    def long(self, *args):
        return self.any(*args)


class delta_rule_of_odd_width(nn.Module):
    """The gated delta rule as it is called without saying that no kernel shall be used, over keys whose width no kernel takes."""

    def __init__(self):
        super().__init__()
        import executorch.backends.mlx.custom_kernel_ops.gated_delta_rule  # noqa: F401  registers mlx::gated_delta_rule
        self.register_buffer("state", torch.zeros(1, 2, 5, 4))

    def forward(self, q, k, v, g, rate):
        return torch.ops.mlx.gated_delta_rule(q, k, v, g, rate, self.state)


model("delta_rule_of_odd_width", delta_rule_of_odd_width, lambda: [gates(3), gates(3)], rtol=1e-5, atol=2e-5)
model("gated_delta_bf16", gated_delta, lambda: {"any": [gates(n, torch.bfloat16) for n in (70, 2)]}, methods=["any"],
      dtype=torch.bfloat16, dynamic=lambda: {"any": [{1: Dim("n", min=1, max=256)}] * 5}, rtol=3e-2, atol=3e-2)


def many_keys(n):
    """Queries and keys of 512 numbers, all positive: sums that round at every step get stuck far below the true ones."""
    q, k = torch.rand(1, n, 1, 512) / 8, torch.rand(1, n, 1, 512) / 16
    return call(*(x.bfloat16() for x in (q, k, torch.rand(1, n, 2, 3), torch.rand(1, n, 2) / 8 + 0.875, torch.rand(1, n, 2))))


class delta_rule_of_many_keys_bf16(nn.Module):
    """The gated delta rule of halves, step by step: what it adds up over the keys is added in singles."""

    def __init__(self):
        super().__init__()
        import executorch.backends.mlx.custom_kernel_ops.gated_delta_rule  # noqa: F401  registers mlx::gated_delta_rule
        self.register_buffer("state", torch.rand(1, 2, 3, 512))

    def forward(self, q, k, v, g, rate):
        return torch.ops.mlx.gated_delta_rule(q, k, v, g, rate, self.state, False)


model("delta_rule_of_many_keys_bf16", delta_rule_of_many_keys_bf16, lambda: [many_keys(3), many_keys(3)], dtype=torch.bfloat16, rtol=1e-2, atol=1e-2,
      reference_wrong="it adds up over the keys in bf16, rounding at every step")


@case(steps=lambda: [call(torch.randn(2, n), torch.randn(24), torch.hann_window(6)) for n in (40, 23, 64)],
      dynamic=lambda: {"x": {1: Dim("n", min=16, max=64)}, "y": None, "w": None}, rtol=1e-4, atol=1e-4, reference_wrong=OUTSIDE)
def short_time_fourier(self, x, y, w):
    """Short-time Fourier transforms, one of a length known at run time: mirrored ends, a window shorter than the transform, all bins; what is asked of complex numbers."""
    s = torch.stft(x, 8, 3, 6, w, return_complex=True)
    full = torch.stft(y, 8, 4, center=False, onesided=False, normalized=True, return_complex=True)
    return torch.view_as_real(s), s.abs().pow(2), s.real, full.imag, full.unsqueeze(0).abs()


@case(steps=lambda: [call(torch.randn(n, 8)) for n in (5, 1, 9)], dynamic=lambda: {"x": {0: Dim("rows", min=1, max=16)}}, rtol=1e-4, atol=1e-4,
      reference_wrong=OUTSIDE)
class experts_by_groups(nn.Module):
    """Routed experts as Transformers 5 writes them: rows sorted by expert, counted, multiplied group by group, put back; and a mask of the chosen."""

    def __init__(self):
        super().__init__()
        self.router, self.experts = nn.Linear(8, 4), nn.Parameter(torch.randn(4, 12, 8))

    def forward(self, x):
        weight, chosen = torch.topk(self.router(x).softmax(-1), 2)
        expert, order = torch.sort(chosen.reshape(-1))
        counts = torch.histc(expert.float(), bins=4, min=0, max=3)
        y = nn.functional.grouped_mm(x[order // 2], self.experts.transpose(-2, -1), offs=counts.cumsum(0, dtype=torch.int32))
        y = (y * weight.reshape(-1)[order][:, None])[torch.argsort(order)].view(-1, 2, 12).sum(1)
        mask = torch.zeros_like(x[:, :4]).scatter(1, chosen, 1.0)
        return y, mask, torch.histc(x.reshape(-1), bins=5, min=-1, max=1)


@case(steps=lambda: [call(torch.randn(1, 4, n, 8), torch.randn(1, 2, 6, 8), torch.randn(1, 1, 6, 8)) for n in (5, 1, 6)],
      dynamic=lambda: {"q": {2: Dim("n", min=1, max=6)}, "two": None, "one": None})
def attention_repeated_heads(self, q, two, one):
    """Keys and values repeated over the heads of the queries, in the ways that models do it: no copy is needed for any of them."""
    def repeated(x, n):
        b, h, s, d = x.shape
        return x[:, :, None].expand(b, h, n, s, d).reshape(b, h * n, s, d)

    attend = nn.functional.scaled_dot_product_attention
    single, pair = repeated(one, 4), repeated(two, 2)
    broadcast = one.expand(-1, 4, -1, -1)
    return attend(q, pair, pair * 1), attend(q, single, single), attend(q, broadcast, broadcast), attend(q, two.repeat_interleave(2, 1), two.repeat_interleave(2, 1))
