"""Networks for words, clicks and states: small ones as fixtures, some of the sizes used in earnest on demand."""
import torch
from torch import nn
from torch.export import Dim

from architectures import sequence
from case import call, model

TIGHT = dict(rtol=1e-4, atol=1e-5)
LARGE = dict(large=True, rtol=1e-3, atol=1e-4)


def sentences(vocab=40, sizes=((2, 7), (1, 4), (3, 9))):
    def steps():
        return [call(torch.randint(1, vocab, (n, t)), torch.tensor([[1] * t] + [[1] * (t - 2) + [0, 0]] * (n - 1))) for n, t in sizes]

    return steps


def any_sentence():
    n, t = Dim("n", min=1, max=8), Dim("t", min=2, max=16)
    return ({0: n, 1: t}, {0: n, 1: t})


def clicks():
    return [call(torch.randn(n, 4), torch.randint(0, 10, (3, 3 * n)), torch.arange(0, 3 * n, 3).repeat(3, 1)) for n in (2,)]


model("bert", lambda: sequence.Bert(40, 16, 2, 24, 1, 16), sentences(), dynamic=any_sentence, **TIGHT)
model("bert_bf16", lambda: sequence.Bert(40, 16, 2, 24, 1, 16), sentences(sizes=((2, 7),)), dtype=torch.bfloat16, rtol=3e-2, atol=3e-2)
model("t5", lambda: sequence.T5(40, 16, 2, 8, 24, 1, 8), lambda: [call(torch.randint(1, 40, (2, t)), torch.randint(1, 40, (2, u))) for t, u in ((9, 5), (6, 7), (12, 3))],
      dynamic=lambda: ({1: Dim("t", min=2, max=32)}, {1: Dim("u", min=2, max=32)}), **TIGHT)
model("recommender", lambda: sequence.Recommender((10, 12, 14), 4, 4, 8, "sum"), clicks, **TIGHT)
model("mamba", lambda: sequence.Mamba(8, 12, 4, 3, 2), lambda: {"forward": [call(torch.randn(1, 4, 8))],
      "step": [call(torch.randn(1, 8), torch.randn(1, 12, 3), torch.randn(1, 12, 4))]}, methods=["forward", "step"], **TIGHT)
model("rwkv", lambda: sequence.RWKV(12), lambda: [call(torch.randn(1, 12)) for _ in range(3)], **TIGHT)

model("bert_base", lambda: sequence.Bert(30522, 768, 12, 3072, 12, 512), sentences(30522, ((2, 7), (1, 16))), dynamic=any_sentence, **LARGE)
model("t5_small", lambda: sequence.T5(32128, 512, 8, 64, 1024, 8, 32), lambda: [call(torch.randint(1, 32128, (1, t)), torch.randint(1, 32128, (1, u))) for t, u in ((16, 5), (9, 7))],
      dynamic=lambda: ({1: Dim("t", min=2, max=512)}, {1: Dim("u", min=2, max=512)}), **LARGE)


class loops_written_out(nn.Module):
    """Loops over the steps of a sequence: with a state, without one, over several tensors at once."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3))

    def forward(self, x, y):
        def step(state, now):
            state = torch.tanh(state @ self.weight + now[0])
            return state, (state * 2, now[1] - state)

        last, (doubled, rest) = torch._higher_order_ops.scan(step, x[0] * 0, (x, y))
        return last, doubled, rest, torch._higher_order_ops.map(lambda row, w: row @ w + 1, x, self.weight)


model("loops_written_out", loops_written_out, lambda: [call(torch.randn(5, 2, 3), torch.randn(5, 2, 3))], keep_reference=True, **TIGHT)


class running_combinations(nn.Module):
    """Associative scans along either end of odd lengths: a linear recurrence and the largest so far."""

    def forward(self, a, x):
        scan = torch._higher_order_ops.associative_scan
        decayed = scan(lambda p, q: (p[0] * q[0], q[0] * p[1] + q[1]), (a, x), 0)
        return *decayed, scan(torch.maximum, x, 2, reverse=True)


model("running_combinations", running_combinations, lambda: [call(torch.rand(7, 2, 3), torch.randn(7, 2, 3))], **TIGHT)
