"""What export takes for granted of sizes, sizes through fractions, and results whose size would depend on data."""
import torch
from torch.export import Dim
from torch.nn import functional as F

from case import call, case

REFERENCE = "its file runs the branch of the example at any size"


@case(steps=lambda: [call(torch.randn(n, 3), torch.randn(m, 3)) for n, m in ((4, 6), (8, 6), (5, 6), (4, 2), (6, 3))],
      dynamic=lambda: {"x": {0: Dim.AUTO}, "y": {0: Dim.AUTO}}, or_refused=True, reference_wrong=REFERENCE)
def branches_by_sizes(self, x, y):
    """Branches by a remainder, by a comparison of two sizes, and by both."""
    x = x * 2 if x.shape[0] % 2 == 0 else x + 1
    return (x.sum(0) - y.sum(0) if x.shape[0] < 2 * y.shape[0] else x.sum(0)), (x if x.shape[0] != 6 or y.shape[0] > 4 else -x)


@case(steps=lambda: [call(torch.randn(h, w, 3), torch.randn(h)) for h, w in ((8, 9), (9, 9), (12, 9), (8, 12))],
      dynamic=lambda: {"x": {0: Dim.AUTO, 1: Dim.AUTO}, "y": {0: Dim.AUTO}}, or_refused=True, reference_wrong=REFERENCE)
def sizes_of_the_example(self, x, y):
    """A size that is rounded to an integer stays that of the example; a size that two inputs share."""
    grown = F.interpolate(x.permute(2, 0, 1)[None], size=(int(x.shape[0] * 0.75), int(x.shape[1] ** 0.5)), mode="nearest")
    return grown, x.sum((1, 2)) + y


@case(steps=lambda: [call(torch.randn(5, 3), torch.randn(5, 3)), call(torch.randn(5, 3), torch.randn(1, 3))],
      dynamic=lambda: {"x": {0: Dim("n", min=3, max=8)}, "y": {0: Dim("n", min=3, max=8)}}, or_refused=True, reference_wrong=REFERENCE)
def one_symbol_in_two_inputs(self, x, y):
    """Two inputs of one size, which broadcasting would hide."""
    return x * y + 1


@case(steps=lambda: [call(torch.randn(2, h, w)) for h, w in ((24, 20), (33, 26))], dynamic=lambda: {"x": {1: Dim.AUTO, 2: Dim.AUTO}})
def sizes_through_fractions(self, x):
    """Sizes without bounds, times 0.4 and 1.7: ranges that begin at 0.5, resampling, as whole grids of positions."""
    h, w = x.shape[1] // 8, x.shape[2] // 4
    rows, columns = torch.arange(0.5, h) / h, torch.arange(0.5, w) / w
    return (F.interpolate(x[:1], scale_factor=0.4, mode="linear"), F.interpolate(x[None, :1], scale_factor=(1.7, 0.4), mode="nearest"),
            torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1) * 2 - 1, torch.arange(0, x.shape[1] * 0.3, 0.7))


def mask(*shape):
    return torch.rand(shape) > 0.4


@case(steps=lambda: [call(torch.randn(3, 4), torch.randn(3, 4), m) for m in (mask(3, 4), torch.ones(3, 4).bool(), torch.eye(3, 4).bool())],
      reference_wrong="its file copies as many elements as the mask has")
def reductions_of_a_selection(self, x, y, m):
    """Every reduction of what a mask selects, losses of two selections, and the number of the selected."""
    s = x[m]
    return (s.sum(), s.mean(), s.max(), s.min(), s.prod(), (s > 0).any(), (s > 0).all(), (s > 0).sum(), s.var(unbiased=False),
            F.mse_loss(s, y[m]), ((s - y[m]).abs() / (1 + y[m] ** 2)).sum(), torch.masked_select(x, m[:1]).sum(), s.sum() / s.shape[0],
            (x * 4).int()[m].max(), x.half()[m].mean(), x[~x.isnan() & m].log1p().nansum())


@case(steps=lambda: [call(torch.randn(6, 4), torch.tensor(t)) for t in ([1, -1, 2, 0, 3, -1], [-100, 3, -1, -1, -1, 400], [0, 1, 2, 3, 0, 1])],
      reference_wrong="its file copies as many rows as the mask has")
def reductions_of_selected_rows(self, x, t):
    """Losses of the rows that have a label, and what is computed row by row before a reduction."""
    m = (t >= 0) & (t < 4)
    rows = x[m]
    return (F.cross_entropy(rows, t[m]), rows.softmax(-1).sum(0), rows.mean(0), rows.amax(1).mean(), x.t()[:, m].sum(1), x.t()[:, m].mean(),
            F.layer_norm(rows, (4,)).sum(0), rows.sum(1, keepdim=True).sum(), m.nonzero().shape[0] * x[0])


@case(steps=lambda: [call(torch.randn(n, 5)) for n in (6, 3)] + [call(torch.tensor([[-1.0, 1.0, 0.25, float("nan"), 3.0]]).expand(4, 5).clone())],
      dynamic=lambda: {"x": {0: Dim("n", min=1, max=9)}}, reference_wrong="it refuses both")
def histograms_and_places(self, x):
    """torch.histc of any rank, places of what is not 0, as many as were asked for."""
    return torch.histc(x, 10, -1, 1), torch.nonzero_static(x > 0.1, size=7), torch.nonzero_static(x, size=50, fill_value=9)


@case(steps=lambda: [call(torch.randn(3, 4), torch.randint(0, 2, (2, 3, 2))), call(torch.full((3, 4), 2.5), torch.zeros(2, 3, 2, dtype=torch.int64))],
      reference_wrong="it refuses both")
def histograms_between_extremes(self, x, n):
    """A range that is that of the values, also of equal ones; places in three axes, and of nothing."""
    return torch.histc(x, 5), torch.histc(x), torch.nonzero_static(n, size=9), torch.nonzero_static(x.sum() > 0, size=2), torch.nonzero_static(x[:0], size=2)
