"""The evaluation as a whole: what is in its folder when it ends well, badly, or by Ctrl-C."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flax import nnx

from onethinker_jax.data_pipeline.media.decoding import MediaError
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.processor_config import MediaBounds
from onethinker_jax.data_pipeline.records.record import read_records
from onethinker_jax.data_pipeline.shapes.world import build_shapes_world
from onethinker_jax.evaluate import __main__ as evaluate
from onethinker_jax.evaluate.answers import answering
from onethinker_jax.evaluate.answers.answering import Progress
from onethinker_jax.model.hf_weights import save_hf
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.rewards.client.client import RewardUnavailable
from onethinker_jax.rewards.client.server_process import start_server
from onethinker_jax.scoring import Scorer
from tests.data_pipeline.making import rl_row, write_image, write_rows, write_tokenizer
from tests.places import ROOT
from tests.train import making
from tests.waiting import HANG_S

COUNT = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory of a fresh, very small model."""
    folder = tmp_path_factory.mktemp("model")
    processor = Processor.from_pretrained(
        write_tokenizer(folder / "tokenizer", image_pixels=(1024, 16_384)), grid_side=8
    )
    config = making.config_for(processor)
    save_hf(Qwen3VL(config, rngs=nnx.Rngs(0)), folder / "model", copy_from=folder / "tokenizer")
    return folder / "model"


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("sidecar")
    with start_server(folder / "s", folder / "log") as server:
        yield server.address


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Records with images of different sizes; the last one's is the largest."""
    rows = []
    for number in range(COUNT):
        write_image(tmp_path / f"{number}.png", 32, 32 + 16 * number, seed=number)
        rows.append(rl_row(problem_id=number, images=[f"{number}.png"]))
    return write_rows(tmp_path / "eval.json", rows)


@pytest.fixture
def answer(model: Path, sidecar: str, file: Path, tmp_path: Path) -> Callable[..., int]:
    """answer(*flags) -> the exit status of an evaluation."""
    common = ["--out", str(tmp_path / "out"), "--sidecar.addresses", sidecar, "--sidecar.score-workers", "0"]
    common += ["--max-new-tokens", "3", "--prompt-slots", "2"]
    return lambda *flags: evaluate.main([str(model), str(file), *common, *flags])


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / "predictions.jsonl").read_text().splitlines()]


ONE = ("--prompts-ahead", "1", "--prompt-tokens", "128", "--prompt-patches", "256", "--prompt-buckets", "1")


