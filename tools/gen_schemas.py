#!/usr/bin/env python3
"""Writes ir/src/op/aten.schema: the operator schemas that a torch.export program can contain.

    python tools/gen_schemas.py            # rewrite aten.schema from the installed torch
    python tools/gen_schemas.py --check    # compare both schema files with what is installed, change nothing

Needs torch; `--check` also imports torchao and executorch, where present, for the hand-kept custom.schema.
The line format is described in ir/src/op/mod.rs. Everything here is a fact read from torch's operator registry:
schema, tags, and which out-variant belongs to an operator. What is left out, and why, is in `EXCLUDED`.
"""

import argparse
import importlib
import pathlib
import re
import sys

import torch

HERE = pathlib.Path(__file__).resolve().parent.parent / "ir" / "src" / "op"

# Operators (regular expressions over the name without namespace) that no exported program contains, or
# that work on tensors the export format cannot hold. Core ATen operators stay whatever their name.
EXCLUDED = [
    r".*_jvp$", r".*_grad$",  # derivatives
    r"_?foreach_.*", r"_amp_.*", r"_fused_(adam|adamw|sgd|adagrad)_?$",  # optimisers
    r".*sparse.*", r"_?coalesced?_?", r"is_coalesced", r"_?(ccol_|col_|crow_|row_)?indices(_copy)?$", r"_?values(_copy)?$",
    r"_?nnz", r"_?dim[IV]$", r"(sparse|dense)_dim", r"to_dense", r"_to_dense", r"_spdiags", r"_spsolve", r"smm", r"hspmm",
    r"sspaddmm", r"_cslt_.*", r"_convert_indices_.*", r"_rowwise_prune",  # sparse layouts
    r".*nested.*", r".*jagged.*", r"_padded_dense.*", r"to_padded_tensor",  # nested tensors
    r".*(cudnn|cufft|miopen|mkldnn|_mps|^mps|nnpack|xla|vulkan|cuda|_for_mps).*",  # one engine only
    r"quantized_.*", r"fbgemm_.*", r"q_.*", r"qscheme", r"int_repr", r"_?empty_(per_channel_)?(affine_)?quantized",
    r"quantize_per_.*", r"_make_per_.*", r"dequantize", r"_saturate_weight.*",  # tensors of quantised dtypes
    r"_test_.*", r"_foobar", r"_has_.*", r"_debug_.*",
    r"_make_dual.*", r"_fw_primal.*", r"_(un)?pack_dual", r"_new_zeros_with_same_feature_meta", r"_efficientzerotensor",
    r"_version", r"_backward", r"_lazy_clone", r"_copy_from.*", r"set_data", r"data$", r"retain_grad", r"retains_grad",
    r"is_leaf", r"output_nr", r"requires_grad_", r"get_gradients", r"shallow_copy_data_", r"is_inference",
    r"_(add|remove)_batch_dim", r"_autocast_to_.*", r"_sobol_.*", r"_wrapped_.*", r"record_stream", r"from_file",
    r"_histogramdd_.*", r"_grid_sampler_2d_cpu_fallback", r"_(un)?pin_memory", r"pin_memory", r"is_pinned",
    r"choose_qparams_optimized", r"_thnn_.*", r"_cummax_helper", r"_cummin_helper", r"_make_dep_token",
    r"_resize_output_?", r"_shape_as_tensor", r"_lu_with_info", r"_compute_linear_combination", r"_dirichlet.*",
    r"_philox_.*", r"_segment_reduce.*", r"_vmap.*", r"_unsafe_masked_index_put_accumulate_$", r"_reshape_from_tensor",
    r"_mixed_dtypes_linear", r"_dyn_quant_.*", r"resize_as_sparse.*", r"flatten_dense_tensors",
    r"unflatten_dense_tensors", r"_chunk_cat", r"_to_cpu", r"slice_inverse", r"is_distributed",
]
# Types that cannot be written in an exported program.
TYPES = re.compile(r"\b(Dimname|Stream|Storage|PyObject|Future|QScheme|__torch__[\w.]*)\b")
PRIMS_EXCLUDED = re.compile(r"_sink_tokens|.*(rng|inductor|_seed|prepare_|_make_token|copy_strided|empty_permuted).*")
OPTIONS = ("dtype", "layout", "device", "pin_memory")
TAGS = {"core": "core", "pointwise": "pointwise", "nondeterministic_seeded": "random",
        "data_dependent_output": "data", "dynamic_output_shape": "dynamic", "inplace_view": "inplace_view"}
# Effects that no schema shows. torch keeps its list in Python (torch.fx.node), without the operators that only print or fail.
EFFECTS = re.compile(r"aten\.(_assert_\w+|_print|sym_constrain_range\w*|_functional_assert_\w+|"
                     r"_functional_sym_constrain_range\w*|_linalg_check_errors)\.")
# Random although torch does not tag them so.
RANDOM = re.compile(r"aten\.(random|uniform|normal|bernoulli|cauchy|exponential|geometric|log_normal)_?\.")


def target(schema):
    return f"{schema.name.replace('::', '.', 1)}.{schema.overload_name or 'default'}"


