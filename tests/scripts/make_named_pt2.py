#!/usr/bin/env python3
"""Make small archives whose methods have names that were chosen: tests/fixtures/named-pt2. Needs torch 2.15.

usage: make_named_pt2.py [OUT_DIR]

  encode.pt2      one method, `encode`: 2 * x
  two.pt2         `encode`, and `decode`: 3 * x
"""
import pathlib
import sys

import torch
from torch.export.pt2_archive._package import package_pt2

import programs


class Times(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def exported(factor):
    program = torch.export.export(Times(factor), (torch.ones(3),))
    programs.forget_machine(program)
    return program


def main():
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else programs.ROOT / "tests" / "fixtures" / "named-pt2"
    out.mkdir(parents=True, exist_ok=True)
    package_pt2(out / "encode.pt2", exported_programs={"encode": exported(2.0)})
    package_pt2(out / "two.pt2", exported_programs={"encode": exported(2.0), "decode": exported(3.0)})


if __name__ == "__main__":
    main()
