"""The file of candidates: lines that a crash cut off, other files, two processes at once."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.annotate.candidates import Candidate, CandidateError, Candidates
from onethinker_jax.data_pipeline.records.record import Record
from tests.waiting import HANG_S


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
