"""The paper's 31 benchmarks, from made-up files in their public layouts to results, by the command itself.

One very small model answers all of them in one call: what is read under each name, answered, scored and written is
looked at, not how good the answers are. An endpoint that knows the true answers, and judges, gets full marks.
"""

import html
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import onethinker_jax
from onethinker_jax.data_pipeline.processor.prompts import chat_messages
from onethinker_jax.data_pipeline.sources.sample import Sample, Source
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from onethinker_jax.data_pipeline.sources.training_set.mask_answers import mask_answer
from onethinker_jax.evaluate import __main__ as evaluate
from onethinker_jax.evaluate import score
from onethinker_jax.evaluate.asking.protocols import DEFAULTS, WORDS
from onethinker_jax.evaluate.benchmarks.table import TABLE, find, md5_of
from onethinker_jax.evaluate.benchmarks.types import Benchmark
from onethinker_jax.evaluate.judges import prompts
from onethinker_jax.rewards.client.server_process import start_server
from tests.data_pipeline.sources.making_grounding import write_originals
from tests.endpoint.scripted_endpoint import Response, ScriptedEndpoint
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
        return list(LAYOUTS[file.layout](Source(path, split=benchmark.split, media_root=root)))


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


def test_another_family_is_said_before_anything_is_read(
    originals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    words = [str(tmp_path), *NAMES, "--data", str(originals), "--out", str(tmp_path / "out")]
    assert evaluate.main(words) == 1
    assert "model_type 'llama'" in capsys.readouterr().err and "records of" not in caplog.text


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


MASK_METRICS = ("cIoU", "gIoU", "J", "F", "J&F")
"""GrabCut's masks on pictures of noise are no good ones, whatever the prompt."""


def words_of(messages: list[dict[str, Any]]) -> str:
    """The text of a conversation; frames of videos bring more, between angle brackets."""
    turns = [message["content"] for message in messages]
    parts = [part for turn in turns for part in ([{"text": turn}] if isinstance(turn, str) else turn)]
    return " ".join(" ".join(part.get("text", "") for part in parts).split())


def true_answers(data: Path) -> dict[str, set[str]]:
    """The text that a question ends with -> its true answers."""
    found: dict[str, set[str]] = {}
    for name in NAMES:
        for sample in Evaluated(data, data, NAMES).samples(name):
            record = sample.record
            answer = record.answer
            if record.segmentation is not None:
                answer = mask_answer(record.segmentation)
            (*_, turn) = chat_messages(record, prompts=WORDS[TABLE[name].protocol])
            text = re.sub(r"(?<!\\)<(image|video)>", " ", turn["content"]).replace("\\<", "<")
            text = " ".join(text.split())
            found.setdefault(text, set()).add(answer)
    return found


def judged(system: str, user: str) -> str:
    """What an honest judge says of true answers."""
    if system == prompts.VALUE.system:
        return user.split("The work:\n")[1].split("\n\n")[0]
    return {
        prompts.CAPTION_ANSWER.system: "as described",
        prompts.MATCH.system: '{"correct": "yes", "rating": 5}',
        prompts.COMPARISON.system: "yes",
        prompts.RELEVANCE.system: "5",
    }[system]


def test_true_answers_and_an_honest_judge(originals: Path, sidecar: str, tmp_path: Path) -> None:
    truths = true_answers(originals)

    def answer(request: dict[str, Any], _: int) -> Response:
        system, user = request["messages"][0]["content"], request["messages"][-1]["content"]
        if request["model"] == "judge":
            return Response(judged(system, user))
        asked = words_of(request["messages"][-1:])
        (answer,) = truths[max(filter(asked.endswith, truths), key=len)]
        return Response(f"<think>I know.</think>{answer}")

    with ScriptedEndpoint(answer) as server:
        words = [server.url, *NAMES, "--data", str(originals), "--out", str(tmp_path), *flags(sidecar)]
        words += ["--endpoint.retries", "0", "--judge.url", server.url, "--judge.model", "judge"]
        assert evaluate.main(words) == 0
    done = Evaluated(originals, tmp_path, NAMES)
    for name, found in done.json("metrics.json").items():
        for metric, total in found.items():
            assert total["failed"] == 0, (name, metric)
            if metric in MASK_METRICS:
                assert 0 < total["released"] < 1 and 0 < total["standard"] < 1, (name, metric)
                assert all(row["masks"] for row in done.answers(name)), name
                continue
            most = {"CIDEr": 10, "G-Eval": 5}.get(metric, 1)
            values = [value for value in (total["released"], total["standard"]) if value is not None]
            assert values and values == pytest.approx([most] * len(values), abs=0.01), (name, metric)
    for name, found in done.json("results.json")["benchmarks"].items():
        assert found["extraction"]["unread"] == 0 and not found["left_out"], name
        assert (found["extraction"]["judge"] > 0) == (TABLE[name].judge == "required"), name


def test_answers_do_not_depend_on_the_file_or_the_order(evaluated: Evaluated, own: Evaluated) -> None:
    """OneThinker's file and the publisher's ask the same question of the same media."""
    for name in own.names:
        given, found = ([row["response"] for row in one.answers(name)] for one in (evaluated, own))
        assert given == found, name


def test_asked_from_python_the_model_gives_the_same_answer(model: Path, evaluated: Evaluated) -> None:
    assistant = onethinker_jax.load(model, **asdict(replace(DEFAULTS["onethinker"], max_new_tokens=4)))
    for name in ("eval_mmvu", "eval_activitynet", "eval_refcoco_testA"):
        assert TABLE[name].protocol == "onethinker"
        record, line = evaluated.samples(name)[0].record, evaluated.answers(name)[0]
        media: Any = [*record.videos, *record.images]
        answer = assistant.answer(media, record.problem, task=record.problem_type, options=record.options)
        assert answer.response.text == line["response"], name


def test_the_page_shows_every_benchmark(evaluated: Evaluated) -> None:
    page = (evaluated.out / "index.html").read_text()
    assert all(html.escape(benchmark.title) in page for benchmark in TABLE.values())
    assert "<script src" not in page and 'href="http' not in page


def test_scoring_the_answers_again_gives_the_same(evaluated: Evaluated, tmp_path: Path) -> None:
    words = [str(evaluated.out), *NAMES, "--data", str(evaluated.data), "--out", str(tmp_path)]
    assert score.main(words) == 0
    for name in ("metrics.json", "scored.jsonl"):
        assert (tmp_path / name).read_bytes() == (evaluated.out / name).read_bytes()
    again, whole = (json.loads((path / "results.json").read_text()) for path in (tmp_path, evaluated.out))
    assert again["benchmarks"] == whole["benchmarks"] and again["versions"] == whole["versions"]
