"""One habit, once: errors that a user can mend, mains of commands, atomic renames. Held against the source text."""

import ast
import re
from collections.abc import Iterator

import pytest

from onethinker_jax import errors
from onethinker_jax.__main__ import COMMANDS
from onethinker_jax.command_line import UsageError, main
from onethinker_jax.errors import UserError
from tests.places import ROOT

PACKAGE = ROOT / "onethinker_jax"
TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
    if not path.stem.endswith(("_pb2", "_pb2_grpc"))
}
# Not a user's to mend: what goes on between two of our functions, or is answered to a caller over the wire.
INNER = {
    *("OtherPackets", "WrongTimeline", "EndedByStop", "Stopped", "StepCut", "UpdateCut"),  # control flow
    *("Unanswered", "_TryAgain"),  # of one question to an endpoint: counted, asked again
    *("QueueFull", "CacheFull", "ItemError"),  # a status of the reward service
    "CellError",  # of a table's cell: its row names it
    *("Refused", "_Gone"),  # of one request to the server
    "DecoderError",  # a bug, of a library or of ours, in another process: keeps its traceback
}


def defined() -> dict[str, set[str]]:
    """Exception class of ours -> the names of its bases."""
    found = {
        node.name: {ast.unparse(base) for base in node.bases}
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    known = {"Exception", "ValueError", "RuntimeError", "OSError", "ImportError", "KeyError", "TypeError"}
    while more := {name for name, bases in found.items() if bases & known} - known:
        known |= more
    return {name: bases for name, bases in found.items() if name in known}


OURS = defined()


def test_every_error_of_ours_is_a_users_or_inner() -> None:
    """A new class must say which: the commands show a UserError as one line, anything else with its traceback."""
    users = {"UserError"}
    while more := {name for name, bases in OURS.items() if bases & users} - users:
        users |= more
    assert set(OURS) - users == INNER
    assert {
        "RecordError",
        "SettingError",
        "MediaError",
        "WeightsError",
        "TopologyError",
        "ServerError",
    } <= users


def tuples() -> Iterator[tuple[str, ast.Tuple, set[str]]]:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Tuple):
                yield name, node, {ast.unparse(element).rpartition(".")[2] for element in node.elts}


def test_nothing_lists_our_errors() -> None:
    """Three of them in a tuple are a base class that is missing."""
    long = {f"{file}:{node.lineno}" for file, node, names in tuples() if len(names & set(OURS)) > 2}
    assert not long
    kept = {
        f"{file}:{node.lineno}"
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Tuple)
        if any(ast.unparse(element).rpartition(".")[2] in OURS for element in node.value.elts)
    }
    assert not kept


def test_renames_stand_in_one_file() -> None:
    pattern = re.compile(r"os\.(replace|rename)\b|\.rename\(|\b(NamedTemporaryFile|mkstemp)\b|shutil\.move\b")
    found = {path for path in PACKAGE.rglob("*.py") if pattern.search(path.read_text(encoding="utf-8"))}
    assert {path.relative_to(PACKAGE).as_posix() for path in found} == {"files.py"}
    of_paths = {  # `Path.replace`: one argument, where a text's has two; flax's variables have one as well
        f"{file}:{node.lineno}"
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "replace"
        if len(node.args) == 1 and not node.keywords and ast.unparse(node.func.value) != "variable"
    }
    assert not of_paths


