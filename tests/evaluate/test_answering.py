"""The evaluation as a whole: what is in its folder when it ends well, badly, or by Ctrl-C."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from flax import nnx

from onethinker_jax.data_pipeline.media.decoding import MediaError
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.evaluate import __main__ as evaluate
from onethinker_jax.model.hf_weights import save_hf
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.rewards.client.client import RewardUnavailable
from onethinker_jax.rewards.client.server_process import start_server
from onethinker_jax.scoring import Scorer
from tests.data_pipeline.making import rl_row, write_image, write_rows, write_tokenizer
from tests.train import making

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
    """answer(*flags, out="out") -> the exit status of an evaluation."""
    common = ["--sidecar.addresses", sidecar, "--sidecar.score-workers", "0"]
    common += ["--max-new-tokens", "3", "--prompt-slots", "2", "--mesh.data", "1"]

    def call(*flags: str, out: str = "out", files: Sequence[Path] = ()) -> int:
        benchmarks = map(str, files or [file])
        return evaluate.main([str(model), *benchmarks, "--out", str(tmp_path / out), *common, *flags])

    return call


def rows(folder: Path, out: str = "out") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / out / "predictions.jsonl").read_text().splitlines()]


RESULTS = ("predictions.jsonl", "metrics.json", "results.json", "scored.jsonl", "rewards.json")


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def test_the_same_however_few_prompts_are_read_ahead(
    answer: Callable[..., int], file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert answer() == 0
    assert [row["problem_id"] for row in rows(tmp_path)] == list(range(COUNT))
    assert all(0 <= row["overall"] <= 2 and row["tokens"] == 3 for row in rows(tmp_path))
    assert not (tmp_path / "out" / "skipped.jsonl").exists()
    for text in (
        f"{COUNT} records of {file}\n",
        "compiling; answers",
        "6 of 6 answers of eval\n",
        "all tasks",
    ):
        assert text in caplog.text, text
    assert answer("--prompts-ahead", "1", "--together", "2", out="few") == 0
    assert rows(tmp_path, "few") == rows(tmp_path)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())["eval"]["accuracy"]
    assert (metrics["n"], metrics["failed"]) == (COUNT, 0)
    caplog.clear()
    whole = contents(tmp_path / "out")
    assert answer() == 0
    assert f"eval: all {COUNT} answers are there" in caplog.text and "loading" not in caplog.text
    assert contents(tmp_path / "out") == whole


def test_eight_devices_answer_as_one(answer: Callable[..., int], tmp_path: Path) -> None:
    """By default all devices share the prompts; slots are as many as they divide."""
    assert answer() == 0
    assert answer("--mesh.data", "4", "--mesh.fsdp", "2", out="eight") == 0
    assert rows(tmp_path, "eight") == rows(tmp_path)
    settings = json.loads((tmp_path / "eight" / "settings.json").read_text())
    assert (settings["mesh.data"], settings["mesh.fsdp"], settings["mesh.tensor"]) == (4, 2, 1)


def break_image(folder: Path, number: int) -> None:
    (folder / f"{number}.png").write_bytes(b"no picture")


def test_a_broken_image_costs_no_answer(
    answer: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is written down as failed and counted apart; or ends the evaluation; and can be asked again."""
    assert answer(out="good") == 0
    good = (tmp_path / f"{COUNT - 1}.png").read_bytes()
    break_image(tmp_path, COUNT - 1)
    assert answer() == 3
    found = rows(tmp_path)
    assert found[:-1] == rows(tmp_path, "good")[:-1]
    assert found[-1]["response"] == "" and found[-1]["overall"] is None
    assert re.fullmatch(r".*eval\.json: record 6 .*5\.png: not a readable image.*", found[-1]["failed"])
    means = json.loads((tmp_path / "out" / "rewards.json").read_text())["all tasks"]
    assert (means["answers"], means["failed"]) == (COUNT - 1, 1)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())["eval"]["accuracy"]
    assert (metrics["n"], metrics["failed"]) == (COUNT - 1, 1)
    said = f'1 of {COUNT} samples failed and are in no metric: see "failed" in {tmp_path / "out"}'
    assert said in caplog.messages[-1] and "--retry-failed" in caplog.messages[-1]
    assert answer() == 3  # it stays failed, and nothing is asked

    capsys.readouterr()
    assert answer("--on-bad-record", "raise", out="strict") == 1
    assert re.fullmatch(r"error: .*record 6.*5\.png: not a readable image.*\n", capsys.readouterr().err)
    assert not (tmp_path / "strict" / "metrics.json").exists()

    (tmp_path / f"{COUNT - 1}.png").write_bytes(good)
    assert answer("--retry-failed") == 0
    for name in ("predictions.jsonl", "metrics.json", "scored.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "good" / name).read_bytes()


def test_nothing_can_be_evaluated(
    answer: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(COUNT):
        break_image(tmp_path, number)
    assert answer() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"error: .*: all 6 samples failed: .*record 1.*: not a readable image.*", line)


def test_rows_that_are_malformed(
    answer: Callable[..., int], file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found before the model is loaded; or left out, listed and counted."""
    (tmp_path / "2.png").unlink()
    assert answer() == 1
    assert re.fullmatch(r"error: .*record 3.*no such file .*2\.png\n", capsys.readouterr().err)
    assert answer("--on-bad-record", "skip") == 0
    assert [row["problem_id"] for row in rows(tmp_path)] == [0, 1, 3, 4, 5]
    (line,) = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert "2.png" in json.loads(line)["reason"]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert sum(results["benchmarks"]["eval"]["left_out"].values()) == 1


def test_a_prompt_that_is_too_long(
    answer: Callable[..., int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert answer("--prompt-patches", "8") == 3
    failed = [row for row in rows(tmp_path) if "failed" in row]
    assert 0 < len(failed) < COUNT
    assert all("more than the 8 allowed" in row["failed"] for row in failed)
    assert (
        f"{len(failed)} records have larger prompts than allowed; all fit with --prompt-patches"
        in caplog.text
    )


def test_an_answer_that_cannot_be_scored(
    answer: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Never scored as wrong: tried again, then it has failed, alone; or its error names the record."""
    score, alone = Scorer.__call__, []

    def broken(self: Scorer, records: Any, texts: Any) -> Any:
        if any(record.problem_id == 2 for record in records):
            alone.extend(records if len(records) == 1 else [])
            raise MediaError("m.mp4: the mask's picture cannot be read")
        return score(self, records, texts)

    monkeypatch.setattr(Scorer, "__call__", broken)
    assert answer("--on-bad-record", "raise", out="strict") == 1
    said = r"error: .*record 3.*: m\.mp4: the mask's picture cannot be read\n"
    assert re.fullmatch(said, capsys.readouterr().err)
    alone.clear()
    assert answer("--tries", "3") == 3 and len(alone) == 3
    assert [row["problem_id"] for row in rows(tmp_path) if "failed" in row] == [2]
    assert [row["overall"] is None for row in rows(tmp_path)] == [number == 2 for number in range(COUNT)]


@pytest.mark.parametrize("then", [KeyboardInterrupt, RewardUnavailable])
def test_what_is_answered_is_kept(
    answer: Callable[..., int],
    tmp_path: Path,
    then: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Ctrl-C, or a service that is gone, when the third part is to be scored; the same command goes on."""
    flags = ("--prompts-ahead", "1", "--together", "2")
    assert answer(*flags, out="whole") == 0
    score, calls = Scorer.__call__, []

    def ends(self: Scorer, records: Any, texts: Any) -> Any:
        calls.append(len(records))
        if len(calls) == 3:
            raise then("gone")
        return score(self, records, texts)

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "__call__", ends)
        status = answer(*flags)
    error, kept = capsys.readouterr().err, rows(tmp_path)
    assert kept == rows(tmp_path, "whole")[: len(kept)] and 2 <= len(kept) == sum(calls[:-1]) < COUNT
    where = f"{len(kept)} answers are in {tmp_path / 'out' / 'predictions.jsonl'}, of 6"
    if then is KeyboardInterrupt:
        assert (status, error) == (130, f"stopped; {where}; the same command goes on\n")
    else:
        assert (status, error) == (1, "error: gone\n") and where in caplog.text
    calls.clear()
    monkeypatch.setattr(Scorer, "__call__", lambda *given: calls.append(len(given[1])) or score(*given))
    assert answer(*flags) == 0
    assert sum(calls) == COUNT - len(kept) // 2 * 2  # whole groups are not asked again
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_other_settings_are_refused(
    answer: Callable[..., int], file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer() == 0
    for flags, said in (
        (("--seed", "1"), "seed 0, not 1"),
        (("--video-fps", "1"), "video-fps 2.0, not 1.0"),
        (("--limit", "2"), "limit None, not 2"),
        (("--reward.variant", "paper"), "reward.variant released, not paper"),
    ):
        capsys.readouterr()
        assert answer(*flags) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {tmp_path / 'out'}: was begun with ") and said in line
        assert "another --out, or --restart" in line
    changed = json.loads(file.read_text())
    changed[1]["problem"] += " Really?"
    file.write_text(json.dumps(changed))
    assert answer() == 1 and "was begun with other records: " in capsys.readouterr().err
    assert answer("--restart") == 0
    (tmp_path / "out" / "settings.json").unlink()
    assert answer() == 1 and "has answers without settings.json" in capsys.readouterr().err
    (tmp_path / "out" / "settings.json").write_text('{"seed": 1}')
    (tmp_path / "out" / "predictions.jsonl").write_text("")  # begun, and ended before the first answer
    assert answer() == 0


def test_several_samples_and_several_benchmarks(
    answer: Callable[..., int], file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keyed by seed, position and sample: fewer records give the same samples; a benchmark has a folder.

    All benchmarks' media are decoded by the same processes: each of many had started its own.
    """
    hot = ("--samples", "3", "--temperature", "1")
    assert answer(*hot) == 0
    found = rows(tmp_path)
    assert [(row["problem_id"], row["sample"]) for row in found] == [
        (number, sample) for number in range(COUNT) for sample in range(3)
    ]
    assert len({row["response"] for row in found}) > COUNT
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines(keepends=True)
    whole = contents(tmp_path / "out")
    (tmp_path / "out" / "predictions.jsonl").write_text("".join([*lines[9:], *lines[:5]]))
    assert answer(*hot) == 0 and contents(tmp_path / "out") == whole
    other = write_rows(tmp_path / "other.json", json.loads(file.read_text())[:2])
    made, in_processes = [], MediaReader.in_processes
    monkeypatch.setattr(
        MediaReader,
        "in_processes",
        lambda *given, **named: made.append(given) or in_processes(*given, **named),
    )
    assert answer(*hot, out="two", files=[file, other]) == 0
    assert len(made) == 1
    assert rows(tmp_path / "two", "eval") == found
    assert rows(tmp_path / "two", "other") == found[:6]
    assert set(json.loads((tmp_path / "two" / "metrics.json").read_text())) == {"eval", "other"}


def test_settings_that_cannot_be(
    answer: Callable[..., int],
    file: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for flag in ("limit", "prompts-ahead", "samples", "together", "tries"):
        assert answer(f"--{flag}", "0") == 2
        assert f"{flag.replace('-', '_')} 0 must be at least 1" in capsys.readouterr().err
    assert answer(files=[file, file]) == 2 and "eval is there twice" in capsys.readouterr().err
    assert evaluate.main([str(model)]) == 2 and "BENCHMARK" in capsys.readouterr().err
    assert answer("--mesh.data", "99") == 1 and "needs 99 devices" in capsys.readouterr().err
    assert answer("--limit", "2") == 0 and "2 records of" in caplog.text


def test_a_reward_of_ones_own(
    answer: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores every answer; an error of its own is one line with the record's name, and answers are kept."""
    own = tmp_path / "own.py"
    own.write_text(
        "def number(record, response):\n    return record['problem_id'] / 10\n\n"
        "def fails(record, response):\n    return 1 / (record['problem_id'] - 4)**2\n"
    )
    assert answer("--reward.module", f"{own}:number") == 0
    assert [row["overall"] for row in rows(tmp_path)] == [number / 10 for number in range(COUNT)]
    assert answer("--reward.module", f"{own}:fails", "--together", "2", out="fails") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line.startswith(f"error: reward.module {own}:fails: ")
        and "(problem_id 4): raised ZeroDivision" in line
    )
    assert len(rows(tmp_path, "fails")) == 4
