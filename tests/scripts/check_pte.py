"""Opens .pte files with ExecuTorch's own tools: python check_pte.py FILE...

For each file: the Python deserialiser parses it, the MLX inspector parses every MLX payload's program, and the runtime loads
the program at both verification levels. Loading a method may fail only because the backend is not in this build of the runtime.
Prints one line a file and exits with 1 if any was refused. Needs the `executorch` package.
"""

import sys
import warnings

warnings.filterwarnings("ignore")

from executorch.backends.mlx import pte_inspector
from executorch.exir._serialize._program import deserialize_pte_binary
from executorch.runtime import Runtime, Verification

BACKEND_MISSING = "0x:20"


def check(data: bytes) -> str:
    program = deserialize_pte_binary(data).program
    backends = {d.id for plan in program.execution_plan for d in plan.delegates}
    if "MLXBackend" in backends:
        payload = pte_inspector.extract_delegate_payload(data, "MLXBackend")
        if payload is None:
            raise ValueError("the inspector finds no MLX payload")
        pte_inspector.parse_mlx_payload(payload)
    loaded = 0
    for level in (Verification.Minimal, Verification.InternalConsistency):
        opened = Runtime.get().load_program(data, verification=level)
        for name in sorted(opened.method_names):
            try:
                opened.load_method(name)
                loaded += 1
            except RuntimeError as e:
                if BACKEND_MISSING not in str(e):
                    raise
    names = ", ".join(plan.name for plan in program.execution_plan)
    return f"{names}; backends: {', '.join(sorted(backends)) or 'none'}; {loaded} loads without a delegate"


def main() -> int:
    failed = 0
    for path in sys.argv[1:]:
        try:
            with open(path, "rb") as f:
                print(f"ok   {path}: {check(f.read())}")
        except Exception as e:
            failed += 1
            print(f"FAIL {path}: {type(e).__name__}: {e}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
