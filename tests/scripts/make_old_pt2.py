#!/usr/bin/env python3
"""Make one small program in the file format of an older writer: tests/fixtures/old-pt2/NAME.pt2.

usage: make_old_pt2.py NAME OUT_DIR

Run it with the Python that has the writer:

  torch-2.5.1, torch-2.7.1    flat zip, torch.save files, schema 7.3 and 8.7
  torch-2.8.0                 archive with a root folder, torch.save files, schema 8.8
  exir-1.5.1                  ExecuTorch 1.5.1's own exir.save: flat zip, schema 5.4, Edge dialect

The weights are counted up in eighths, so that a test can tell every element without asking torch.
"""
import pathlib
import sys

import torch

import programs


def counted(*shape, dtype=torch.float32):
    n = 1
    for d in shape:
        n *= d
    return (torch.arange(n, dtype=torch.float32) / 8).reshape(shape).to(dtype)


class Old(torch.nn.Module):
    """Every kind of thing whose spelling changed between the formats."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)
        self.linear.weight = torch.nn.Parameter(counted(3, 4))
        self.linear.bias = torch.nn.Parameter(counted(3))
        # One tensor under two names, and a transposed view: strides that are not row-major.
        self.tied = self.linear.weight
        self.turned = torch.nn.Parameter(counted(3, 2).t())
        self.register_buffer("offset", counted(3, dtype=torch.bfloat16))
        self.register_buffer("beside", counted(2, 3), persistent=False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x, mask):
        self.calls.add_(1)
        y = self.linear(x) + self.offset + torch.tensor([1.0, 2.0, 3.0])
        y = y.masked_fill(mask, float("-inf"))
        y = torch.nn.functional.linear(y, self.turned) @ self.beside
        return torch.nn.functional.linear(y, self.tied.t()), torch.clamp(y, max=float("inf"))


def main():
    name, out = sys.argv[1], pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    rows = torch.export.Dim("rows", min=2, max=64) if name != "torch-2.5.1" else torch.export.Dim("rows", min=2)
    args = (torch.ones(5, 4), torch.zeros(5, 3, dtype=torch.bool))
    program = torch.export.export(Old().eval(), args, dynamic_shapes=({0: rows}, {0: rows}))
    path = out / f"{name}.pt2"
    if name.startswith("exir"):
        import executorch.exir

        program = executorch.exir.to_edge(program).exported_program()
        programs.forget_machine(program)
        executorch.exir.save(program, str(path))
    else:
        assert torch.__version__.split("+")[0] == name.removeprefix("torch-"), torch.__version__
        programs.save(program, str(path))


if __name__ == "__main__":
    main()