def line(schema, attributes=()):
    """The schema in our notation: the target as programs spell it, then arguments and returns as torch prints them."""
    text = str(schema)
    rest = text[text.index("("):]
    return target(schema) + rest + (" ; " + " ".join(attributes) if attributes else "")


def is_out(schema):
    return any(a.is_out for a in schema.arguments)


def signature(schema, skip=()):
    return [(a.name, str(a.type), a.kwarg_only) for a in schema.arguments if not a.is_out and a.name not in skip]


def out_variant(schema, outs):
    """Overload of the out-variant with the same arguments, and whether it lacks the tensor options (dtype, …)."""
    if any(a.alias_info and a.alias_info.is_write for a in schema.arguments):
        return None
    for attribute, skip in (("out", ()), ("out_without_options", OPTIONS)):
        same = [o for o in outs if signature(o) == signature(schema, skip)
                and sum(a.is_out for a in o.arguments) == max(1, len(schema.returns))]
        if same:
            return f"{attribute}={min(o.overload_name for o in same)}"
    return None


def excluded(schema, op, dispatched):
    name = schema.name.split("::")[1]
    full = schema.name + ("." + schema.overload_name if schema.overload_name else "")
    if full not in dispatched or TYPES.search(str(schema)) or (is_out(schema) and torch.Tag.core not in op.tags):
        return True
    if schema.name.startswith("prims::"):
        return bool(PRIMS_EXCLUDED.fullmatch(name))
    if torch.Tag.core in op.tags:
        return False
    return any(re.fullmatch(p, name) for p in EXCLUDED)


def registry():
    """Every registered schema of `aten` and `prims`, and every other one by target."""
    return {target(s): s for s in torch._C._jit_get_all_schemas()}


def aten_lines():
    dispatched = set(torch._C._dispatch_get_all_op_names())
    schemas = [s for s in registry().values() if s.name.startswith(("aten::", "prims::"))]
    outs = {}
    for s in schemas:
        if is_out(s):
            outs.setdefault(s.name, []).append(s)
    lines = []
    for s in schemas:
        ns, name = s.name.split("::")
        if not hasattr(getattr(torch.ops, ns), name):
            continue
        packet = getattr(getattr(torch.ops, ns), name)
        if not hasattr(packet, s.overload_name or "default"):
            continue
        op = getattr(packet, s.overload_name or "default")
        if excluded(s, op, dispatched):
            continue
        attributes = [word for tag, word in TAGS.items() if getattr(torch.Tag, tag) in op.tags]
        if EFFECTS.match(target(s)):
            attributes.append("effect")
        if RANDOM.match(target(s)) and "random" not in attributes:
            attributes.append("random")
        out = out_variant(s, outs.get(s.name, []))
        if out:
            attributes.append(out)
        lines.append(line(s, attributes))
    # By target, not by line: `(` would sort before letters and digits of a longer overload.
    return sorted(lines, key=lambda l: l.split("(")[0])


def check_custom():
    """Lines of custom.schema that disagree with an installed operator; operators not installed are only counted."""
    for module in (
        "torch.ao.quantization.fx._decomposed", "torchao", "torchao.quantization.pt2e",
        "executorch.backends.mlx.custom_ops", "executorch.backends.mlx.custom_kernel_ops.gated_delta_rule",
        "executorch.backends.mlx.custom_kernel_ops.tq4_compress", "executorch.backends.mlx.custom_kernel_ops.tq_dequant",
        "executorch.backends.mlx.custom_kernel_ops.tq_norm", "executorch.extension.llm.cache.update_and_attend",
        "executorch.extension.llm.export.nvfp4", "executorch.extension.llm.export.int4",
        "executorch.extension.llm.export.mx", "executorch.extension.llm.export.gguf",
        "executorch.extension.llm.custom_ops.custom_ops", "executorch.exir.passes._quant_patterns_and_replacements",
        "executorch.kernels.quantized", "executorch.exir.passes.dim_order_ops_registry", "executorch.exir.passes.executorch_prim_ops_registry",
    ):
        try:
            importlib.import_module(module)
        except ImportError as error:
            print(f"skipped {module}: {error}", file=sys.stderr)
    known, wrong, absent = registry(), [], 0
    previous = ""
    for text in (HERE / "custom.schema").read_text().splitlines():
        body, _, attributes = text.partition(" ; ")
        name = body.split("(")[0]
        if name <= previous:
            wrong.append(f"not sorted: {name} after {previous}")
        previous = name
        if set(attributes.split()) & {"function", "hop"}:
            continue
        if name not in known:
            absent += 1
        elif line(known[name]) != body:
            wrong.append(f"  file:      {body}\n  installed: {line(known[name])}")
    print(f"custom.schema: {len(wrong)} differences, {absent} operators not installed here", file=sys.stderr)
    return wrong


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--check", action="store_true", help="compare only; exit status 1 on a difference")
    check = options.parse_args().check
    text = "\n".join(aten_lines()) + "\n"
    path = HERE / "aten.schema"
    if not check:
        path.write_text(text)
        print(f"{path.name}: {text.count(chr(10))} operators, {len(text)} bytes", file=sys.stderr)
        return 0
    differences = check_custom()
    if path.read_text() != text:
        differences.append(f"aten.schema differs from torch {torch.__version__}; run this script without --check")
    print("\n".join(differences))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
