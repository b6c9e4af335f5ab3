"""Annotation as a whole: a teacher over HTTP, the reward service, files that train; interrupted in every way."""

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onethinker_jax.data_pipeline.annotate.__main__ import main
from onethinker_jax.data_pipeline.annotate.candidates import Candidate, CandidateError, Candidates
from onethinker_jax.data_pipeline.annotate.teacher_prompt import SentMedia, request_messages
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.processor import prompts
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.records.record import Record, read_records, task_of
from onethinker_jax.data_pipeline.shapes.world import build_shapes_world
from onethinker_jax.rewards.answers import unwrap_answer
from onethinker_jax.rewards.client.client import start_server
from tests.data_pipeline.annotate.scripted_teacher import Truthful, noisy, worked
from tests.data_pipeline.making import rl_row, sft_row, write_image, write_rows, write_video
from tests.endpoint.scripted_endpoint import NEVER, Gate, Response, ScriptedEndpoint, failure
from tests.waiting import HANG_S, wait_until

RECORDS, CONCURRENCY = 24, 4
Answer = Callable[[dict[str, Any], int], Response]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "world"
    return build_shapes_world(folder, seed=5, train_rl=RECORDS, train_sft=1, heldout=1, processes=1).rl_json


@pytest.fixture(scope="module")
def truthful(world: Path) -> Truthful:
    return Truthful(read_records(world), SentMedia())


@pytest.fixture(scope="module")
def sidecar() -> Iterator[str]:
    with (
        tempfile.TemporaryDirectory(prefix="onethinker-") as folder,
        start_server(Path(folder) / "s", Path(folder) / "log") as server,
    ):
        yield server.address


