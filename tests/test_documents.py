"""What the documents name is there: files, links, flags, rooms, and the names that the Python they show imports."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from tests.places import ROOT
from tests.test_command_line import HELP, help_of

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PACKAGE = ROOT / "onethinker_jax"
FOLDERS = "benchmarks|deploy|docs|examples|experiments|tests|onethinker_jax"
FOLDERS += "|data_pipeline|demo|evaluate|model|rewards|train"  # of the package


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_are_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = re.findall(
        rf"(?<![\w/.-])((?:{FOLDERS})/[\w./-]+\.(?:css|js|json|md|png|proto|py|sbatch|sh|yaml))\b", text
    )
    gone = [name for name in named if not (ROOT / name).exists() and not (PACKAGE / name).exists()]
    links = re.findall(r"\]\(([\w./-]+)(?:#[\w-]*)?\)", text)
    gone += [link for link in links if not (document.parent / link).exists()]
    assert not gone


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_modules_that_a_document_names_are_there(document: Path) -> None:
    named = re.findall(r"(?:from|import|-m) (onethinker_jax[\w.]*)", document.read_text(encoding="utf-8"))
    paths = {name: ROOT.joinpath(*name.rstrip(".").split(".")) for name in named}
    assert not [
        name for name, path in paths.items() if not path.is_dir() and not path.with_suffix(".py").exists()
    ]


def test_rooms_that_the_changelog_sends_to_are_there() -> None:
    """The last column of the table of moved modules; `{a, b}` stands for both."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `.*\| (.*) \|$", text.split("| old | new room |")[1].split("\n\n")[0], re.MULTILINE
    )
    assert len(rows) > 20
    for name in re.findall(r"`([^`]*)`", " ".join(rows)):
        stem, _, choices = name.partition("{")
        for last in choices.rstrip("}").split(", "):
            path = PACKAGE.joinpath(*(stem + last).split("."))
            assert path.is_dir() or path.with_suffix(".py").exists(), stem + last


def test_the_map_names_each_place_and_each_page_once() -> None:
    rows = re.findall(
        r"^\| (.*) \| (.*) \|$", (ROOT / "README.md").read_text().split("## The map")[1], re.MULTILINE
    )
    places = [name for cell, _ in rows[1:] for name in re.findall(r"`([^`]+)`", cell)]
    assert len(places) > 10 and len(set(places)) == len(places)
    pages = [page for _, cell in rows[1:] for page in re.findall(r"\]\((docs/[\w.]+)\)", cell)]
    twice = {page for page in pages if pages.count(page) > 1}
    assert len(pages) > 20 and not twice
    missing = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} - {*pages, *places}
    assert not missing


def test_there_are_documents() -> None:
    assert len(DOCUMENTS) > 10


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_that_a_document_shows_can_import_its_names(document: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("onethinker_jax"):
                module = importlib.import_module(node.module or "")
                assert not [name.name for name in node.names if not hasattr(module, name.name)], block


@pytest.fixture(scope="module")
def flags() -> dict[str, set[str]]:
    """Module of a command -> the flags that its --help lists."""
    return {name: set(re.findall(r"--[a-z][\w.-]*", " ".join(help_of(name)))) for name in HELP}


DOCUMENTS_OF_TODAY = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]  # it also names what is gone


def test_nested_flags_that_documents_name_are_there(flags: dict[str, set[str]]) -> None:
    """Such as --rl.rollout.group-size; a section alone is named too."""
    known = set().union(*flags.values())
    sections = {flag.rsplit(".", count)[0] for flag in known for count in range(1, flag.count(".") + 1)}
    for document in DOCUMENTS_OF_TODAY:
        named = set(re.findall(r"--[a-z]+(?:\.[a-z][a-z-]*[a-z])+", document.read_text(encoding="utf-8")))
        assert not named - known - sections, document.name


def test_commands_that_documents_show_take_their_flags(flags: dict[str, set[str]]) -> None:
    """Each `python -m onethinker_jax.…` with the flags behind it, continued lines included."""
    seen = 0
    for document in DOCUMENTS_OF_TODAY:
        text = re.sub(r"\\\n\s*", " ", document.read_text(encoding="utf-8"))
        for name, rest in re.findall(r"python -m onethinker_jax\.([\w.]+)([^\n`|#&]*)", text):
            given = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", rest)) - {"--flags"}  # any of them
            known = flags[name] | (flags["demo --serve"] if "--serve" in given else set())
            assert given <= known, f"{document.name}: {name}"
            seen += len(given)
    assert seen > 50


# Flags in the documents that are of other programs.
OTHERS = {
    *("--logdir", "--check"),  # tensorboard, ruff
    *("--no-deps", "--no-build-isolation"),  # pip
    "--local-dir",  # hf
    *("--worker", "--command"),  # gcloud
    *("--build-arg", "--target", "--rm", "--gpus", "--port"),  # docker
    *("--nodes", "--requeue", "--signal", "--gpu"),  # Slurm
    *("--wait", "--from-file"),  # kubectl
    *("--max-model-len", "--limit-mm-per-prompt", "--generation-config"),  # vLLM
    "--allowed-local-media-path",
    *("--model", "--base-url", "--max-tokens", "--api-nproc", "--api-mode"),  # evaluation harnesses
    *("--stream", "--video-llm", "--local-media", "--tasks"),
}


@pytest.fixture(scope="module")
def benchmark_flags() -> set[str]:
    """The flags that the programs in `benchmarks` define."""
    programs = (ROOT / "benchmarks").rglob("*.py")
    texts = [path.read_text(encoding="utf-8") for path in programs]
    return {flag for text in texts for flag in re.findall(r'add_argument\(\s*"(--[a-z][a-z-]*)"', text)}


@pytest.fixture(scope="module")
def experiment_flags() -> set[str]:
    """The flags of the programs in `experiments`: the fields of their arguments."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "experiments").glob("*.py")]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    fields = [
        line.target
        for one in classes
        if one.name == "Arguments"
        for line in one.body
        if isinstance(line, ast.AnnAssign)
    ]
    return {f"--{field.id.replace('_', '-')}" for field in fields if isinstance(field, ast.Name)}


def test_flags_that_documents_name_are_there(
    flags: dict[str, set[str]], benchmark_flags: set[str], experiment_flags: set[str]
) -> None:
    known = set().union(*flags.values()) | benchmark_flags | experiment_flags | OTHERS | {"--flags"}
    for document in DOCUMENTS_OF_TODAY:
        named = set(
            re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z](?![\w.-]*\.)", document.read_text(encoding="utf-8"))
        )
        sections = {flag.split(".")[0] for flag in known}
        assert not named - known - sections, document.name
