"""The house rules on imports: who may import whom, and that the trainer's process stays free of torch."""

import ast
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import HANG_S

PACKAGE = Path(__file__).parent.parent / "onethinker_jax"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if not path.stem.endswith(("_pb2", "_pb2_grpc"))
}
PARTS = {"model", "rewards", "data_pipeline", "command_line", "sampler_settings"}
ROOT = {"interrupts", "lazy_names", "spelling", "text_output"}  # nouns that everybody may import
# Part of the package -> the other parts that it may import.
ALLOWED = {
    "model": set(),
    "rewards": set(),
    "data_pipeline": {"model", "rewards", "command_line"},
    "sampler_settings": set(),
    "responses": {"model", "data_pipeline", "sampler_settings"},
    "data_pipeline.annotate": {"rewards", "scoring", "command_line"},  # a tool on top
    "scoring": {"rewards", "data_pipeline"},
    "command_line": set(),
    "lazy_names": set(),
    "spelling": set(),
    "text_output": set(),
    "__main__": {"train"},  # says what there is
    "interrupts": set(),
    "answering": {"rewards", "data_pipeline", "sampler_settings", "responses", "scoring"},
    "model_arguments": {*PARTS},
    "evaluate_arguments": {*PARTS, "model_arguments"},
    "demo_arguments": {*PARTS, "model_arguments", "demo_question"},
    "evaluate": {*PARTS, "responses", "scoring", "answering", "evaluate_arguments"},
    "demo": {*PARTS, "responses", "scoring", "evaluate", "demo_arguments", "demo_chat", "demo_question"},
    "demo_chat": {"command_line", "data_pipeline", "demo_question"},
    "demo_question": {"command_line", "data_pipeline", "rewards"},
    "train": {*PARTS, "responses", "scoring", "evaluate"},
}
TORCH_ONLY = {
    f"onethinker_jax.rewards.{name}"
    for name in ("polar", "polar_model", "sam2", "sam2_hf", "sam2_meta", "torch_device")
}
NO_JAX = {
    *(f"onethinker_jax.train.{name}" for name in ("config", "presets", "export_arguments")),
    *(f"onethinker_jax.{name}_arguments" for name in ("demo", "evaluate", "model")),
}


def imports(name: str, *, whole: bool = True) -> Iterator[str]:
    """Modules that module `name` names in import statements: all, or only those that run at import."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            parents = parents[: len(parents) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if f"{base}.{alias.name}" in MODULES)
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        if whole or not (lazy or typing_only):
            pending.extend(ast.iter_child_nodes(node))


def part(name: str) -> str:
    pieces = name.split(".")
    return pieces[1] if pieces[0] == "onethinker_jax" and len(pieces) > 1 else ""


def reached(start: str) -> set[str]:
    """Every module of the package that importing `start` runs or may run later."""
    seen: set[str] = set()
    pending = [start]
    while pending:
        name = pending.pop()
        if name in seen or name not in MODULES:
            continue
        seen.add(name)
        pending.extend(imports(name))
        pending.append(name.rpartition(".")[0])
    return seen


@pytest.mark.parametrize("name", MODULES)
def test_parts_import_only_what_they_may(name: str) -> None:
    own = part(name)
    if not own:
        assert {part(other) for other in imports(name)} <= {"", "lazy_names"}, (
            "the package itself imports nothing of itself but how its parts are found"
        )
        return
    assert own in ALLOWED, f"{name} is in no part of the house: say in ALLOWED whom it may import"
    allowed = ALLOWED.get(name.removeprefix("onethinker_jax."), ALLOWED[own])
    wrong = {other for other in imports(name) if part(other) not in {"", own} | ROOT | allowed}
    assert not wrong, f"{name} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("name", MODULES)
def test_torch_and_tensorflow_stay_out(name: str) -> None:
    roots = {other.split(".")[0] for other in imports(name)}
    assert "tensorflow" not in roots
    if name not in TORCH_ONLY:
        assert not roots & {"torch", "torchvision", "transformers", "tensorboardX"}, (
            "each of these imports torch"
        )
    if part(name) == "rewards":
        assert not roots & {"jax", "jaxlib", "flax"}


@pytest.mark.parametrize("name", sorted(NO_JAX & set(MODULES)))
def test_settings_need_no_jax(name: str) -> None:
    code = f"import sys, {name}; print('jax' in sys.modules)"
    assert run(code).stdout.strip() == "False"


def run(code: str) -> subprocess.CompletedProcess[str]:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG_S)
    assert result.returncode == 0, result.stderr
    return result


def test_importing_the_trainer_imports_no_torch() -> None:
    """Torch is installed beside it here: a library that looks for torch would find it."""
    pytest.importorskip("torch")
    names = set().union(*(reached(name) for name in MODULES if part(name) in ("train", "evaluate", "demo")))
    names -= TORCH_ONLY
    code = (
        f"import importlib, json, sys\nfor name in {sorted(names)!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    loaded = set(json.loads(run(code).stdout.splitlines()[-1]))
    assert not loaded & {"torch", "torchvision", "tensorflow", "transformers"}


@pytest.mark.parametrize(
    "command",
    [
        *("train", "train.plan", "train.export", "evaluate", "demo"),
        *("data_pipeline.check", "data_pipeline.annotate", "rewards.server"),
    ],
)
def test_help_is_quick(command: str) -> None:
    """By what is imported and by processor time: the clock would say how busy the machine is."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    arguments = [sys.executable, "-X", "importtime", "-m", f"onethinker_jax.{command}", "--help"]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=HANG_S)
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout.lower()
    modules = {
        line.rpartition("|")[2].strip()
        for line in result.stderr.splitlines()
        if line.startswith("import time")
    }
    assert not {"jax", "flax", "orbax"} & modules
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 6
