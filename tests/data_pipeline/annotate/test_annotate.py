"""Annotation as a whole: a teacher over HTTP, the reward service, files that train; interrupted in every way."""

import json
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from onethinker_jax.data_pipeline.annotate.candidates import Candidates
from onethinker_jax.data_pipeline.annotate.teacher_prompt import SentMedia
from onethinker_jax.data_pipeline.processor import prompts
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.records.record import Record, read_records, task_of
from onethinker_jax.rewards.answers import unwrap_answer
from tests.data_pipeline.annotate.running import CONCURRENCY, RECORDS, Run
from tests.data_pipeline.annotate.scripted_teacher import Truthful, noisy, worked
from tests.data_pipeline.making import rl_row, write_image, write_rows
from tests.endpoint.scripted_endpoint import NEVER, Gate, Response, ScriptedEndpoint, failure
from tests.waiting import HANG_S, wait_until


@pytest.fixture(scope="module")
def truthful(world: Path) -> Truthful:
    return Truthful(read_records(world), SentMedia())


@pytest.fixture(scope="module")
def wanted(world: Path, truthful: Truthful, sidecar: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An undisturbed run of the Shapes world: what every disturbed one must come to."""
    run = Run(sidecar, tmp_path_factory.mktemp("wanted") / "out")
    with ScriptedEndpoint(truthful) as server:
        assert run(world, server.url) == 0
        assert server.times() == [2] * RECORDS and server.most_at_once <= CONCURRENCY
    return run


def test_the_set_is_read_back_and_trains(world: Path, wanted: Run, processor: Processor) -> None:
    asked = {record.problem_id: record for record in read_records(world)}
    made = [record for kind in ("image", "video") for record in read_records(wanted.out / f"sft_{kind}.json")]
    assert {record.problem_id for record in made} == set(asked) and len(made) == RECORDS
    assert [record.problem_id for record in read_records(wanted.out / "sft.json")] == [
        record.problem_id for record in made
    ]
    assert all(("video" if record.videos else "image") == record.data_type for record in made)
    for record in made:
        source = asked[record.problem_id]
        assert task_of(record) == task_of(source) and record.answer == source.answer
        assert [Path(str(path)).resolve() for path in record.images + record.videos] == list(
            source.images + source.videos
        )
        assert record.messages and len(record.messages) == 2
        question, answer = record.messages
        assert question == prompts.chat_messages(source)[0]
        assert answer == {"role": "assistant", "content": worked(unwrap_answer(source.answer))}
        example = processor.training(record)
        target = processor.decode(example.tokens[example.loss_mask])
        assert target == answer["content"] and len(example.patches)


def test_again_nothing_is_asked(
    world: Path, truthful: Truthful, wanted: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = wanted.files()
    with ScriptedEndpoint(truthful) as server:
        assert wanted(world, server.url, "--cap", "1", "--thresholds", "OCR", "0.5") == 0 and not server.seen
        report = wanted.report()["records"]
        assert all(task["kept"] == 1 for task in report.values())
        assert sum(task.get("balance", 0) for task in report.values()) == RECORDS - len(report)
        capped, full = (wanted.files()[f"sft_image{kind}.json"] for kind in ("", "_unsampled"))
        assert full == before["sft_image.json"] and len(json.loads(capped)) < len(json.loads(full))
        assert wanted(world, server.url) == 0 and wanted.files() == before and not server.seen
    capsys.readouterr()
    assert wanted(world, "http://127.0.0.1:9/v1", "--no-ask", "--candidates", "3") == 0  # needs no endpoint
    assert f"{2 * RECORDS}, 0 of them new" in capsys.readouterr().out and wanted.files() == before


def test_failures_change_nothing(
    world: Path,
    truthful: Truthful,
    wanted: Run,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("onethinker_jax.data_pipeline.annotate.__main__.LINE_SECONDS", 0.0)
    errors = [
        failure(429, "slow down", headers={"Retry-After": "0.05"}),
        failure(500, "boom"),
        Response(drop=True),
        Response(body=b'{"choices": [{"mess'),
        Response(hang=NEVER),
    ]

    met = set()

    def answer(request: dict[str, Any], number: int) -> Response:
        """Every question meets one error first."""
        response = truthful(request, number)
        kind = len(request["messages"][0]["content"]) % len(errors)
        met.add(kind)
        return errors[kind] if number == 0 else response

    with ScriptedEndpoint(answer) as server:
        # Where the machine is so busy that a good answer is late too, it is asked for once more.
        assert run(world, server.url, "--timeout", "1.5", "--retries", "100") == 0
        assert len(met) == len(errors) and min(server.times()) >= 3
    said = capsys.readouterr().out  # is no terminal
    assert f"asked {2 * RECORDS:,} of {2 * RECORDS:,} · " in said and "asked 1 of " in said
    assert run.files() == wanted.files() and run.report()["records"] == wanted.report()["records"]


def test_killed_stopped_and_resumed(world: Path, truthful: Truthful, wanted: Run, run: Run) -> None:
    """Each process gets the answers that its gate lets through, and no further one before its end."""
    gates = [Gate(12), Gate(6), Gate(2 * RECORDS)]
    gate = gates[0]

    def held(request: dict[str, Any], number: int) -> Response:
        gate()
        return truthful(request, number)

    with ScriptedEndpoint(held) as server:
        process = run.start(world, server.url)
        wait_until(lambda: run.answers() == 12, process)
        process.kill()
        process.communicate()
        known = run.answers()
        assert known == 12
        with (run.out / "candidates.jsonl").open("ab") as file:
            file.write(b'{"problem_id": 3, "data_source": "shapes_words", "candi')  # as a crash may leave it

        gate = gates[1]
        gates[0].open()  # what is held for the dead process goes nowhere
        process = run.start(world, server.url)
        wait_until(lambda: run.answers() == known + 6, process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=HANG_S)
        assert process.returncode == 130
        assert re.fullmatch(rb"stopped; the answers so far are in .*\n", said), said
        assert run.answers() == known + 6

        gate = gates[2]
        gates[1].open()
        assert run(world, server.url) == 0
        assert run.answers() == 2 * RECORDS
        assert len(server.seen) <= 2 * (RECORDS + CONCURRENCY)  # what was under way came again, no more
    assert run.files() == wanted.files()


def test_what_is_dropped_and_why(
    world: Path,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    records = read_records(world)
    kind_of_record = {record.problem_id: number % 4 for number, record in enumerate(records)}

    def noise(record: Record, truth: str, number: int) -> Response:
        """One record in four gets no good answer, one a second good one, one is noisy, one has no answer."""
        kind = kind_of_record[record.problem_id]
        if kind == 0:
            return Response(truth)
        if kind == 1:
            return Response(worked(truth)) if number else Response("<think>", "length")
        return failure(400, "too large") if kind == 3 else noisy(record, truth, number)

    with ScriptedEndpoint(Truthful(records, SentMedia(), noise)) as server:
        assert run(world, server.url, "--price-in", "1", "--price-out", "1000", "--limit", "24") == 0
    report = run.report()
    reasons = sum((Counter(task) for task in report["records"].values()), Counter())
    assert reasons.total() == 24 and reasons["tags"] >= 6 and reasons["no answer"] == 6
    assert reasons["kept"] == len(json.loads(run.files()["sft_image.json"])) + len(
        json.loads(run.files()["sft_video.json"])
    )
    answers = sum((Counter(task) for task in report["candidates"].values()), Counter())
    dropped = [json.loads(line) for line in (run.out / "dropped.jsonl").read_text().splitlines()]
    assert answers.total() == 36 == run.answers() and len(dropped) == 36 - answers["kept"]
    assert Counter(line["reason"] for line in dropped) == Counter(
        {reason: count for reason, count in answers.items() if reason != "kept"}
    )
    said = capsys.readouterr().out
    for text in ("48 answers to ask of big", "all tasks", " of about ", "cost"):
        assert text in said, said
    assert (
        "12 questions got no answer, most often (12): the endpoint refuses the question (400" in caplog.text
    )
    page = (run.out / "index.html").read_text()
    assert page.count("<article ") >= 10 and "data:image/" in page and 'src="http' not in page
    for reason in ("tags", "no answer", "cut off"):
        assert f'<td class="text name">{reason}</td>' in page


def test_a_teacher_that_writes_no_unicode(world: Path, run: Run) -> None:
    """Its answers are kept as they came and dropped with a reason; no file, page or judge fails on them."""
    records = read_records(world)

    def noise(record: Record, truth: str, number: int) -> Response:
        text = worked(truth)
        return Response(text if number else text.replace("</think>", " \ud83d\0\u2028</think>"))

    with ScriptedEndpoint(Truthful(records, SentMedia(), noise)) as server:
        assert run(world, server.url, "--limit", "8") == 0
    lines = list((run.out / "dropped.jsonl").open(encoding="utf-8"))
    dropped = [json.loads(line) for line in lines]
    assert [line["reason"] for line in dropped] == ["reserved text"] * 8
    assert all(
        "\ud83d\0\u2028" in json.dumps(line, ensure_ascii=False) or "text" not in line for line in dropped
    )
    with Candidates(run.out / "candidates.jsonl") as candidates:
        texts = [candidate.text for record in records for candidate in candidates.of(record, 2)]
    assert sum("\ud83d\0\u2028" in text for text in texts) == 8 and len(texts) == 16
    assert "surrogate" in (run.out / "index.html").read_text(encoding="utf-8") + "".join(lines)
    rows = read_records(run.out / "sft.json", purpose="sft")
    assert len(rows) == 8


def test_a_question_that_holds_its_answer_is_not_asked(tmp_path: Path, run: Run) -> None:
    write_image(tmp_path / "a.png")
    rows = [rl_row(problem_id=1, problem="<image>Which? The answer is A."), rl_row(problem_id=2)]
    path = write_rows(tmp_path / "rl.json", rows)
    with ScriptedEndpoint(lambda *_: Response(worked("A"))) as server:
        assert run(path, server.url) == 0 and len(server.seen) == 2
    counts = run.report()["records"]["multiple choice (image)"]
    assert counts == {"question holds its answer": 1, "kept": 1}


def test_records_without_media(tmp_path: Path, run: Run, processor: Processor) -> None:
    """Asked by text alone, told nothing of pictures, kept in files of their own that train, shown without a picture."""
    write_image(tmp_path / "a.png")
    about = {"images": ..., "options": ..., "data_type": "text", "problem_type": "math", "answer": "7"}
    rows = [rl_row(problem_id=n, problem=f"What is {n} + {7 - n}?", **about) for n in (1, 2)]
    path = write_rows(tmp_path / "rl.json", [*rows, rl_row(problem_id=3)])

    def answer(request: dict[str, Any], _: int) -> Response:
        return Response(worked("7" if "What is" in json.dumps(request["messages"][-1]) else "A", "the sum"))

    with ScriptedEndpoint(answer) as server:
        assert run(path, server.url) == 0 and len(server.seen) == 6
        asked = [seen.request["messages"] for seen in server.seen]
    about_text = [messages for messages in asked if "What is" in json.dumps(messages[-1])]
    assert len(about_text) == 4
    for system, user in about_text:
        assert re.search("image|video|picture|frame|see", system["content"].lower()) is None
        assert "The answer holds the result and nothing else." in system["content"]
        assert user["content"].startswith("What is ") and "math" not in user["content"]
    files = {name: json.loads(content) for name, content in run.files().items()}
    assert set(files) == {
        f"sft_{kind}{full}.json" for kind in ("text", "image") for full in ("", "_unsampled")
    }
    assert [row["problem_id"] for row in files["sft_text.json"]] == [1, 2]
    assert not {"images", "videos"} & set(files["sft_text.json"][0])
    made = read_records(run.out / "sft.json")
    assert sorted(str(task_of(record)) for record in made) == ["math (text)"] * 2 + [
        "multiple choice (image)"
    ]
    for record in made:
        assert processor.training(record).loss_mask.any()
    assert run.report()["records"]["math (text)"] == {"kept": 2}
    page = (run.out / "index.html").read_text()
    assert len(re.findall("<article[^>]*><div[^>]*></div>", page)) == page.count("<img") == 1


def test_a_folder_of_frames_stays_one(tmp_path: Path, run: Run, processor: Processor) -> None:
    (tmp_path / "film").mkdir()
    for number in range(6):
        write_image(tmp_path / "film" / f"{number}.png", seed=number)
    film = {
        "problem": "<video>Which letter?",
        "data_type": "video",
        "images": ...,
        "videos": ["film"],
        "fps": 4,
    }
    with ScriptedEndpoint(lambda *_: Response(worked("A"))) as server:
        assert run(write_rows(tmp_path / "rl.json", [rl_row(**film)]), server.url) == 0
    (record,) = read_records(run.out / "sft.json")
    assert record.videos[0].stat().st_size == sum(f.stat().st_size for f in (tmp_path / "film").iterdir())
    assert processor.training(record).loss_mask.any()
