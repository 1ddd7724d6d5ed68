#!/usr/bin/env python3
"""Lower a program with ExecuTorch's own MLX backend and say, as JSON on the last line, what that took.

usage: reference.py MODEL.pt2          (needs torch 2.15 and executorch 1.5.1; used by `cargo bench -p etx --bench lowering`)

`lowering_seconds` leaves out imports, reading the program and writing the file; the others are of the whole process.
"""
import json
import resource
import sys
import tempfile
import time

START = time.perf_counter()

import executorch.backends.mlx.custom_ops  # noqa: E402,F401  registers mlx::*
import torch  # noqa: E402
from executorch.backends.mlx.partitioner import MLXPartitioner  # noqa: E402
from executorch.backends.mlx.passes import get_default_passes  # noqa: E402
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower  # noqa: E402


def main():
    program = torch.export.load(sys.argv[1])
    begin = time.perf_counter()
    config = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True)
    with torch.no_grad():
        edge = to_edge_transform_and_lower({"forward": program}, partitioner=[MLXPartitioner()], transform_passes=get_default_passes(), compile_config=config)
    lowered = edge.to_executorch()
    lowering = time.perf_counter() - begin
    with tempfile.TemporaryFile() as file:
        lowered.write_to_file(file)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({
        "lowering_seconds": lowering,
        "wall_seconds": time.perf_counter() - START,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
    }))


if __name__ == "__main__":
    main()
