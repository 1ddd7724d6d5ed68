#!/usr/bin/env python3
"""Compare 4-bit decoding on the processor: etx, llama.cpp and MLX's CPU backend, in turn, in one run, on the same threads.

usage: bench_decode.py --etx target/release/etx --pte MODEL.pte [--prompt 128] [--decode 32] [--rounds 3] [--threads 2]

MODEL.pte is a 4-bit Llama of the shape of Llama 3.2 1B with groups of 64, all weights quantised, embedding and output head tied:
  python make_benchmark_llama.py llama1b.pt2 && etx lower llama1b.pt2 --quantize all=4w:64 -o llama4.pte
The others get random 4-bit weights of the same shape: llama.cpp a Q4_0 GGUF (4.5 bits a weight, as etx's), MLX packed arrays with groups of 64.
Needs numpy, llama-cpp-python and gguf, and for MLX mlx-cpu (left out if not there). Nothing is downloaded.

Every engine runs in a process of its own and computes the logits of all positions of the prompt, then decodes token by token. "cpu" is
the processor time of one thread, which other work on the machine disturbs less than the clock; llama.cpp's threads wait by spinning, which counts.
The share of bandwidth is bytes of weights read a second over what a plain sum of the same number of bytes reaches, same threads, same run.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, MLP, VOCAB, CONTEXT = 16, 2048, 32, 8, 64, 8192, 128256, 1024
LINEARS = [("attn_q", HEADS * HEAD_DIM, HIDDEN), ("attn_k", KV_HEADS * HEAD_DIM, HIDDEN), ("attn_v", KV_HEADS * HEAD_DIM, HIDDEN),
           ("attn_output", HIDDEN, HEADS * HEAD_DIM), ("ffn_gate", MLP, HIDDEN), ("ffn_up", MLP, HIDDEN), ("ffn_down", HIDDEN, MLP)]
WEIGHTS = LAYERS * sum(n * k for _, n, k in LINEARS) + VOCAB * HIDDEN
WEIGHT_BYTES = WEIGHTS * 4.5 / 8


def prompt(count):
    return [(i * 7919 + 13) % VOCAB for i in range(count)]


class Clock:
    """Seconds by the clock, and by the processor over all threads of this process."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self):
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


