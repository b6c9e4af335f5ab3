"""Evaluations that end in the middle, by any signal, on one process or two: the same command goes on with them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from onethinker_jax.data_pipeline.shapes.world import build_shapes_world
from onethinker_jax.evaluate import __main__ as evaluate
from onethinker_jax.evaluate.interrupts import Interrupts, heard
from onethinker_jax.rewards.client.server_process import start_server
from tests.places import ROOT
from tests.tiny_model import write_model
from tests.train.running import ends_of, free_port, in_tests, start_together
from tests.waiting import HANG_S, wait_until

RESULTS = ("predictions.jsonl", "metrics.json", "results.json", "scored.jsonl", "rewards.json")
COUNT = 24


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and the evaluation file of a small Shapes world: every task, images and videos."""
    folder = tmp_path_factory.mktemp("resume")
    write_model(folder)
    build_shapes_world(folder / "world", seed=1, train_rl=1, train_sft=1, heldout=COUNT, processes=1)
    return folder


@pytest.fixture(scope="module")
def sidecar(place: Path) -> Iterator[str]:
    with start_server(place / "s", place / "log") as server:
        yield server.address


def arguments(place: Path, sidecar: str, out: Path, *more: object) -> list[str]:
    given = [place / "model", place / "world" / "eval_shapes.json", "--out", out]
    given += ["--sidecar.addresses", sidecar, "--sidecar.score-workers", 0, "--mesh.data", 1]
    given += ["--max-new-tokens", 12, "--prompt-slots", 2, "--together", 4, "--temperature", 1, *more]
    return [str(one) for one in given]


def start(words: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "onethinker_jax.evaluate", *words],
        env=in_tests() | environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def lines(folder: Path) -> int:
    path = folder / "predictions.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


@pytest.fixture(scope="module")
def whole(place: Path, sidecar: str) -> Path:
    """The folder of an evaluation that was not interrupted."""
    assert evaluate.main(arguments(place, sidecar, place / "whole")) == 0
    assert lines(place / "whole") == COUNT
    return place / "whole"


def kill_at(count: int, words: Sequence[str], out: Path) -> None:
    """Runs until `count` answers are there, and kills it."""
    process = start(words)
    wait_until(lambda: lines(out) >= count, process, what=lambda: f"{lines(out)} answers")
    process.kill()
    process.communicate(timeout=HANG_S)
    assert process.returncode == -signal.SIGKILL


def test_killed_and_gone_on_with(place: Path, sidecar: str, whole: Path, tmp_path: Path) -> None:
    """The same bytes; a torn last line, as a machine that stops may leave it, is dropped."""
    words = arguments(place, sidecar, tmp_path / "out")
    kill_at(11, words, tmp_path / "out")
    with (tmp_path / "out" / "predictions.jsonl").open("ab") as file:
        file.write(b'{"problem_id": 3, "resp')
    assert evaluate.main(words) == 0
    assert contents(tmp_path / "out") == contents(whole)


