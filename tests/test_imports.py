"""The house rules on imports: who may import whom, and that the trainer's process stays free of torch."""

import ast
import json
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.places import ROOT
from tests.waiting import HANG_S

PACKAGE = ROOT / "onethinker_jax"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if not path.stem.endswith(("_pb2", "_pb2_grpc"))
}
# Nouns at the root that everybody may import; they import only each other.
NOUNS = {
    "answer_forms",
    "command_line",
    "errors",
    "files",
    "host_settings",
    "lazy_names",
    "lora_settings",
    "sampler_settings",
    "spelling",
    "tasks",
    "text_output",
    "worker_process",
}
MEDIA = {"data_pipeline.media", "data_pipeline.media.reading"}
DATA = {*MEDIA, *(f"data_pipeline.{name}" for name in ("records", "processor", "batches", "drawing"))}
REWARDS = {"rewards", "rewards.client", "rewards.equivalence"}
LOWER_TRAIN = {"train", "train.config", "train.cost", "train.log", "train.run_folder"}
# Room -> the other rooms that it may import. A room is a folder, or a file at the root.
ALLOWED: dict[str, set[str]] = {
    "model": {"model.attention"},
    "model.attention": {"model"},
    "model.generation": {"model", "model.attention"},
    "rewards": {"rewards.client", "rewards.equivalence"},
    "rewards.equivalence": set(),
    "rewards.backends": {"rewards", "endpoint", "model"},  # model: reads safetensors files
    "rewards.client": {"rewards.backends", "rewards.proto"},
    "rewards.server": {"rewards.backends", "rewards.client", "rewards.proto"},
    "rewards.proto": set(),
    "data_pipeline": set(),
    "data_pipeline.media": set(),
    "data_pipeline.media.reading": {"data_pipeline.media", "data_pipeline.records"},
    "data_pipeline.records": {"data_pipeline.media", "rewards", "rewards.equivalence"},
    "data_pipeline.processor": {*MEDIA, "data_pipeline.records", "model"},
    "data_pipeline.batches": {
        "data_pipeline.media",
        "data_pipeline.processor",
        "data_pipeline.records",
        "model",
    },
    "data_pipeline.drawing": {*MEDIA, "data_pipeline.records", "rewards"},
    "data_pipeline.worlds": {"data_pipeline.processor", "rewards"},
    "data_pipeline.shapes": {"data_pipeline.worlds"},
    "data_pipeline.photos": {
        *("data_pipeline.media", "data_pipeline.worlds"),
        *(f"data_pipeline.photos.{name}" for name in ("packages", "questions", "scenes")),
    },
    "data_pipeline.photos.packages": {"data_pipeline.photos"},
    "data_pipeline.photos.scenes": {"data_pipeline.photos", "data_pipeline.worlds"},
    "data_pipeline.photos.questions": {"data_pipeline.photos.scenes", "data_pipeline.worlds"},
    "data_pipeline.sources": {
        "data_pipeline.records",
        *(f"data_pipeline.sources.{name}" for name in ("grounding", "questions", "training_set")),
    },
    "data_pipeline.sources.reading": {
        "data_pipeline.media",
        "data_pipeline.records",
        "data_pipeline.sources",
    },
    "data_pipeline.sources.questions": {
        *("data_pipeline.media", "data_pipeline.records"),
        *("data_pipeline.sources", "data_pipeline.sources.reading"),
    },
    "data_pipeline.sources.grounding": {
        *("data_pipeline.media", "data_pipeline.records", "rewards"),
        *("data_pipeline.sources", "data_pipeline.sources.reading"),
    },
    "data_pipeline.sources.training_set": {
        *(*MEDIA, "data_pipeline.records", "rewards"),
        *("data_pipeline.sources", "data_pipeline.sources.reading"),
    },
    "data_pipeline.check": {*DATA, "rewards"},
    "data_pipeline.annotate": {*DATA, *REWARDS, "scoring", "endpoint"},  # a tool on top
    "endpoint": set(),
    "responses": {*DATA, "model", "model.generation"},
    "scoring": {*DATA, *REWARDS},
    "model_arguments": {*DATA, "model", "rewards.client"},
    "processes": set(),
    "question": {"data_pipeline.media", "data_pipeline.media.reading", "data_pipeline.records"},
    "assistant": {
        *("data_pipeline.processor", "data_pipeline.records", "rewards", "rewards.equivalence"),
        *("model", "model.generation", "model_arguments", "question", "responses"),
    },
    "evaluate": {
        *DATA,
        *REWARDS,
        *("data_pipeline.sources", "evaluate.benchmarks", "evaluate.metrics", "evaluate.judges"),
        *("model", "responses", "scoring", "model_arguments", "processes", "evaluate.answers"),
        *("evaluate.asking", "evaluate.results", "evaluate.page"),
    },
    "evaluate.asking": {
        *("data_pipeline.media.reading", "data_pipeline.processor", "data_pipeline.records"),
        *("data_pipeline.sources", "evaluate", "evaluate.answers", "evaluate.benchmarks"),
        *("model", "model_arguments", "processes", "responses"),
    },
    "evaluate.answers": {
        *DATA,
        *REWARDS,
        *("model", "responses", "scoring", "processes", "endpoint", "model_arguments"),
    },
    "evaluate.benchmarks": {"data_pipeline.sources", "data_pipeline.records"},
    "evaluate.judges": {"endpoint"},
    "evaluate.metrics": {
        *("data_pipeline.sources", "data_pipeline.records", "evaluate.benchmarks", "evaluate.judges"),
        *REWARDS,
    },
    "evaluate.page": {
        *DATA,
        *("rewards", "data_pipeline.sources", "evaluate.benchmarks", "evaluate.metrics", "evaluate.results"),
    },
    "evaluate.results": {
        *("data_pipeline.sources", "data_pipeline.records", "evaluate.benchmarks", "evaluate.judges"),
        *REWARDS,
        "evaluate.metrics",
    },
    "demo": {
        *DATA,
        "rewards",
        "rewards.client",
        "scoring",
        "model_arguments",
        "assistant",
        "question",
        "demo.page",
    },
    "demo.page": {
        *DATA,
        *("rewards", "rewards.client", "scoring", "model", "model.generation", "model_arguments"),
        *("assistant", "question", "demo", "serve"),
    },
    "serve": {
        *DATA,
        *("model", "model.generation", "model_arguments", "responses"),
    },
    "train": {
        *(DATA | REWARDS | LOWER_TRAIN),
        *(
            "data_pipeline.worlds",
            "data_pipeline.shapes",
            "data_pipeline.photos",
            "model",
            "model.attention",
            "model.generation",
        ),
        *(
            "responses",
            "scoring",
            "processes",
            "evaluate.answers",
            "train.checkpoints",
            "train.health",
            "train.export",
            "train.preflight",
            "train.plans",
            "train.plans.search",
            "train.simulation",
            "train.rl",
            "train.pages",
            "train.stopping",
        ),
    },
    "train.checkpoints": {*LOWER_TRAIN, "model"},
    "train.export": {*(DATA | LOWER_TRAIN), "model", "train.checkpoints"},
    "train.config": {"data_pipeline.batches", "rewards", "rewards.client", "train.run_folder"},
    "train.cost": {"model.attention"},
    "train.plans": {
        *("model", "model.attention", "model.generation", "responses"),
        *(*DATA, *LOWER_TRAIN, "train.rl", "train.simulation"),
    },
    "train.plans.search": {
        *("model", "model.attention", "model.generation", "responses"),
        *(*DATA, *LOWER_TRAIN, "train.plans", "train.simulation"),
    },
    "train.simulation": {*DATA, "model", "model.attention", "model.generation", *LOWER_TRAIN},
    "train.log": {"train.config", "train.run_folder"},
    "train.stopping": {"processes", "train.config", "train.log"},
    "train.run_folder": set(),  # a noun of all rooms of train
    "train.health": {*DATA, "model", "train.checkpoints", *LOWER_TRAIN},
    "train.rl": {
        *DATA,
        "rewards",
        "model",
        "model.attention",
        "model.generation",
        "responses",
        "scoring",
        "train.health",
        "processes",
        *LOWER_TRAIN,
    },
    "train.pages": {*DATA, "rewards", "model", "scoring", "evaluate.answers", *LOWER_TRAIN, "train.rl"},
    "train.preflight": {
        *(DATA | LOWER_TRAIN),
        *("data_pipeline.worlds", "data_pipeline.shapes", "data_pipeline.photos", "model"),
        *("model.generation", "responses", "scoring", "train.export", "train.health"),
    },
    "__main__": {"train.config"},  # says what there is
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
    "onethinker_jax.train.export_arguments",
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


def imports(name: str, *, types: bool = True) -> Iterator[str]:
    """Modules that module `name` names in import statements; `types`: also those for checks of types alone."""
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
        if types or not (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")):
            pending.extend(ast.iter_child_nodes(node))


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
