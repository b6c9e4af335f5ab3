"""Prompts of a rollout: records that turn out to be bad are raised, or left out and another one drawn."""

import json
from pathlib import Path
from typing import Any

import pytest

from onethinker_jax.data_pipeline.bad_records import BadRecords
from onethinker_jax.data_pipeline.loader import RecordStream
from onethinker_jax.data_pipeline.media import MediaError
from onethinker_jax.data_pipeline.packing import PackingError
from onethinker_jax.data_pipeline.records import Record, RecordError
from onethinker_jax.train.rollouts import _next_prompts

BAD = {2: MediaError("2.png: not a readable image"), 5: PackingError("record 5: 900 tokens do not fit")}


class PromptsOf:
    """Stands for a sampler: a prompt is the record's number."""

    def __init__(self, bad: dict[Any, Exception]):
        self.bad = bad

    def prompt(self, record: Record) -> Any:
        if record.problem_id in self.bad:
            raise self.bad[record.problem_id]
        return record.problem_id


def stream_of(bad: BadRecords | None = None) -> RecordStream:
    records = [
        Record(i, "?", "image", "OCR", (), "<answer>x</answer>", (Path("a.png"),), (), "s") for i in range(8)
    ]
    return RecordStream(records, seed=0, bad=bad)


def test_bad_records_are_left_out_and_others_drawn(tmp_path):
    quarantine = tmp_path / "q" / "rl.jsonl"
    stream = stream_of(BadRecords("skip", quarantine))
    sampler: Any = PromptsOf(BAD)
    prompts: Any
    positions, records, prompts = _next_prompts(stream, 6, sampler)  # one epoch: 8 records, 2 of them bad
    assert sorted(prompts) == [0, 1, 3, 4, 6, 7] == sorted(record.problem_id for record in records)
    assert [stream.at(position) for position in positions] == records
    entries = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert {entry["problem_id"]: entry["reason"] for entry in entries} == {i: str(e) for i, e in BAD.items()}
    assert stream.bad.count == 2
    assert _next_prompts(stream, 6, sampler)[0][0] == 8, "the next draw goes on behind the last"


def test_by_default_a_bad_record_stops(tmp_path):
    sampler: Any = PromptsOf(BAD)
    with pytest.raises((MediaError, PackingError)):
        _next_prompts(stream_of(), 8, sampler)
    nothing: Any = PromptsOf({i: MediaError(f"{i}: broken") for i in range(8)})
    with pytest.raises(RecordError, match="none of 8 records can be used"):
        _next_prompts(stream_of(BadRecords("skip", tmp_path / "rl.jsonl")), 1, nothing)
