"""No writer of ours fails on any text: what UTF-8, a page or a terminal cannot hold is escaped, and read back."""

import io
import json
import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

from onethinker_jax.command_line import parse
from onethinker_jax.data_pipeline.annotate.candidates import Candidate, Candidates
from onethinker_jax.data_pipeline.annotate.sft_files import SftFiles
from onethinker_jax.data_pipeline.check.__main__ import CheckSettings
from onethinker_jax.data_pipeline.drawing.html_file import write_html
from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.evaluate.answers.predictions import Prediction, read_predictions, write_predictions
from onethinker_jax.rewards.score import Score
from onethinker_jax.text_output import encodable, json_text, one_line, visible
from onethinker_jax.train.log.log import RunLog, read_metrics
from onethinker_jax.train.pages.page import write_document

# Every character that has broken a writer: halves of pairs, of a file name that is no UTF-8, NUL, an escape
# sequence, line ends that `splitlines` knows and JSON does not escape, brackets that Rich reads, tags.
ANY = "a\ud83d \udcff\0 \x1b[31m \x85\u2028\u2029\r\n\t[/b][bold] <b>&\\ \U0001f600 \ufeff"
SAFE = "a\\ud83d \\udcff\\x00 \\x1b[31m \\x85"


def record(problem_id: int | str = ANY) -> Record:
    return Record(problem_id, ANY, "image", "OCR", (), ANY, (Path("a.png"),), (), ANY)


def test_texts():
    assert encodable(ANY).encode() and json.loads(json_text({ANY: [ANY]})) == {ANY: [ANY]}
    assert visible(ANY).startswith(SAFE) and visible("é\n\t😀") == "é\n\t😀"
    assert not set("\n\r\t\u2028\u2029\x85\x1b\0") & set(one_line(ANY))
    assert json_text({"é": 1}, indent=2) == '{\n  "é": 1\n}'


def test_predictions(tmp_path):
    path = tmp_path / "predictions.jsonl"
    records = [record(), record(2)]
    write_predictions(path, [Prediction(one, ANY, Score(1.0, 1.0, 1.0, 0.0)) for one in records])
    read = read_predictions(path, records)
    assert [one.response for one in read] == [ANY, ANY] and read[0].record is records[0]


def test_quarantine_and_candidates(tmp_path):
    bad = BadRecords("skip", tmp_path / "bad.jsonl")
    bad.report(ValueError(ANY), file=os.fsdecode(b"a\xff.json"), row={ANY: ANY})
    (line,) = (tmp_path / "bad.jsonl").open(encoding="utf-8")
    assert json.loads(line) == {"reason": ANY, "file": "a\udcff.json", "row": {ANY: ANY}}
    candidate = Candidate(ANY, ANY, 0, "x", ANY, "stop", 1, 1, 0.5)
    with Candidates(tmp_path / "candidates.jsonl") as candidates:
        candidates.append(candidate)
    with Candidates(tmp_path / "candidates.jsonl") as candidates:
        assert candidates.of(record(), 1) == [candidate]
    with SftFiles(tmp_path) as files:
        files.add({"data_type": "image", "text": ANY})
        files.finish(lambda row: True)
    assert json.loads((tmp_path / "sft.json").read_text(encoding="utf-8"))[0]["text"] == ANY


@pytest.mark.parametrize("write", ["html_file", "document"])
def test_pages(tmp_path, write):
    path = tmp_path / "page.html"
    if write == "html_file":
        write_html(path, ANY, "", ANY)
    else:
        write_document(path, ANY, [ANY], styles=["page"])
    assert path.read_text(encoding="utf-8").count(SAFE) == 2


def test_the_run_log(tmp_path):
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    with RunLog(tmp_path, console=Console(file=shown, width=200)) as log:
        log.stage("sft", 2)
        log.metrics(1, {f"reward/{ANY}": 1.0, "loss": 0.5})
        log.info(ANY)
        log.warn(ANY)
        log.table(ANY, [ANY, "b"], [[ANY, 0.5]])
        log.stage("sft", 2, start_step=1)
    (row,) = read_metrics(tmp_path / "metrics.jsonl")
    assert row[f"reward/{ANY}"] == 1.0
    shown.flush()
    said = shown.buffer.getvalue().decode("ascii")
    assert said.count(SAFE) >= 3 and "\x1b" not in said
    assert list((tmp_path / "tensorboard" / "sft").iterdir())


def test_commands_print_any_text(monkeypatch):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    parse(CheckSettings, ["a.json"], prog="check", description=None)
    for stream in streams:
        stream.write("é \ud83d")
        stream.flush()
        assert stream.buffer.getvalue() == b"\\xe9 \\ud83d"