def test_the_same_however_few_prompts_are_read_ahead(
    answer: Callable[..., int], file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert answer() == 0
    whole = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    assert [row["problem_id"] for row in rows(tmp_path)] == list(range(COUNT))
    assert all(0 <= row["overall"] <= 2 for row in rows(tmp_path))
    assert not (tmp_path / "out" / "skipped.jsonl").exists()
    for text in (f"{COUNT} records of {file}; loading", "compiling; then", "6 of 6 records\n", "all tasks"):
        assert text in caplog.text, text
    assert answer(*ONE) == 0
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == whole


def break_image(folder: Path, number: int) -> None:
    (folder / f"{number}.png").write_bytes(b"no picture")


def test_a_broken_image_costs_no_answer(
    answer: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Raised at its turn, after answers that are kept; or left out, and in no mean."""
    break_image(tmp_path, COUNT - 1)
    assert answer(*ONE) == 1
    assert re.fullmatch(r"error: .*5\.png: not a readable image.*\n", capsys.readouterr().err)
    kept = len(rows(tmp_path))
    where = tmp_path / "out" / "predictions.jsonl"
    assert 0 < kept < COUNT and f"{kept} answers are in {where}, of 6" in caplog.text
    assert not (tmp_path / "out" / "metrics.json").exists()

    assert answer("--on-bad-record", "skip") == 0
    assert [row["problem_id"] for row in rows(tmp_path)] == list(range(COUNT - 1))
    (line,) = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert (
        json.loads(line)["problem_id"] == COUNT - 1 and "5.png: not a readable" in json.loads(line)["reason"]
    )
    means = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert means[-1]["records"] == COUNT - 1
    said = caplog.text
    assert "skipped: " in said and f"1 records are left out: see {tmp_path / 'out' / 'skipped.jsonl'}" in said


def test_nothing_can_be_evaluated(
    answer: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(COUNT):
        break_image(tmp_path, number)
    assert answer("--on-bad-record", "skip") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"error: .*: no record could be evaluated; 6 records are left out: see .*", line)


def test_a_prompt_that_is_too_long(
    answer: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--prompt-patches", "8")
    assert answer(*few) == 1
    assert re.fullmatch(
        r"error: .*eval\.json: record \d \(problem_id \d\): prompt of \d+ patches, more than the 8 allowed\n",
        capsys.readouterr().err,
    )
    assert answer(*few, "--on-bad-record", "skip") == 0
    left = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert len(left) + len(rows(tmp_path)) == COUNT and len(left) > 0
    assert {one["problem_id"] for one in left}.isdisjoint(row["problem_id"] for row in rows(tmp_path))


def test_an_answer_that_cannot_be_scored(
    answer: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Never scored as wrong: the error names the record, or it is left out with its response."""
    score = Scorer.__call__

    def broken(self: Scorer, records: Any, texts: Any) -> Any:
        if any(record.problem_id == 2 for record in records):
            raise MediaError("m.mp4: the mask's picture cannot be read")
        return score(self, records, texts)

    monkeypatch.setattr(Scorer, "__call__", broken)
    assert answer() == 1
    assert re.fullmatch(
        r"error: .*record 3.*: m\.mp4: the mask's picture cannot be read\n", capsys.readouterr().err
    )
    unscored = [row for row in rows(tmp_path) if row["overall"] is None]
    assert 2 in [row["problem_id"] for row in unscored] and all(row["response"] for row in unscored)
    assert answer("--on-bad-record", "skip") == 0
    assert [row["problem_id"] for row in rows(tmp_path)] == [0, 1, 3, 4, 5]
    (line,) = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert json.loads(line)["problem_id"] == 2 and json.loads(line)["response"]


@pytest.mark.parametrize("then", [KeyboardInterrupt, RewardUnavailable])
def test_what_is_answered_is_kept(
    answer: Callable[..., int],
    tmp_path: Path,
    then: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Ctrl-C, or a service that is gone, when the second part is to be scored: its answers are kept too."""
    score, calls = Scorer.__call__, []

    def ends(self: Scorer, records: Any, texts: Any) -> Any:
        calls.append(len(records))
        if len(calls) == 2:
            if then is KeyboardInterrupt:
                signal.raise_signal(signal.SIGINT)
            raise then("gone")
        return score(self, records, texts)

    monkeypatch.setattr(Scorer, "__call__", ends)
    status = answer(*ONE)
    error, kept = capsys.readouterr().err, rows(tmp_path)
    assert len(kept) == sum(calls) < COUNT
    assert [row["overall"] is None for row in kept] == [False] * calls[0] + [True] * calls[1]
    where = f"{len(kept)} answers are in {tmp_path / 'out' / 'predictions.jsonl'}, of 6"
    if then is KeyboardInterrupt:
        assert (status, error) == (130, f"stopped; {where}\n")
    else:
        assert (status, error) == (1, "error: gone\n") and where in caplog.text


@pytest.mark.parametrize(
    ("name", "imported"),
    [
        ("evaluate", "jax"),
        ("evaluate", "tyro"),
        ("demo", "tyro"),
        ("train", "tyro"),
        ("train.plan", "tyro"),
        ("data_pipeline.check", "tyro"),
        ("data_pipeline.annotate", "tyro"),
    ],
)
def test_ctrl_c_during_imports(name: str, imported: str, tmp_path: Path) -> None:
    """A module in the way of the real one presses it while it is imported."""
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise SystemExit('it went on')\n"
    (tmp_path / f"{imported}.py").write_text(code)
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            f"onethinker_jax.{name}",
            *(["model", "eval.json"] if imported == "jax" else ["--help"]),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        timeout=HANG_S,
        check=False,
    )
    assert result.returncode == 130, result.stderr
    assert result.stderr.startswith("stopped") and result.stderr.count("\n") == 1


def test_settings_that_cannot_be(
    answer: Callable[..., int], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for flag in ("limit", "prompts-ahead"):
        assert answer(f"--{flag}", "0") == 2
        assert f"{flag.replace('-', '_')} 0 must be at least 1" in capsys.readouterr().err
    assert answer("--limit", "2") == 0 and "2 records of" in caplog.text


def test_progress_says_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    caplog.set_level(logging.INFO, "onethinker_jax")
    progress = Progress(1000, clock=lambda: now[0])
    for seconds, done in ((5, 10), (11, 20), (12, 30), (3600, 500), (7200, 1000)):
        now[0] = seconds
        progress.reached(done)
    assert caplog.messages == [
        "20 of 1,000 records, about 8 min 59 s left",
        "500 of 1,000 records, about 1 h 00 min left",
        "1,000 of 1,000 records",
    ]
    assert answering.LINE_SECONDS == 10


PEAK = """
import resource, sys
from onethinker_jax.evaluate import __main__ as evaluate
status = evaluate.main(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
sys.exit(status)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_records(
    model: Path, sidecar: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Four times the videos of the Shapes world in the same memory; all prompts at once would be 48 more."""
    world = build_shapes_world(tmp_path / "world", seed=1, train_rl=1, train_sft=1, heldout=60, processes=1)
    videos = [row for row in json.loads(world.eval_json.read_text()) if row["data_type"] == "video"]
    flags = [
        "--sidecar.addresses",
        sidecar,
        "--sidecar.score-workers",
        0,
        "--max-new-tokens",
        2,
        "--prompt-slots",
        1,
    ]
    flags += [
        "--video-fps",
        8,
        "--video-max-frames",
        32,
        "--video-min-pixels",
        131_072,
        "--video-max-pixels",
        131_072,
    ]
    flags += ["--prompt-tokens", 4096, "--prompt-patches", 12_288, "--prompt-buckets", 1]
    flags += ["--prompts-ahead", 4]
    sizes = {
        "video_fps": 8.0,
        "video_max_frames": 32,
        "video_min_pixels": 131_072,
        "video_max_pixels": 131_072,
    }
    processor = Processor.from_pretrained(model, MediaBounds(**sizes))  # type: ignore[arg-type]
    peaks = {}
    for count in (16, 64):
        file = tmp_path / "world" / f"{count}.json"
        chosen = [{**videos[number % 16], "problem_id": number} for number in range(count)]
        file.write_text(json.dumps(chosen))
        command = [sys.executable, "-c", PEAK, model, file, "--out", tmp_path / str(count), *flags]
        done = subprocess.run(
            [*map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=HANG_S, check=False
        )
        assert done.returncode == 0, done.stderr
        peaks[count] = int(re.findall(r"peak (\d+)", done.stdout)[0])  # MiB
    bytes_a_prompt = (
        sum(processor.prompt(record).nbytes for record in read_records(tmp_path / "world" / "16.json")) / 16
    )
    record_property("peaks_mib", peaks)
    record_property("prompt_mib", bytes_a_prompt / 2**20)
    assert peaks[64] - peaks[16] < 0.25 * 48 * bytes_a_prompt / 2**20, (peaks, bytes_a_prompt)


def test_a_reward_of_ones_own(
    answer: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores every answer; an error of its own is one line with the record's name, and the answers are kept."""
    own = tmp_path / "own.py"
    own.write_text(
        "def number(record, response):\n    return record['problem_id'] / 10\n\n"
        "def fails(record, response):\n    return 1 / (record['problem_id'] - 4)**2\n"
    )
    assert answer("--reward.module", f"{own}:number") == 0
    assert [row["overall"] for row in rows(tmp_path)] == [number / 10 for number in range(COUNT)]
    assert answer("--reward.module", f"{own}:fails") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line.startswith(f"error: reward.module {own}:fails: ")
        and "(problem_id 4): raised ZeroDivision" in line
    )
    assert len(rows(tmp_path)) == COUNT