@pytest.mark.parametrize("command", sorted({name.split()[0] for name in COMMANDS}))
def test_commands_share_one_main(command: str) -> None:
    """`begin` before all imports that take time, `command_line.main`, and one line that exits."""
    name = f"{command.replace('.', '/')}.py"
    name = name if name in TREES else f"{command.replace('.', '/')}/__main__.py"
    tree, path = TREES[name], PACKAGE / name
    first, second = [
        node for node in tree.body[1:] if ast.unparse(node) != "from __future__ import annotations"
    ][:2]
    assert ast.unparse(first) == "from onethinker_jax import command_line"
    assert ast.unparse(second).splitlines() == ["if __name__ == '__main__':", "    command_line.begin()"]
    guard, ending = ast.unparse(tree.body[-1]).splitlines()
    assert guard == "if __name__ == '__main__':"
    assert ending.strip() in ("sys.exit(main(sys.argv[1:]))", "command_line.leave(main(sys.argv[1:]))")
    text = path.read_text(encoding="utf-8")
    assert text.count("sys.exit") + text.count("command_line.leave") == text.count("command_line.main") == 1
    assert "except UsageError" not in text and '"error: ' not in text


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (None, 0, ""),
        (UserError("a.json: broken"), 1, "error: a.json: broken\n"),
        (errors.SkippableError("b"), 1, "error: b\n"),
        (
            FileNotFoundError(2, "No such file or directory", "c"),
            1,
            "error: [Errno 2] No such file or directory: 'c'\n",
        ),
        (UsageError("--d"), 2, "error: --d\n"),
        (KeyboardInterrupt(), 130, "stopped; nothing is lost\n"),
        (KeyboardInterrupt("3 are kept"), 130, "stopped; 3 are kept\n"),
    ],
)
def test_what_ends_a_command(
    raised: BaseException | None, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(words: list[str]) -> None:
        assert words == ["a"]
        if raised is not None:
            raise raised

    assert main(list, run, ["a"], stopped="nothing is lost") == status
    assert capsys.readouterr() == ("", said)


def test_an_error_of_ours_keeps_its_traceback() -> None:
    def run(_: list[str]) -> None:
        raise ValueError("an error")

    with pytest.raises(ValueError, match="an error"):
        main(list, run, [])


def test_docstrings_and_comments_have_one_dialect() -> None:
    """Single backticks; what is raised is a sentence, `Raises NameError: when`; what ruff knows of it, ruff holds."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"``\w", text), f"{path}: double backticks"
        assert not re.search(r"(?m)^\s*Raises:\s*$", text), f"{path}: a section of what is raised"


# Files over LONG lines -> why; what is cut leaves this list.
LONG_FILES = {
    "onethinker_jax/data_pipeline/processor/processor.py": "one class, which is asked for everything about a record",
    "onethinker_jax/model/config.py": "the sizes of a model, read from config.json and written to it",
    "onethinker_jax/data_pipeline/records/record.py": "the record and all that is checked of a row",
    "tests/rewards/test_score.py": "every task's reward by hand",
    "tests/train/pages/test_page.py": "every part of one page",
}
LONG_FUNCTIONS = {
    "tests/rewards/backends/small_sam2_meta.py: meta_config"
}  # a table: another library's settings
LONG, LONG_FUNCTION = 400, 60
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for folder in ("onethinker_jax", "tests", "benchmarks", "examples", "experiments")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not path.stem.endswith(("_pb2", "_pb2_grpc"))
}


def functions(source: str) -> Iterator[tuple[str, int]]:
    """Name and lines of every function of a file, its decorators and its docstring left out."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            end, first = node.end_lineno, node.body[0]
            assert end is not None and first.end_lineno is not None
            has_docstring = isinstance(first, ast.Expr) and ast.get_docstring(node, clean=False) is not None
            docstring = first.end_lineno - first.lineno + 1 if has_docstring else 0
            yield node.name, end - node.lineno + 1 - docstring


def test_files_are_short() -> None:
    long = {name for name, source in SOURCES.items() if len(source.splitlines()) > LONG}
    assert long == set(LONG_FILES)


def test_functions_are_short() -> None:
    long = {
        f"{name}: {function}"
        for name, source in SOURCES.items()
        for function, lines in functions(source)
        if lines > LONG_FUNCTION
    }
    assert long == LONG_FUNCTIONS


def test_lines_of_functions_are_counted() -> None:
    source = """
@cache
def outer(
    a: int,
):
    '''Two
    lines.'''
    async def inner(): return a

    return inner
"""
    assert dict(functions(source)) == {"outer": 6, "inner": 1}
