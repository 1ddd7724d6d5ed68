"""Saving exported programs so that the file says nothing of the machine that made it."""
import functools
import json
import pathlib
import sysconfig
from unittest import mock

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
_PREFIXES = (str(ROOT) + "/", sysconfig.get_paths()["purelib"] + "/")


def without_prefixes(text):
    for prefix in _PREFIXES:
        text = text.replace(prefix, "")
    return text


def forget_machine(program):
    """Make the stack traces of the nodes relative to this repository."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                if trace := node.meta.get("stack_trace"):
                    node.meta["stack_trace"] = without_prefixes(trace)


def save(program, path):
    """torch.export.save of a program that forgot the machine."""
    forget_machine(program)
    torch.export.save(program, path)


def save_bare(program, path):
    """The same without saying where in the source and in the modules a node is from, and without the inputs it was traced with."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node"):
                    node.meta.pop(key, None)
    program.example_inputs = None
    with mock.patch("json.dumps", functools.partial(json.dumps, separators=(",", ":"))):
        torch.export.save(program, path)
