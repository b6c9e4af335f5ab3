"""Annotation that cannot go on: endpoints of no use, bad records, a folder of other questions."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.data_pipeline.annotate.running import CONCURRENCY, Run
from tests.data_pipeline.annotate.scripted_teacher import worked
from tests.data_pipeline.making import rl_row, sft_row, write_image, write_rows
from tests.endpoint.scripted_endpoint import Response, ScriptedEndpoint, failure


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