def make_gguf(path):
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(500000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCAB)
    writer.add_file_type(2)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list([f"t{i}" for i in range(VOCAB)])
    writer.add_token_types([1] * VOCAB)
    writer.add_token_merges(["t 0"])
    random = np.random.default_rng(0)

    def matrix(name, n, k):
        # Blocks of 32: an f16 scale, then 16 bytes of codes.
        blocks = random.integers(0, 256, (n, k // 32, 18), dtype=np.uint8)
        blocks[:, :, :2] = np.full(1, k**-0.5 / 4.6, np.float16).view(np.uint8)
        writer.add_tensor(name, blocks.reshape(n, -1), raw_dtype=gguf.GGMLQuantizationType.Q4_0)

    def norm(name):
        writer.add_tensor(name, np.ones(HIDDEN, np.float32))

    matrix("token_embd.weight", VOCAB, HIDDEN)
    norm("output_norm.weight")
    for layer in range(LAYERS):
        norm(f"blk.{layer}.attn_norm.weight")
        norm(f"blk.{layer}.ffn_norm.weight")
        for name, n, k in LINEARS:
            matrix(f"blk.{layer}.{name}.weight", n, k)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run_llama(options):
    import llama_cpp

    model = llama_cpp.Llama(model_path=options.gguf, n_ctx=CONTEXT, n_batch=512, n_threads=options.threads,
                            n_threads_batch=options.threads, logits_all=True, verbose=False)
    model.eval(prompt(8))
    model.reset()
    clock = Clock()
    model.eval(prompt(options.prompt))
    prefill = clock.read()
    clock = Clock()
    for i in range(options.decode):
        model.eval([i + 5])
    return prefill, clock.read()


def run_mlx(options):
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
    mx.random.seed(0)

    def matrix(n, k):
        codes = mx.random.randint(0, 2**31 - 1, (n, k // 8)).astype(mx.uint32)
        scales = mx.full((n, k // 64), k**-0.5 / 4.6, mx.bfloat16)
        return codes, scales, -8 * scales

    layers = [{name: matrix(n, k) for name, n, k in LINEARS} for _ in range(LAYERS)]
    head = matrix(VOCAB, HIDDEN)
    ones = mx.ones((HIDDEN,), mx.bfloat16)
    caches = [[mx.zeros((1, KV_HEADS, CONTEXT, HEAD_DIM), mx.bfloat16) for _ in range(2)] for _ in layers]
    mx.eval(layers, head, caches)

    def times(x, w):
        return mx.quantized_matmul(x, *w, transpose=True, group_size=64, bits=4)

    def step(tokens, start):
        n = len(tokens)
        at = mx.array(tokens)
        x = mx.dequantize(head[0][at], head[1][at], head[2][at], group_size=64, bits=4)[None]
        for layer, cache in zip(layers, caches):
            y = mx.fast.rms_norm(x, ones, 1e-5)
            split = lambda v, heads: v.reshape(1, n, heads, HEAD_DIM).transpose(0, 2, 1, 3)
            q, k, v = (split(times(y, layer[w]), h) for w, h in (("attn_q", HEADS), ("attn_k", KV_HEADS), ("attn_v", KV_HEADS)))
            q, k = (mx.fast.rope(t, HEAD_DIM, traditional=False, base=500000.0, scale=1.0, offset=start) for t in (q, k))
            cache[0][:, :, start : start + n], cache[1][:, :, start : start + n] = k, v
            keys, values = (c[:, :, : start + n] for c in cache)
            y = mx.fast.scaled_dot_product_attention(q, keys, values, scale=HEAD_DIM**-0.5, mask="causal" if n > 1 else None)
            x = x + times(y.transpose(0, 2, 1, 3).reshape(1, n, -1), layer["attn_output"])
            y = mx.fast.rms_norm(x, ones, 1e-5)
            gate = times(y, layer["ffn_gate"])
            x = x + times(gate * mx.sigmoid(gate) * times(y, layer["ffn_up"]), layer["ffn_down"])
        mx.eval(times(mx.fast.rms_norm(x, ones, 1e-5), head), caches)

    clock = Clock()
    step(prompt(options.prompt), 0)
    prefill = clock.read()
    clock = Clock()
    for i in range(options.decode):
        step([i + 5], options.prompt + i)
    return prefill, clock.read()


def run_etx(options):
    def generate(count):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        command = [options.etx, "generate", options.pte, "--ids", ",".join(map(str, prompt(options.prompt))), "--ignore-eos",
                   "--max-tokens", str(count), "--threads", str(options.threads), "--format", "json"]
        said = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return said, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before

    # Processor time is known of whole processes only: once without decoding, once with.
    first, prefill_cpu = generate(1)
    said, cpu = generate(options.decode + 1)
    assert said["decode"]["tokens"] == options.decode, said
    return (first["prefill"]["seconds"], prefill_cpu), (said["decode"]["seconds"], max(cpu - prefill_cpu, 0.0))


def run_read(options):
    import numpy as np

    data = np.ones(int(WEIGHT_BYTES) // 8, np.int64)
    parts = np.array_split(data, options.threads)
    with concurrent.futures.ThreadPoolExecutor(options.threads) as pool:
        list(pool.map(np.sum, parts))
        clock = Clock()
        for _ in range(4):
            list(pool.map(np.sum, parts))
        wall, cpu = clock.read()
    return (0.0, 0.0), (wall / 4, cpu / 4)


ENGINES = {"read": run_read, "etx": run_etx, "llama.cpp": run_llama, "mlx": run_mlx}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--etx", required=True)
    parser.add_argument("--pte", required=True)
    parser.add_argument("--gguf", help="Q4_0 file to use [default: made in a temporary folder]")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=ENGINES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(ENGINES[options.only](options)))
        return

    with tempfile.TemporaryDirectory() as folder:
        if options.gguf is None:
            options.gguf = str(pathlib.Path(folder) / "llama4.gguf")
            make_gguf(options.gguf)
        results = {name: [] for name in ENGINES}
        for _ in range(options.rounds):
            for name, done in results.items():
                # MLX's CPU backend takes seconds a token: a few say enough.
                decode, length = (2, 16) if name == "mlx" else (options.decode, options.prompt)
                command = [sys.executable, __file__, "--only", name, "--etx", options.etx, "--pte", options.pte, "--gguf", options.gguf,
                           "--prompt", str(length), "--decode", str(decode), "--threads", str(options.threads)]
                run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": str(options.threads)})
                if run.returncode:
                    print(f"{name}: left out: {run.stderr.strip().splitlines()[-1] if run.stderr else run.returncode}", file=sys.stderr)
                    continue
                prefill, decoded = json.loads(run.stdout.splitlines()[-1])
                per = 1 if name == "read" else decode
                done.append((length / prefill[0] if prefill[0] else 0, prefill[1] / length / options.threads * 1e3,
                             per / decoded[0], decoded[1] / per / options.threads * 1e3))

    def median(values):
        return sorted(values)[len(values) // 2]

    print(f"{WEIGHTS / 1e9:.2f} billion weights, {WEIGHT_BYTES / 1e6:.0f} MB; {options.threads} threads; medians of {options.rounds} rounds")
    print(f"{'':<12}{'prefill tokens/s':>18}{'cpu ms/token':>14}{'decode tokens/s':>18}{'cpu ms/token':>14}{'bandwidth':>12}{'by cpu':>9}")
    plain = results["read"]
    for name, done in results.items():
        if not done:
            continue
        prefill, prefill_cpu, decode, decode_cpu = (median([d[i] for d in done]) for i in range(4))
        share = decode / median([d[2] for d in plain])
        share_cpu = median([d[3] for d in plain]) / decode_cpu if decode_cpu else 0
        if name == "read":
            print(f"{'plain read':<12}{'':>18}{'':>14}{decode:>11.2f} passes{decode_cpu:>14.1f}{decode * WEIGHT_BYTES / 1e9:>7.2f} GB/s")
        else:
            print(f"{name:<12}{prefill:>18.1f}{prefill_cpu:>14.1f}{decode:>18.2f}{decode_cpu:>14.1f}{share:>12.0%}{share_cpu:>9.0%}")


if __name__ == "__main__":
    main()
