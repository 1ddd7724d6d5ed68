#!/usr/bin/env python3
"""Writes the values that eager PyTorch answers behind every call of ir/src/eval/facts.txt.

Calls are written as in ir/src/infer/facts.txt; add a line without results and run this file:

    python tools/eval_facts.py ir/src/eval/facts.txt

Tensors hold numbers that depend on the position of the tensor in the call and of the element in the tensor (`number`), or those
that stand behind them in braces (`i64[3]{2, 0, 1}`). A line that begins with `+` has positive floats up to 1 and integers 0 and 1.
Results are given as element type, sizes, and elements in order, at most `MOST` of them, evenly spread. Numbers are given to as
many digits as their type has.
"""

import re
import sys

import torch

from infer_facts import NAMES, SHORT, flat

MOST = 16


def number(tensor, element):
    """From -20 to 20."""
    return (element * 37 + tensor * 11 + 5) % 41 - 20


class Maker:
    """`f32[2, 3]` in a line."""

    def __init__(self, dtype, counter, positive):
        self.dtype, self.counter, self.positive = dtype, counter, positive

    def __getitem__(self, sizes):
        sizes = sizes if isinstance(sizes, tuple) else (sizes,)
        k, n = self.counter[0], torch.Size(sizes).numel()
        self.counter[0] += 1
        v = [number(k, i) for i in range(n)]
        if self.dtype == torch.bool:
            v = [x % 3 == 0 for x in v]
        elif self.dtype.is_complex:
            v = [complex(x / 7, x * 3 % 11 / 5) for x in v]
        elif self.dtype.is_floating_point:
            v = [(x + 21) / 42 if self.positive else x / 7 for x in v]
        elif self.positive:
            v = [x % 2 for x in v]
        elif not self.dtype.is_signed:
            v = [x + 20 for x in v]
        wide = torch.complex128 if self.dtype.is_complex else torch.float64 if self.dtype.is_floating_point else torch.int64
        return torch.tensor(v, dtype=wide).to(self.dtype).reshape(sizes)


def data(tensor, values):
    wide = torch.float64 if tensor.dtype.is_floating_point else torch.int64
    return torch.tensor(values, dtype=wide).to(tensor.dtype).reshape(tensor.shape)


def call(text):
    positive = text.startswith("+ ")
    target, arguments = re.fullmatch(r"([\w.]+)\((.*)\)", text.removeprefix("+ ")).groups()
    namespace, name, overload = target.rsplit(".", 2)
    operator = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    arguments = re.sub(r"\b(%s)\[\]" % "|".join(NAMES), r"\1[()]", arguments)
    arguments = re.sub(r"\b(%s)\b(?!\[)" % "|".join(NAMES), r"_\1", arguments)
    arguments = re.sub(r"(\w+\[[^\]]*\])\{([^}]*)\}", r"data(\1, [\2])", arguments)
    counter = [0]
    scope = {name: Maker(dtype, counter, positive) for name, dtype in NAMES.items()}
    scope |= {f"_{name}": dtype for name, dtype in NAMES.items()} | {"inf": float("inf"), "nan": float("nan")}
    with torch.no_grad():
        results = eval(f"operator({arguments})", {"operator": operator, "data": data} | scope)
    return flat(results if isinstance(results, (tuple, list)) else [results])


def digits(x, dtype):
    if dtype.is_complex:
        part = torch.float32 if dtype == torch.complex64 else torch.float64
        return f"{digits(x.real, part)} {digits(x.imag, part)}"
    if not dtype.is_floating_point:
        return str(int(x))
    n = {torch.float64: 17, torch.float32: 9}.get(dtype, 6)
    return f"{x:.{n}g}"


def spelled(result):
    if not isinstance(result, torch.Tensor):
        return repr(result)
    values = result.resolve_conj().resolve_neg().contiguous().reshape(-1)
    wide = values if values.dtype.is_complex else values.double() if values.dtype.is_floating_point else values.long()
    wide = wide.tolist()
    if len(wide) > MOST:
        wide = [wide[i * len(wide) // MOST] for i in range(MOST)]
    numbers = " ".join(digits(x, result.dtype) for x in wide)
    return f"{SHORT[result.dtype]}{list(result.shape)} {numbers}".rstrip()


def main(path):
    lines = []
    for line in open(path).read().splitlines():
        text = line.partition(") => ")[0].removesuffix(")") + ")"
        if line and not line.startswith("#"):
            line = f"{text} => " + "; ".join(map(spelled, call(text)))
        lines.append(line)
    open(path, "w").write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
