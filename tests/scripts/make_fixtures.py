#!/usr/bin/env python3
"""Make the committed conformance cases (format: case.py).

usage: make_fixtures.py [--out DIR] [NAME ...]     (default: every case, into tests/fixtures; needs torch 2.15, executorch 1.5.1 and safetensors,
for detectors torchvision)
       make_fixtures.py --large --out DIR [NAME ...]   models of the sizes used in earnest: hundreds of megabytes, for a folder beside the repository
"""
import argparse
import logging
import pathlib
import warnings

import case
import cases.audio
import cases.caches
import cases.chance
import cases.conditions
import cases.constants
import cases.core
import cases.detectors
import cases.diagonals
import cases.dtypes
import cases.layers
import cases.loops
import cases.models
import cases.operator_faults
import cases.operators
import cases.quantised
import cases.reference_faults
import cases.sequence
import cases.shapes
import cases.signature
import cases.spectra
import cases.state
import cases.training
import cases.unlike_torch
import cases.vision
import cases.weights


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[1] / "fixtures")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    if options.large and options.out == parser.get_default("out"):
        parser.error("--large needs --out: such files do not belong into the repository")
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    failed = []
    for name in options.names or sorted(n for n, c in case.CASES.items() if c.get("large", False) == options.large):
        try:
            print(case.write(case.CASES[name], options.out / name), flush=True)
        except Exception as error:  # all of them are tried before the run fails
            failed.append(name)
            print(f"{name:32} NOT MADE: {type(error).__name__}: {str(error)[:500]}", flush=True)
    if failed:
        raise SystemExit(f"not made: {' '.join(failed)}")


if __name__ == "__main__":
    main()
