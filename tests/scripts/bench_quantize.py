#!/usr/bin/env python3
"""Quantise and lower a Llama of the shape of Llama 3.2 1B with torchao and ExecuTorch, and with etx, on the same machine in one run.

usage: bench_quantize.py ETX MODEL.pt2 [--runs N] [--width 4w] [--group 64] [--layers N]

MODEL.pt2 is what make_benchmark_llama.py made with the same --layers; ETX is the command (target/release/etx). Embedding and output head
share their weight before and after. Of torchao and ExecuTorch the time is that of quantising and of lowering, without building, exporting
and writing the model; of etx it is that of the whole command, reading and writing included. Memory is the most that etx had beyond mapped files,
and the most that Python had in all. Needs torch 2.15, torchao 0.18, executorch 1.5.1 and some 12 GB of memory.
"""
import argparse
import json
import multiprocessing
import pathlib
import resource
import subprocess
import tempfile
import time


def etx(command, model, rules, runs):
    """Least seconds of a run, and most memory beyond mapped files."""
    best, most = float("inf"), 0
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(runs):
            subprocess.run(["sync"], check=True)
            begin = time.perf_counter()
            process = subprocess.Popen([command, "lower", model, "--quantize", rules, "-o", f"{folder}/out.pte", "--report", f"{folder}/report.json"])
            while process.poll() is None:
                try:
                    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
                    most = max([most, *(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:"))])
                except OSError:
                    pass
                time.sleep(0.005)
            best = min(best, time.perf_counter() - begin)
            assert process.returncode == 0
        report = json.loads(pathlib.Path(f"{folder}/report.json").read_text())
    return best, most, report


def reference(layers, width, group, result):
    import executorch.backends.mlx.custom_ops  # noqa: F401  registers mlx::*
    import torch
    from executorch.backends.mlx.partitioner import MLXPartitioner
    from executorch.backends.mlx.passes import get_default_passes
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
    from executorch.extension.llm.export.quantize import quantize_model_

    import llama

    config = llama.Config(hidden=2048, layers=layers, heads=32, kv_heads=8, head_dim=64, mlp=8192, vocab=128256, context=1024,
                          dtype=torch.bfloat16, flow="custom")
    model = llama.build(config)
    with torch.no_grad():
        begin = time.perf_counter()
        quantize_model_(model, width, group, None, width, group)
        model.lm_head.weight = model.embed_tokens.weight
        quantised = time.perf_counter()
        program = llama.export(model)
        exported = time.perf_counter()
        edge = to_edge_transform_and_lower({"forward": program}, partitioner=[MLXPartitioner()], transform_passes=get_default_passes(),
                                           compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True))
        edge.to_executorch()
        lowered = time.perf_counter()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result.put((quantised - begin, lowered - exported, memory))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("etx")
    parser.add_argument("model")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--width", default="4w")
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--layers", type=int, default=16)
    options = parser.parse_args()

    rules = f"all={options.width}:{options.group}"
    seconds, memory, report = etx(options.etx, options.model, rules, options.runs)
    phases = ", ".join(f"{name} {value:.2f}" for name, value in report["seconds"].items())
    print(f"etx                     {seconds:.2f} s ({phases}); {memory / 1e6:.0f} MB; {report['file_bytes'] / 1e6:.0f} MB written", flush=True)

    context = multiprocessing.get_context("spawn")
    result = context.Queue()
    process = context.Process(target=reference, args=(options.layers, options.width, options.group, result))
    process.start()
    quantise, lower, peak = result.get()
    process.join()
    print(f"torchao and ExecuTorch  {quantise + lower:.1f} s (quantise {quantise:.1f}, lower {lower:.1f}); {peak / 1e9:.1f} GB")
    print(f"ratio                   {(quantise + lower) / seconds:.1f}")


if __name__ == "__main__":
    main()
