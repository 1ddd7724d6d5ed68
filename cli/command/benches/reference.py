#!/usr/bin/env python3
"""Lower a program with ExecuTorch's own MLX backend and say, as JSON on the last line, what that took.

usage: reference.py MODEL.pt2          (needs torch 2.15 and executorch 1.5.1; used by `cargo bench -p etx-cli --bench lowering`)

The times leave out imports, reading the program and writing the file; the memory is that of the whole process.
"""
import json
import resource
import sys
import tempfile
import time

import executorch.backends.mlx.custom_ops  # noqa: F401  registers mlx::*
import torch
from executorch.backends.mlx.partitioner import MLXPartitioner
from executorch.backends.mlx.passes import get_default_passes
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower


def main():
    program = torch.export.load(sys.argv[1])
    begin, begin_processor = time.perf_counter(), time.process_time()
    config = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True)
    with torch.no_grad():
        edge = to_edge_transform_and_lower({"forward": program}, partitioner=[MLXPartitioner()], transform_passes=get_default_passes(), compile_config=config)
    lowered = edge.to_executorch()
    seconds, processor_seconds = time.perf_counter() - begin, time.process_time() - begin_processor
    with tempfile.TemporaryFile() as file:
        lowered.write_to_file(file)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "processor_seconds": processor_seconds, "peak_bytes": peak_bytes}))


if __name__ == "__main__":
    main()