@pytest.mark.slow
def test_killed_five_times(place: Path, sidecar: str, whole: Path, tmp_path: Path) -> None:
    """At moments drawn by lot, the first ones before any answer; some while results are written."""
    words, random = arguments(place, sidecar, tmp_path / "out"), Random(7)
    kills, there = 0, 0
    for _ in range(5):
        if there < COUNT - 4:
            there = min(there + random.randrange(1, COUNT // 4), COUNT - 1)
            kill_at(there, words, tmp_path / "out")
            kills += 1
    assert kills == 5
    assert evaluate.main(words) == 0
    assert contents(tmp_path / "out") == contents(whole)


@pytest.mark.parametrize("last", ["half a line", "no line end", "another order"])
def test_any_cut_of_the_file_is_gone_on_with(
    place: Path, sidecar: str, whole: Path, tmp_path: Path, last: str
) -> None:
    """As if the process had ended there: groups that are not whole are asked again."""
    shutil.copytree(whole, tmp_path / "out")
    path = tmp_path / "out" / "predictions.jsonl"
    kept = path.read_bytes().splitlines(keepends=True)
    end = kept[9][: len(kept[9]) // 2] if last == "half a line" else kept[9][:-1]
    cut = [*kept[:9], *kept[12:20], end]
    path.write_bytes(b"".join(reversed(kept) if last == "another order" else cut))
    (tmp_path / "out" / "metrics.json").unlink()
    assert evaluate.main(arguments(place, sidecar, tmp_path / "out")) == 0
    assert contents(tmp_path / "out") == contents(whole)


def test_a_file_that_is_no_predictions(
    place: Path, sidecar: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out" / "predictions.jsonl"
    for line, said in (
        ("not JSON\n", "line 2: is no answer; --restart begins anew"),
        ('{"problem_id": 99, "response": "a"}\n', "line 2: problem_id 99: is not asked here; --restart"),
    ):
        shutil.copytree(whole, tmp_path / "out", dirs_exist_ok=True)
        first, rest = path.read_text().split("\n", 1)
        path.write_text(f"{first}\n{line}{rest}")
        assert evaluate.main(arguments(place, sidecar, tmp_path / "out")) == 1
        assert said in capsys.readouterr().err


def test_ctrl_c_while_it_compiles(place: Path, sidecar: str, tmp_path: Path) -> None:
    """Heard at once, with one line that says how to go on."""
    process = start(arguments(place, sidecar, tmp_path / "out"), PYTHONUNBUFFERED="1")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("compiling"):
            break
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=HANG_S)
    assert process.returncode == 130
    said = r"stopped; (no answer is kept|\d+ answers are in .*predictions\.jsonl, of 24); the same command goes on\n"
    assert re.fullmatch(said, error), error


STUCK = """
import contextlib, hashlib
from onethinker_jax.evaluate.interrupts import Interrupts, heard
interrupts = Interrupts()
interrupts.kept = lambda: "7 answers are in a file"
with heard(interrupts, grace=0.01):
    while True:  # the signal may come before C runs
        with contextlib.suppress(KeyboardInterrupt):
            print("ready", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2**31 - 1)  # half an hour; a compiler takes minutes
"""


def test_ctrl_c_in_the_middle_of_a_library() -> None:
    """Python cannot raise while C runs: the process ends all the same."""
    command = [sys.executable, "-c", STUCK]
    process = subprocess.Popen(
        command, env=in_tests(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=HANG_S)
    assert process.returncode == 130
    assert error == "stopped; 7 answers are in a file; the same command goes on\n"


class Falls:
    """Python drops what its end raises."""

    def __init__(self, error: type[BaseException]):
        self.error = error

    def __del__(self) -> None:
        raise self.error


def test_ctrl_c_in_a_callback_of_the_garbage_collector() -> None:
    """JAX has one: no traceback, and the process ends as the signal's thread says."""
    lost: list[Any] = []
    before, sys.unraisablehook = sys.unraisablehook, lost.append
    try:
        with heard(Interrupts()):
            Falls(KeyboardInterrupt)
            Falls(ValueError)
        Falls(KeyError)
    finally:
        sys.unraisablehook = before
    assert [one.exc_type for one in lost] == [ValueError, KeyError]


def test_the_first_line_comes_before_slow_imports(place: Path, tmp_path: Path) -> None:
    """A module in the way of JAX ends the process where JAX would be imported."""
    (tmp_path / "jax.py").write_text("raise SystemExit(42)\n")
    words = arguments(place, "unix:nowhere", tmp_path / "out")
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    process = start(words, PYTHONPATH=path)
    said, _ = process.communicate(timeout=HANG_S)
    assert process.returncode == 42
    assert said.startswith(
        f"reading {place / 'world' / 'eval_shapes.json'}; answers go to {tmp_path / 'out'}\n"
    )


@pytest.mark.slow
def test_two_processes_answer_as_one(place: Path, sidecar: str, whole: Path, tmp_path: Path) -> None:
    """Each answers every second record; the first one joins them."""
    where = ["--hosts.coordinator", f"127.0.0.1:{free_port()}", "--hosts.count", 2, "--hosts.index"]
    commands = [
        ["-m", "onethinker_jax.evaluate", *arguments(place, sidecar, tmp_path / "out", *where, index)]
        for index in range(2)
    ]
    ends = ends_of(start_together(commands, devices=1))
    assert [status for status, _ in ends] == [0, 0], ends
    for name in ("predictions.jsonl", "metrics.json", "scored.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes()
    parts = [lines_of(tmp_path / "out" / f"predictions-{index}-of-2.jsonl") for index in range(2)]
    ids = [row["problem_id"] for row in lines_of(whole / "predictions.jsonl")]
    assert [[row["problem_id"] for row in part] for part in parts] == [ids[0::2], ids[1::2]]


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]
