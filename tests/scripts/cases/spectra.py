"""Fourier transforms and the complex numbers between them."""
import torch
from torch import nn
from torch.export import Dim

from case import call, case

OUTSIDE = "it leaves transforms and complex numbers outside the delegate"


def spectra(**more):
    return dict(rtol=1e-4, atol=1e-4, reference_wrong=OUTSIDE) | more


@case(steps=lambda: [call(torch.randn(n, 3, 8), torch.randn(4, 5, 6)) for n in (2, 4)], dynamic=lambda: {"x": {0: Dim("n", min=1, max=8)}, "y": None}, **spectra())
def fourier_transforms(self, x, y):
    """Transforms of lines, planes and volumes, forwards and backwards, of real and complex numbers, cut and filled, in every scale."""
    half, whole = torch.fft.rfft(x, norm="ortho"), torch.fft.fft(x, n=6, dim=1)
    plane, volume = torch.fft.rfft2(y), torch.fft.fftn(y, s=(3, 6), dim=(0, 2), norm="forward")
    return (half.abs(), torch.fft.irfft(half, norm="ortho"), torch.fft.irfft(half, n=7), whole.real, whole.imag, torch.fft.ifft(whole, dim=1, norm="forward").imag, plane.imag, torch.fft.irfft2(plane, s=(5, 6)),
            volume.real, torch.fft.ifftn(volume, dim=(0, 2), norm="forward").real, torch.fft.fftshift(volume).imag, torch.fft.ifftshift(y, dim=(1,)), torch.fft.hfft(half), torch.fft.ihfft(x).imag,
            torch.fft.fft2(torch.fft.ifft2(y)).real, torch.fft.irfftn(torch.fft.rfftn(y)), torch.fft.fftfreq(7), torch.fft.rfftfreq(8, 0.5))


@case(steps=lambda: [call(torch.randn(3, 4), torch.randn(3, 4), torch.randn(4, 2)) for _ in range(2)], **spectra())
class complex_numbers(nn.Module):
    """Arithmetic of complex numbers whose parts are what comes out: products, quotients, powers, sums, matrices, joined and cut; a complex weight."""

    def __init__(self):
        super().__init__()
        self.turns = nn.Parameter(torch.randn(4, dtype=torch.complex64))

    def forward(self, x, y, pairs):
        z, w = torch.complex(x, y), torch.view_as_complex(pairs)
        turned = z * self.turns
        return (turned.real, torch.view_as_real(z * w + 2), (z / (w + 1j)).abs(), (z**2 - z).angle(), torch.exp(1j * x).real, (z.conj() @ w).imag, (2 * z - x).real, (z + y).imag, torch.view_as_real(-z.mean(1)),
                torch.cat([z, turned], 1).sum(0).real, torch.stack([z, w.expand(3, 4)], 1)[:, 0, 1:].imag, torch.where(x > 0, z, w).real, torch.polar(x.abs(), y).T.reshape(2, 6).imag, (z * 0.5).abs(), (x * w).imag)


@case(steps=lambda: [call(torch.randn(2, 64), torch.randn(2, 9, 17, 2))], **spectra())
def short_time_fourier_back(self, x, spectrum):
    """Signals from their short-time transforms: through a mask, of given pairs, a window that is shorter, all bins, a given length, a step that does not divide the window."""
    window = torch.hann_window(16)
    z = torch.stft(x, 16, 4, window=window, return_complex=True)
    w = torch.stft(x, 16, 5, 12, window=torch.hann_window(12) + 0.1, onesided=False, normalized=True, return_complex=True)
    return (torch.istft(z * 0.5, 16, 4, window=window), torch.istft(z, 16, 4, window=window, length=60), torch.istft(torch.view_as_complex(spectrum), 16, 4, window=window, normalized=True),
            torch.istft(w, 16, 5, 12, window=torch.hann_window(12) + 0.1, onesided=False, normalized=True), torch.istft(z, 16, 4, window=window + 0.1, center=False))


@case(steps=lambda: [call(torch.randn(2, n)) for n in (64, 100, 44)], dynamic=lambda: {"x": {1: 4 * Dim("n", min=10, max=50)}}, **spectra())
def short_time_fourier_back_of_any_length(self, x):
    """A filter of frequencies for signals whose length is known at run time."""
    window = torch.hann_window(16)
    z = torch.stft(x, 16, 4, window=window, return_complex=True)
    return torch.istft(z * torch.linspace(0, 1, 9)[:, None], 16, 4, window=window)
