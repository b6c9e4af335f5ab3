"""The house rules on imports: who may import whom, and that the trainer's process stays free of torch."""

import ast
import json
import resource
import subprocess
import sys
from functools import cache

import pytest

from tests.import_rooms import ALLOWED, NOUNS
from tests.places import ROOT
from tests.waiting import HANG_S

PACKAGE = ROOT / "onethinker_jax"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if not path.stem.endswith(("_pb2", "_pb2_grpc"))
}

# Folders whose own files stand below and above their rooms: each file counts as a room where circles are sought.
SPLIT = {
    "model",
    "rewards",
    "train",
    "data_pipeline",
    "data_pipeline.photos",
    "data_pipeline.sources",
    "evaluate",
    "demo",
    "serve",
}
TORCH_ONLY = {
    "onethinker_jax.train.export.transformers_logits",  # a process of its own
    *(
        f"onethinker_jax.rewards.backends.{name}"
        for name in ("polar", "polar_model", "sam2", "sam2_hf", "sam2_meta", "sam2_network", "torch_device")
    ),
}
NO_JAX = {
    *(name for name in MODULES if name.startswith("onethinker_jax.train.config.")),
    "onethinker_jax.train.replay_arguments",
    "onethinker_jax.train.checkpoints.arguments",
    "onethinker_jax.train.export.arguments",
    "onethinker_jax.rewards.backends.minilm",
    *(
        f"onethinker_jax.{name}"
        for name in (
            *(
                "demo.arguments",
                "demo.page.arguments",
                "evaluate.arguments",
                "evaluate.score_arguments",
                "model_arguments",
            ),
            "serve.arguments",
        )
    ),
    *(f"onethinker_jax.evaluate.{name}" for name in ("compare_arguments", "page.arguments")),
}


@cache
def imports(name: str, *, types: bool = True) -> frozenset[str]:
    """Modules that module `name` names in import statements; `types`: also those for checks of types alone."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            parents = parents[: len(parents) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            below = {f"{base}.{alias.name}" for alias in node.names}
            found |= {base, *(below & MODULES.keys())}
        if types or not (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")):
            pending.extend(ast.iter_child_nodes(node))
    return frozenset(found)


def room(name: str) -> str:
    """The folder of a module, `""` for the package itself; a file at the root is a room of its own."""
    if name == "onethinker_jax.train.run_folder":
        return "train.run_folder"
    folder = ".".join(MODULES[name].parent.relative_to(PACKAGE).parts)
    return folder or name.removeprefix("onethinker_jax").removeprefix(".")


def top(name: str) -> str:
    return room(name).partition(".")[0]


def our_imports(name: str) -> set[str]:
    """The modules of the package that module `name` imports at any time, checks of types aside."""
    return {other for other in imports(name, types=False) if other in MODULES and other != name}


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other."""
    beyond = {node: set(others) for node, others in arrows.items()}
    changed = True
    while changed:
        changed = False
        for found in beyond.values():
            more = set().union(*(beyond.get(other, set()) for other in found)) - found
            changed |= bool(more)
            found |= more
    rounds = {frozenset(o for o in found if node in beyond.get(o, ())) for node, found in beyond.items()}
    return sorted(sorted(nodes) for nodes in rounds if nodes)


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
def test_rooms_import_only_what_they_may(name: str) -> None:
    own = room(name)
    if name == "onethinker_jax" or own in NOUNS:
        allowed = NOUNS
    else:
        assert own in ALLOWED, f"{name} is in no room of the house: say in ALLOWED whom it may import"
        allowed = NOUNS | ALLOWED[own] | {own, ""}
    wrong = {other for other in our_imports(name) if room(other) not in allowed}
    assert not wrong, f"{name} imports {', '.join(sorted(wrong))}"


def test_the_table_names_no_room_that_is_gone() -> None:
    rooms = {room(name) for name in MODULES}
    assert NOUNS | set(ALLOWED) | set().union(*ALLOWED.values()) <= rooms


def test_no_files_import_in_a_circle() -> None:
    """Imports inside functions counted: a circle means that two files are one, or that a third is missing."""
    assert not circles({name: our_imports(name) for name in MODULES})


def test_no_rooms_import_in_a_circle() -> None:
    def node(name: str) -> str:
        split = room(name) in SPLIT and MODULES[name].name != "__init__.py"
        return name.removeprefix("onethinker_jax.") if split else room(name)

    arrows: dict[str, set[str]] = {node(name): set() for name in MODULES}
    for name in MODULES:
        arrows[node(name)] |= {node(other) for other in our_imports(name)} - {node(name)}
    assert not circles(arrows)


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("name", MODULES)
def test_torch_and_tensorflow_stay_out(name: str) -> None:
    roots = {other.split(".")[0] for other in imports(name)}
    assert "tensorflow" not in roots
    if name not in TORCH_ONLY:
        assert not roots & {"torch", "torchvision", "transformers", "tensorboardX"}, (
            "each of these imports torch"
        )
    if top(name) == "rewards":
        assert not roots & {"jax", "jaxlib", "flax"}


@pytest.mark.parametrize("name", sorted(NO_JAX))
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
    names = set().union(
        *(reached(name) for name in MODULES if top(name) in ("train", "evaluate", "demo", "serve"))
    )
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
        *(
            "train",
            "train.plan",
            "train.checkpoints",
            "train.export",
            "train.replay",
            "evaluate",
            "evaluate.score",
            "evaluate.compare",
            "evaluate.page",
            "demo",
            "serve",
        ),
        *("data_pipeline.check", "data_pipeline.sources", "data_pipeline.annotate", "rewards.server"),
        "evaluate.onethinker_prompts",
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
