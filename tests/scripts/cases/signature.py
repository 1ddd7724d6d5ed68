"""Odd signatures: outputs that alias, repeat or pass through; dicts and keywords; Python values; constants."""
import collections

import torch
from torch import nn
from torch.export import Dim
from torch.utils import _pytree as pytree

from case import call, case

Pair = collections.namedtuple("Pair", ["a", "b"])
pytree._register_namedtuple(Pair, serialized_type_name="cases.Pair")


@case(steps=lambda: [call(torch.randn(2, 3))])
def aliased_outputs(self, x):
    """Outputs that are views of one another and of the input."""
    y = x + 1
    return y, y.t(), y.view(6), x.view(3, 2), y[0]


@case(steps=lambda: [call(torch.randn(2, 3), torch.tensor([1, 2]))])
def input_as_output(self, x, i):
    """Inputs returned as they came, beside something computed."""
    return x, x + 1, i


@case(steps=lambda: [call(torch.randn(3))])
def same_output_twice(self, x):
    """One value in two places of the result."""
    y = x * 2
    return y, x - 1, y


@case(steps=lambda: [call(torch.randn(3))], partitions=0)
def identity(self, x):
    """A program without any operator."""
    return x


@case(steps=lambda: [call(torch.randn(3), torch.randn(5))])
def unused_input(self, x, never):
    """An input that nothing reads."""
    return x.exp()


@case(steps=lambda: [call(v, v) for v in (torch.randn(3), torch.randn(3))])
def one_tensor_as_two_inputs(self, x, y):
    """Traced with the same tensor object for both inputs: the graph reads only one of them."""
    return x + y, x * y


@case(steps=lambda: [call(torch.randn(3))], reference_wrong=None)
def constant_output(self, x):
    """A constant returned as it is, beside something computed from it."""
    c = torch.tensor([1.0, 2.0, 3.0])
    return x + c, c


@case(steps=lambda: [call(torch.randn(3))])
def python_outputs(self, x):
    """Python numbers, a boolean and None among the outputs."""
    return x + 1, 3, 0.5, True, None


@case(steps=lambda: [call(torch.randn(3), 2, 0.5, True, None)])
def python_inputs(self, x, k, scale, flag, nothing):
    """Python values as inputs: export burns them into the graph, the caller still passes them."""
    y = x * k + scale if flag else x
    return y if nothing is None else y + nothing


@case(steps=lambda: [call(torch.randn(4, 6), n) for n in (3, 5)], dynamic=lambda: {"x": None, "n": Dim.DYNAMIC})
def symbolic_int_input(self, x, n):
    """An integer input that stays symbolic."""
    return x * n, torch.full((2,), 1.0) * (n + 1)


@case(steps=lambda: [call(torch.randn(2, 2), {"b": torch.randn(2), "a": [torch.randn(2), torch.tensor(3.0)]}, scale=torch.tensor(2.0), bias=torch.tensor([1.0, -1.0]))])
def nested_arguments(self, x, parts, *, bias, scale):
    """Dicts, lists and keyword arguments in another order than the signature's; a nested result."""
    y = x * scale + bias
    return {"sum": y + parts["b"], "rest": (parts["a"][0] - y, [parts["a"][1] * y])}


@case(steps=lambda: [call(torch.randn(2, 3), torch.tensor(True)), call(torch.randn(2, 3), torch.tensor(False))])
class conditional(nn.Module):
    """A branch on a tensor: a higher-order operator with two subgraphs that capture a weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))

    def forward(self, x, flag):
        return torch.cond(flag, lambda x: x * self.weight, lambda x: x - 1, (x,))


@case(steps=lambda: [call(torch.randn(2, 3), torch.tensor([0, 1]))])
class names(nn.Module):
    """Module and argument names that clash once dots become underscores, or with a keyword."""

    def __init__(self):
        super().__init__()
        self.a_b = nn.ParameterDict({"c": nn.Parameter(torch.ones(3))})
        self.a = nn.ParameterDict({"b_c": nn.Parameter(torch.full((3,), 2.0))})

    def forward(self, input, lambda_):
        return input + self.a_b["c"] * 3 - self.a["b_c"], input[lambda_]


@case(steps=lambda: [call(torch.randn(2), collections.OrderedDict(z=torch.randn(2), y=torch.randn(2)), collections.defaultdict(list, k=torch.randn(2)), collections.deque([torch.randn(2)]), {}, Pair(torch.randn(2), torch.randn(2)))])
def containers(self, x, ordered, given, queue, nothing, pair):
    """Every container that a program may take or give, empty ones as well."""
    return collections.OrderedDict(b=x + ordered["z"], a=(queue[0] - x,)), {}, [given["k"] * 2], (), {"1": pair.a * x - pair.b}, Pair([x * 2], ordered["y"] + x), collections.deque([x - 1])