class Run:
    """Annotates with the flags that all tests share."""

    def __init__(self, sidecar: str, out: Path):
        self.sidecar, self.out = sidecar, out

    def arguments(self, file: Path, url: str, *more: str) -> list[str]:
        common = {
            "--base-url": url,
            "--model": "big",
            "--out": str(self.out),
            "--sidecar.addresses": self.sidecar,
            "--media-workers": "0",
            "--concurrency": str(CONCURRENCY),
            "--backoff": "0.01",
            "--candidates": "2",
        }
        return [str(file), *(part for pair in common.items() for part in pair), *more]

    def __call__(self, file: Path, url: str, *more: str) -> int:
        return main(self.arguments(file, url, *more))

    def start(self, file: Path, url: str, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "onethinker_jax.data_pipeline.annotate"]
        return subprocess.Popen(
            [*command, *self.arguments(file, url, *more)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def answers(self) -> int:
        """Whole lines of the file of candidates, which may be written to right now."""
        path = self.out / "candidates.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.out.glob("sft_*.json"))}

    def report(self) -> dict[str, Any]:
        return json.loads((self.out / "report.json").read_text())


@pytest.fixture
def run(sidecar: str, tmp_path: Path) -> Run:
    return Run(sidecar, tmp_path / "out")


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


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (failure(401, "wrong"), r"error: http\S+ does not take the key in OPENAI_API_KEY \(401: wrong\)\n"),
        (failure(404, "what?"), r"error: http\S+ does not know model 'big', or is no API \(404: what\?\)\n"),
    ],
)
def test_an_endpoint_that_is_no_use(
    world: Path, run: Run, error: Response, message: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with ScriptedEndpoint(lambda *_: error) as server:
        assert run(world, server.url) == 1
        assert len(server.seen) <= CONCURRENCY
    assert re.fullmatch(message, capsys.readouterr().err)


def test_an_endpoint_that_is_not_there(world: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(world, "http://127.0.0.1:9/v1") == 1
    assert re.fullmatch(r"error: http://127.0.0.1:9/v1 cannot be reached \(.*\)\n", capsys.readouterr().err)


def test_no_good_answer_at_all(world: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedEndpoint(lambda *_: Response("hm")) as server:
        assert run(world, server.url, "--limit", "3") == 1
    assert capsys.readouterr().err == "error: no record was kept\n" and not run.files()
    assert run.report()["facts"]["kept"] == "0"


BAD = {
    r"problem_type: is missing, which scoring needs": sft_row(problem_id=2),
    r"problem_id: is missing, by which": rl_row(problem_id=...),
    r"problem_id: is also that of .*record 1 ": rl_row(problem_id=1),
    r"b\.png: not a readable image": rl_row(problem_id=4, images=["b.png"]),
    r"problem_type: unknown 'zzz'": rl_row(problem_id=5, problem_type="zzz"),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_records(tmp_path: Path, run: Run, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    path = write_rows(tmp_path / "rl.json", [rl_row(problem_id=1), BAD[message], rl_row(problem_id=3)])
    with ScriptedEndpoint(lambda *_: Response(worked("A"))) as server:
        assert run(path, server.url) == 1
        assert re.fullmatch(rf"error: {path}: record 2.*{message}.*\n", capsys.readouterr().err)
        assert run(path, server.url, "--on-bad-record", "skip") == 0
        assert run(path, server.url, "--on-bad-record", "skip") == 0
    (line,) = (run.out / "bad.jsonl").read_text().splitlines()
    assert re.search(message, json.loads(line)["reason"])
    assert [row["problem_id"] for row in json.loads(run.files()["sft_image.json"])] == [1, 3]
    assert run.report()["facts"]["records"] == "2, and 1 bad ones"


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


def test_a_folder_keeps_to_its_questions(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "a.png")
    path = write_rows(tmp_path / "rl.json", [rl_row()])
    with ScriptedEndpoint(lambda *_: Response(worked("A"))) as server:
        assert run(path, server.url) == 0
        assert run(path, server.url, "--temperature", "0.5") == 1
        assert "asked for with temperature 1.0, not 0.5: name another --out" in capsys.readouterr().err
        write_rows(path, [rl_row(problem="<image>Which one?")])
        assert run(path, server.url) == 1
        assert re.search(r"record 1 \(problem_id 7\): .* to another question", capsys.readouterr().err)
        assert len(server.seen) == 2


# ---------------------------------------------------------------- what is sent


def sent(row: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    (record,) = read_records(write_rows(folder / "rows.json", [row]))
    return request_messages(record, MediaReader(), SentMedia(video_max_frames=3, image_max_pixels=64 * 64))


def pixels_of(part: dict[str, Any]) -> np.ndarray:
    head, _, data = part["image_url"]["url"].partition(",")
    assert part["type"] == "image_url" and head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_images_are_sent_in_their_places(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 64, 64, seed=1)
    write_image(tmp_path / "b.png", 256, 128)
    row = rl_row(images=["a.png", "b.png"], problem="<image>This one?<image>Or that one?")
    system, user = sent(row, tmp_path)
    assert system["role"] == "system" and "the letter of the right option" in system["content"]
    first, this, second, that = user["content"]
    original = np.asarray(Image.open(tmp_path / "a.png"), float)
    assert np.abs(pixels_of(first) - original).mean() < 6 and pixels_of(second).shape == (64, 32, 3)
    assert this == {"type": "text", "text": "This one?"}
    assert that["text"].startswith("Or that one?\nA. one\nB. two\nThink in <think>")


def test_frames_are_sent_with_their_times(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [0.0, 0.4, 1.1, 2.0, 3.7, 3.9])
    row = rl_row(images=..., videos=["v.mp4"], data_type="video", problem="<video>When?", options=[])
    row |= {"problem_type": "temporal grounding", "answer": '{"time": [1, 2]}'}
    system, user = sent(row, tmp_path)
    assert '{"time": [3.5, 9.0]}' in system["content"]
    texts = [part["text"] for part in user["content"] if part["type"] == "text"]
    frames = [pixels_of(part) for part in user["content"] if part["type"] == "image_url"]
    video = MediaReader().video(tmp_path / "v.mp4", None, fps=2.0, max_frames=3)
    assert texts[0] == f"A video of {video.duration:.1f} seconds, 3 frames:" and texts[-1].startswith(
        "When?\n"
    )
    assert texts[1:-1] == [f"<{time:.1f} seconds>" for time in video.timestamps] and len(frames) == 3
    for frame, true in zip(frames, video.frames, strict=True):
        assert abs(frame.mean() - true.mean()) < 4


def test_rows_of_other_layouts_are_asked_too(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    row = sft_row(problem_id=1, problem_type="OCR", answer="A star.")
    _, user = sent(row, tmp_path)
    assert [part.get("text") for part in user["content"]] == [None, "What is it?"]
    row = rl_row(images=..., path="a.png", problem="Which?", answer=..., solution="A")
    _, user = sent(row, tmp_path)
    assert user["content"][0]["type"] == "image_url" and user["content"][1]["text"].startswith("Which?")


# ---------------------------------------------------------------- the file of candidates


def candidate(number: int, identity: int | str = 7) -> Candidate:
    return Candidate(identity, "test", number, "q", f"text {number} é\n", "stop", 10, 2, 0.5)


def record(identity: int | str = 7) -> Record:
    return Record(identity, "?", "image", "OCR", (), "x", (), (), "test")


@pytest.mark.parametrize(
    "tail", [b"", b'{"problem_id": 7', b"\x00\x00\x00\x00", b'{"problem_id": 7}\n', b"[]\n"]
)
def test_a_cut_off_line_is_dropped(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "c.jsonl"
    with Candidates(path) as store:
        for number in (1, 0):
            store.append(candidate(number))
        store.append(candidate(0, "7"))
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    with Candidates(path) as store:
        assert path.read_bytes() == whole and len(store) == 3
        assert store.numbers(record(), "q") == {0, 1} and store.numbers(record("7"), "q") == {0}
        assert store.of(record(), 2) == [candidate(0), candidate(1)] and store.of(record(8), 2) == []
        assert store.of(record(), 1) == [candidate(0)]
        assert (store.prompt_tokens, store.completion_tokens) == (30, 6)
        store.append(candidate(2))
        with pytest.raises(CandidateError, match="another question"):
            store.numbers(record(), "other")
    with Candidates(path) as store:
        assert store.numbers(record(), "q") == {0, 1, 2}


def test_a_file_that_holds_something_else(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"a": 1}\n{"b": 2}\n')
    with pytest.raises(CandidateError, match=r"c\.jsonl: line 1 is not a candidate"):
        Candidates(path)
    assert path.read_text() == '{"a": 1}\n{"b": 2}\n'


def test_two_at_once(tmp_path: Path) -> None:
    with Candidates(tmp_path / "c.jsonl"):
        code = (
            "import sys; from pathlib import Path; from onethinker_jax.data_pipeline.annotate.candidates import *\n"
            "try: Candidates(Path(sys.argv[1]))\nexcept CandidateError as error: print(error)"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "c.jsonl")]
        said = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=HANG_S).stdout
    assert re.fullmatch(r".*c\.jsonl: another process is writing to it\n", said)
