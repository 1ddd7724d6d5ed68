"""What torchvision's detectors are made of (needs torchvision)."""
import torch
import torchvision.ops as ops
from torch import nn
from torch.export import Dim

from case import call, model

TIGHT = dict(rtol=1e-4, atol=1e-5)


def boxes(n, images, far=20.0):
    low, size = torch.rand(n, 2) * far - 3, torch.rand(n, 2) * far
    return torch.cat([torch.randint(0, images, (n, 1)).float(), low, low + size], 1)


class regions_of_boxes(nn.Module):
    """Samples by a number and as many as there are pixels, whole pixels, channels by place; boxes that reach outside, and small ones."""

    def forward(self, x, b):
        return (ops.roi_align(x, b, (3, 2), 0.5, 2, True), ops.roi_align(x, b, (2, 2), 0.5, -1, True), ops.roi_align(x, b, (2, 3), 1.0, 3, False),
                ops.roi_align(x, b, (3, 3), 0.25), ops.roi_pool(x, b, (3, 2), 0.5), ops.ps_roi_align(x, b, (2, 1), 0.5),
                ops.ps_roi_align(x, b, (1, 2), 0.5, 2), ops.ps_roi_pool(x, b, (2, 2), 0.5))


model("regions_of_boxes", regions_of_boxes, lambda: [call(torch.randn(2, 4, 9, 7), boxes(n, 2)) for n in (5, 2)],
      dynamic=lambda: (None, {0: Dim("boxes", min=1, max=64)}), **TIGHT)


class deformable_convolutions(nn.Module):
    """With weights for what is seen and without, in groups of channels and of offsets, strided and dilated."""

    def __init__(self):
        super().__init__()
        self.plain, self.grouped = nn.Parameter(torch.randn(3, 4, 3, 3)), nn.Parameter(torch.randn(6, 2, 3, 2))
        self.bias = nn.Parameter(torch.randn(6))

    def forward(self, x, shifts, more, mask):
        return (ops.deform_conv2d(x, shifts, self.plain, padding=1),
                ops.deform_conv2d(x, more, self.grouped, self.bias, stride=(2, 1), padding=(2, 1), dilation=(2, 1), mask=mask))


def shifted(n):
    return call(torch.randn(n, 4, 5, 4), torch.randn(n, 18, 5, 4) * 2, torch.randn(n, 24, 3, 5) * 2, torch.rand(n, 12, 3, 5))


model("deformable_convolutions", deformable_convolutions, lambda: [shifted(n) for n in (2, 1)],
      dynamic=lambda: ({0: Dim("n", min=1, max=8)},) * 4, **TIGHT)
