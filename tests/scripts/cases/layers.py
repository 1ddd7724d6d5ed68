"""Layers that no single instruction runs: recurrence, transforms."""
import torch
from torch import nn
from torch.export import Dim

from case import call, case

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


@case(steps=lambda: [call(torch.randn(2, n), torch.randn(24), torch.hann_window(6)) for n in (40, 23, 64)],
      dynamic=lambda: {"x": {1: Dim("n", min=16, max=64)}, "y": None, "w": None}, rtol=1e-4, atol=1e-4, reference_wrong=OUTSIDE)
def short_time_fourier(self, x, y, w):
    """Short-time Fourier transforms, one of a length known at run time: mirrored ends, a window shorter than the transform, all bins; what is asked of complex numbers."""
    s = torch.stft(x, 8, 3, 6, w, return_complex=True)
    full = torch.stft(y, 8, 4, center=False, onesided=False, normalized=True, return_complex=True)
    return torch.view_as_real(s), s.abs().pow(2), s.real, full.imag, full.unsqueeze(0).abs()
