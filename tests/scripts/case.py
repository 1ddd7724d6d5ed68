"""A conformance case as a folder: programs, inputs, eager PyTorch's answers, and what ExecuTorch's own MLX lowering makes of it.

Files of a case:
  <method>.pt2              the exported program of the method
  <method>.functional.pt2   for some: the same after `run_decompositions({})`
  io.safetensors            `<method>.<step>.input.<i>`, `<method>.<step>.expected.<i>`; scalars as rank-0 tensors
  reference.pte             ExecuTorch's file, all methods in one; absent where it aborts or is known to answer wrongly, and for whole models
  case.json                 tolerances, methods, and the reference's summary; `reference` null with `reference_absent` the reason

Input numbers count every user input in call order. A Python constant that export burnt into the program is one of them: numbers
and booleans are stored, None (kind "none") has no tensor.
"""
import collections
import copy
import inspect
import json
import zlib

import torch
from torch.export.experimental import _export_forward_backward
from torch.export.graph_signature import OutputKind
from torch.utils import _pytree as pytree
from safetensors.torch import save_file

import programs

CASES = {}


def call(*args, **kwargs):
    """The arguments of one call."""
    return args, kwargs


class Method(torch.nn.Module):
    """One method of a module, as a module of its own that shares its weights."""

    def __init__(self, inner, name):
        super().__init__()
        self.inner = inner
        self.forward = getattr(inner, name)


def case(steps, dynamic=None, rtol=1e-5, atol=1e-5, functional=False, reference_wrong=None, methods=None, partitions=1, mutated_inputs=(), training=False,
         or_refused=False, bare=False):
    """Register a case named after what is decorated: a forward function without state, or a module class.

    steps            function giving the calls in order (`call(...)`); a dict of such lists for several methods
    dynamic          function giving `dynamic_shapes` of torch.export (per method for several)
    functional       also save the functional form
    reference_wrong  why the reference's answer does not count, though it lowers
    methods          names of the module's methods to export, instead of `forward`
    partitions       how many partitions etx may make where there is no reference to compare with
    training         what is exported is a step of training: the forward function, which gives a loss, and all gradients after it
    or_refused       a call may also be refused when it runs, since its sizes break what export took for granted
    bare             the file does not say where in the source its nodes are from, which is most of the bytes
    mutated_inputs   numbers of the tensors among the inputs that the program writes to: ExecuTorch returns them before the user outputs
    """

    def register(subject):
        name, what = subject.__name__, inspect.getdoc(subject)
        if not inspect.isclass(subject):
            subject = type(name, (torch.nn.Module,), {"forward": subject})
        CASES[name] = dict(name=name, subject=subject, steps=steps, dynamic=dynamic, rtol=rtol, atol=atol, functional=functional,
                           reference_wrong=reference_wrong, methods=methods, partitions=partitions, mutated_inputs=mutated_inputs, training=training,
                           or_refused=or_refused, bare=bare, what=what)
        return subject

    return register


def model(name, subject, steps, large=False, dtype=torch.float32, methods=None, keep_reference=False, **options):
    """Register a whole model: `subject` makes it. Its file does not say where in the source its nodes are from (most of the bytes otherwise).

    large  of the size that is used in earnest: made on demand only
    dtype  the type of its weights
    keep_reference  keep the reference's file and not only its summary: worth it where it calls portable kernels
    Others as for `case`.
    """
    case(steps, methods=methods, **options)(type(name, (), {}))
    CASES[name].update(subject=lambda: subject().to(dtype), what=inspect.getdoc(type(subject())) if not large else name, large=large, bare=True,
                       keep_reference=keep_reference)


def kind(value):
    if value is None:
        return "none"
    return "tensor" if isinstance(value, torch.Tensor) else type(value).__name__


def as_tensor(value):
    if isinstance(value, torch.Tensor):
        return value.detach().clone().contiguous()
    return torch.tensor(value, dtype={bool: torch.bool, int: torch.int64, float: torch.float64}[type(value)])


