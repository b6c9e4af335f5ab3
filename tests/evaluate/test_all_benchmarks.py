"""The paper's 31 benchmarks, from made-up files in their public layouts to results, by the command itself.

One very small model answers all of them in one call: what is read under each name, answered, scored and written is
looked at, not how good the answers are. True answers are scored in `benchmarks/test_question_benchmarks.py`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from onethinker_jax.data_pipeline.sources.sample import Sample
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from onethinker_jax.evaluate import __main__ as evaluate
from onethinker_jax.evaluate import score
from onethinker_jax.evaluate.benchmarks.table import TABLE, find, md5_of
from onethinker_jax.evaluate.benchmarks.types import Benchmark
from onethinker_jax.rewards.client.server_process import start_server
from tests.data_pipeline.sources.making_grounding import write_originals
from tests.evaluate.benchmarks.making import write_own_files, write_questions

NAMES = list(TABLE)


@dataclass
class Evaluated:
    """The folders of an evaluation."""

    data: Path
    out: Path
    names: list[str]

    def json(self, name: str) -> Any:
        return json.loads((self.out / name).read_text())

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / name).read_text().splitlines()]

    def answers(self, name: str) -> list[dict[str, Any]]:
        return self.lines(f"{name}/predictions.jsonl")

    def samples(self, name: str) -> list[Sample]:
        benchmark, file, path = find(name, self.data)
        root = self.data / file.media if file.media else None
        return list(LAYOUTS[file.layout](path, split=benchmark.split, media_root=root))


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("sidecar")
    with start_server(folder / "s", folder / "log") as server:
        yield server.address


def flags(sidecar: str) -> list[str]:
    """Small sizes, one device, short answers."""
    return [
        *("--sidecar.addresses", sidecar, "--sidecar.score-workers", "0", "--mesh.data", "1"),
        *("--max-new-tokens", "4", "--prompt-slots", "2", "--prompt-buckets", "1"),
    ]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = write_questions(tmp_path_factory.mktemp("originals"))
    write_originals(data)
    return data


@pytest.fixture(scope="module")
def evaluated(
    model: Path, originals: Path, sidecar: str, tmp_path_factory: pytest.TempPathFactory
) -> Evaluated:
    """All benchmarks, from the files of their publishers."""
    out = tmp_path_factory.mktemp("out")
    words = [str(model), *NAMES, "--data", str(originals), "--out", str(out), *flags(sidecar)]
    assert evaluate.main(words) == 0
    return Evaluated(originals, out, NAMES)


@pytest.fixture(scope="module")
def own(model: Path, originals: Path, sidecar: str, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """Those that OneThinker published files of, from such files, in the other order."""
    folder = tmp_path_factory.mktemp("own")
    names = write_own_files(originals, folder / "data")[::-1]
    words = [
        str(model),
        *names,
        "--data",
        str(folder / "data"),
        "--out",
        str(folder / "out"),
        *flags(sidecar),
    ]
    assert evaluate.main(words) == 0
    return Evaluated(folder / "data", folder / "out", names)


def test_every_question_of_every_benchmark_is_answered(evaluated: Evaluated, own: Evaluated) -> None:
    assert len(own.names) == 23
    for one in (evaluated, own):
        for name in one.names:
            asked = [sample.record.problem_id for sample in one.samples(name)]
            found = one.answers(name)
            assert asked and [row["problem_id"] for row in found] == asked, name
            assert all(row["response"] and row["tokens"] == 4 and "failed" not in row for row in found), name


def rows_of(benchmark: Benchmark, samples: list[Sample]) -> int:
    """What a metric counts: questions, whose rotations are one."""
    if benchmark.rule != "circular":
        return len(samples)
    return len({sample.facts["g_index"] for sample in samples})


def test_every_benchmark_has_its_metrics(evaluated: Evaluated, own: Evaluated) -> None:
    for one in (evaluated, own):
        metrics = one.json("metrics.json")
        assert list(metrics) == one.names
        for name, found in metrics.items():
            benchmark, samples = TABLE[name], one.samples(name)
            assert list(found) == list(benchmark.metrics), name
            assert set(benchmark.published) <= set(found), name
            for metric, total in found.items():
                assert total["n"] + total["failed"] == rows_of(benchmark, samples), (name, metric)
                assert set(total) == {"released", "standard", "low", "high", "n", "failed"}
                numbers = [total[key] for key in ("released", "standard", "low", "high")]
                assert all(value is None or 0 <= value <= 1 for value in numbers), (name, metric)
                published = total[benchmark.published_form]
                if benchmark.judge != "required" and metric in benchmark.published:
                    assert published is not None or benchmark.family == "image segmentation", (name, metric)


def test_results_say_what_was_read_and_how(evaluated: Evaluated, own: Evaluated) -> None:
    for one in (evaluated, own):
        results, metrics = one.json("results.json"), one.json("metrics.json")
        assert {"onethinker_jax", "python", "numpy"} <= set(results["versions"])
        assert set(results["settings"]["answers"]) == set(one.names)
        for name, found in results["benchmarks"].items():
            benchmark, samples = TABLE[name], one.samples(name)
            _, read, path = find(name, one.data)
            (file,) = found["files"]
            assert (file["path"], file["md5"]) == (str(path), md5_of(path))
            assert (file["layout"], file["rows"]) == (read.layout, len(samples))
            assert (found["title"], found["family"], found["split"], found["rows"]) == (
                *(benchmark.title, benchmark.family, benchmark.split),
                len(samples),
            )
            assert found["metrics"] == metrics[name]
            assert found["published"] == {key: list(value) for key, value in benchmark.published.items()}
            assert sum(found["extraction"].values()) == pytest.approx(1)
            for kind, groups in found["groups"].items():
                named = [sample for sample in samples if kind == "task" or kind in sample.groups]
                counts = [max(t["n"] + t["failed"] for t in group.values()) for group in groups.values()]
                assert sum(counts) == rows_of(benchmark, named), (name, kind)


def test_every_answer_is_scored_on_a_line(evaluated: Evaluated) -> None:
    lines = evaluated.lines("scored.jsonl")
    position = 0
    for name in NAMES:
        for sample in evaluated.samples(name):
            line = lines[position]
            position += 1
            assert (line["benchmark"], line["problem_id"]) == (name, sample.record.problem_id)
            assert line["decided_by"] in ("rule", "unread") and line["failed"] is None
            media = [str(file) for file in (*sample.record.videos, *sample.record.images)]
            assert line["media"] == media and media
    assert position == len(lines)


def test_answers_do_not_depend_on_the_file_or_the_order(evaluated: Evaluated, own: Evaluated) -> None:
    """OneThinker's file and the publisher's ask the same question of the same media."""
    for name in own.names:
        given, found = ([row["response"] for row in one.answers(name)] for one in (evaluated, own))
        assert given == found, name


def test_scoring_the_answers_again_gives_the_same(evaluated: Evaluated, tmp_path: Path) -> None:
    words = [str(evaluated.out), *NAMES, "--data", str(evaluated.data), "--out", str(tmp_path)]
    assert score.main(words) == 0
    for name in ("metrics.json", "scored.jsonl"):
        assert (tmp_path / name).read_bytes() == (evaluated.out / name).read_bytes()
    again, whole = (json.loads((path / "results.json").read_text()) for path in (tmp_path, evaluated.out))
    assert again["benchmarks"] == whole["benchmarks"] and again["versions"] == whole["versions"]
