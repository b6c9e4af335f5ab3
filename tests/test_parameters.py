"""No function of the package takes more than nine parameters: what travels together is a noun."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.places import ROOT

MOST = 9
PACKAGE = ROOT / "onethinker_jax"

# What `pallas_call` hands to a kernel, a reference an argument and its own scratch, is not ours to bundle.
KERNELS = {
    "model/attention/flash_gpu.py": {"_forward_kernel", "_query_gradient_kernel", "_key_gradients_kernel"},
    "model/attention/flash_tpu.py": {"_forward_kernel", "_gradients_kernel"},
    "model/attention/decode_gpu.py": {"_kernel"},
}
# protoc writes it.
GENERATED = {"rewards/proto/reward_pb2_grpc.py"}


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every function of a file, methods and inner ones too, with its parameters but `self` and `cls`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            yield node.name, sum(one is not None and one.arg not in ("self", "cls") for one in named)


def too_long(path: Path) -> set[str]:
    return {name for name, count in functions(ast.parse(path.read_text())) if count > MOST}


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_nine_parameters_at_most(path: Path) -> None:
    name = str(path.relative_to(PACKAGE))
    if name not in GENERATED:
        assert too_long(path) == KERNELS.get(name, set())


def test_what_counts(tmp_path: Path) -> None:
    """Every kind of parameter counts, of methods too; fields of a dataclass are not parameters."""
    fields = "\n".join(f"    field_{number}: int" for number in range(12))
    file = tmp_path / "file.py"
    file.write_text(
        "class Noun:\n" + fields + "\n"
        "    def nine(self, a, b, /, c, d, *e, f, g, h, **i): ...\n"
        "    async def ten(self, a, b, /, c, d, *e, f, g, h, i, **j): ...\n"
        "def outer():\n    def inner(a, b, c, d, e, f, g, h, i, j): ...\n"
    )
    assert too_long(file) == {"ten", "inner"}