def write(spec, folder):
    """Make the files of one case; returns a line for people."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    torch.manual_seed(zlib.crc32(spec["name"].encode()))
    module = spec["subject"]().eval()
    names = spec["methods"] or ["forward"]
    steps, dynamic = spec["steps"](), spec["dynamic"]() if spec["dynamic"] else None
    if not spec["methods"]:
        steps, dynamic = {"forward": steps}, {"forward": dynamic}
    save = programs.save_bare if spec.get("bare") else programs.save
    io, methods = {}, {}
    for name in names:
        traced = Method(copy.deepcopy(module), name) if spec["methods"] else copy.deepcopy(module)
        run = Method(copy.deepcopy(module), name) if spec["methods"] else copy.deepcopy(module)
        args, kwargs = copy.deepcopy(steps[name][0])
        with torch.set_grad_enabled(spec["training"]):
            program = torch.export.export(traced, args, kwargs, dynamic_shapes=(dynamic or {}).get(name), strict=False)
        if spec["training"]:
            program = _export_forward_backward(program)
        save(program, folder / f"{name}.pt2")
        entry = {"program": f"{name}.pt2", "steps": len(steps[name])}
        if spec["functional"]:
            entry["functional_program"] = f"{name}.functional.pt2"
            with torch.no_grad():
                save(program.run_decompositions({}), folder / entry["functional_program"])
        for number, (args, kwargs) in enumerate(steps[name]):
            inputs = pytree.tree_leaves((args, kwargs))
            entry["input_kinds"] = [kind(v) for v in inputs]
            save_values(io, f"{name}.{number}.input", inputs)
            given = copy.deepcopy((args, kwargs))
            if spec["training"]:
                outputs = loss_and_gradients(run, given, program)
            else:
                with torch.no_grad():
                    outputs = pytree.tree_leaves(run(*given[0], **given[1]))
            outputs = [pytree.tree_leaves(given)[i] for i in spec["mutated_inputs"]] + outputs
            entry["output_kinds"] = [kind(v) for v in outputs]
            save_values(io, f"{name}.{number}.expected", outputs)
        if set(entry["output_kinds"]) <= {"tensor"}:
            del entry["output_kinds"]
        methods[name] = entry
    save_file(io, folder / "io.safetensors")
    summary, absent = (None, spec["reference_wrong"]) if spec["reference_wrong"] else reference(folder, names)
    if summary and spec.get("bare") and not spec.get("keep_reference"):
        # What the reference makes of a model counts; its file would double the size of the case.
        (folder / summary.pop("file")).unlink()
    described = {"name": spec["name"], "group": "fixtures", "note": {"what": spec["what"]}, "compare": True, "rtol": spec["rtol"], "atol": spec["atol"],
                 "methods": methods, "reference": summary}
    if spec["or_refused"]:
        described["or_refused"] = True
    if absent:
        described["reference_absent"] = absent
        described["partitions"] = {name: spec["partitions"] for name in names}
    (folder / "case.json").write_text(json.dumps(described, indent=1, sort_keys=True) + "\n")
    size = sum(f.stat().st_size for f in folder.iterdir())
    return f"{spec['name']:32} {size:8} B  {absent or summary['partitions']} {'' if absent else summary['undelegated']}"


def loss_and_gradients(module, given, program):
    """What a step of training gives: the loss, then the gradient of every parameter in the order of the program."""
    loss = module(*given[0], **given[1])
    module.zero_grad()
    loss.backward()
    named = dict(module.named_parameters())
    specs = program.graph_signature.output_specs
    return [loss.detach(), *(named[s.target].grad for s in specs if s.kind == OutputKind.GRADIENT_TO_PARAMETER)]


def save_values(io, prefix, values):
    for number, value in enumerate(values):
        if value is not None:
            io[f"{prefix}.{number}"] = as_tensor(value)


def reference(folder, methods):
    """Lower with ExecuTorch's MLX backend into reference.pte: (summary, None), or (None, why it could not)."""
    import executorch.backends.mlx.custom_ops  # noqa: F401  registers mlx::*
    from executorch.backends.mlx.partitioner import MLXPartitioner
    from executorch.backends.mlx.passes import get_default_passes
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    try:
        with torch.no_grad():
            loaded = {name: torch.export.load(folder / f"{name}.pt2") for name in methods}
        edge = to_edge_transform_and_lower(loaded, partitioner=[MLXPartitioner()], transform_passes=get_default_passes(),
                                           compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True))
        path = folder / "reference.pte"
        with open(path, "wb") as file:
            edge.to_executorch().write_to_file(file)
    except Exception as error:  # whatever it raises is the finding
        (folder / "reference.pte").unlink(missing_ok=True)
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        return None, programs.without_prefixes(f"the reference aborts: {type(error).__name__}: {first}")[:300]
    return summarise(path.read_bytes()), None


def summarise(data):
    """Partitions and operators left outside per method, MLX instructions over all methods, of a `.pte`'s bytes."""
    from executorch.backends.mlx.pte_inspector import parse_mlx_payload
    from executorch.exir._serialize._program import deserialize_pte_binary

    program = deserialize_pte_binary(data).program
    partitions, undelegated, instructions = {}, {}, collections.Counter()
    for plan in program.execution_plan:
        calls = [i.instr_args for chain in plan.chains for i in chain.instructions]
        partitions[plan.name] = sum(type(c).__name__ == "DelegateCall" for c in calls)
        kernels = (plan.operators[c.op_index].name for c in calls if type(c).__name__ == "KernelCall")
        undelegated[plan.name] = dict(sorted(collections.Counter(kernels).items()))
        for delegate in plan.delegates:
            payload = program.backend_delegate_data[delegate.processed.index].data
            for chain in parse_mlx_payload(bytes(payload))["graph"]["instruction_chains"]:
                instructions.update(i["op_name"] for i in chain["instructions"])
    return {"file": "reference.pte", "bytes": len(data), "partitions": partitions, "undelegated": undelegated,
            "instructions": dict(sorted(instructions.items()))}
