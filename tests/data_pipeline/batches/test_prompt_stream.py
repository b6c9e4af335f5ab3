"""Prompts made ahead: the same stream, errors in their turn, exact resume, a bound, and no thread left."""

import itertools
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onethinker_jax.data_pipeline.batches.loader import RecordStream, StreamError
from onethinker_jax.data_pipeline.batches.packing import PackingError
from onethinker_jax.data_pipeline.batches.prompt_stream import PromptStream
from onethinker_jax.data_pipeline.media.decoding import MediaError
from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.records.record import Record, RecordError
from tests.waiting import HANG_S

BAD = {2: MediaError("2.png: not a readable image"), 5: PackingError("record 5: 900 tokens do not fit")}
RECORDS = [
    Record(i, "?", "image", "OCR", (), "<answer>x</answer>", (Path("a.png"),), (), "s") for i in range(8)
]
WAYS = [(0, 0), (0, 3), (4, 0), (4, 1), (4, 30)]  # workers, ahead


class Making:
    """Makes "prompts", a record's number each; notes how many, and waits until a given number was asked for."""

    def __init__(self, bad: dict[Any, Exception] | None = None, hold: Callable[[], Any] = lambda: None):
        self.bad, self.hold, self.count = bad or {}, hold, 0
        self.changed = threading.Condition()

    def __call__(self, record: Record) -> Any:
        with self.changed:
            self.count += 1
            self.changed.notify_all()
        self.hold()
        if record.problem_id in self.bad:
            raise self.bad[record.problem_id]
        return record.problem_id

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.count >= count, HANG_S), f"{self.count} of {count}"


def stream_of(make: Making, bad: BadRecords | None = None, *, seed: int = 0, **options: int) -> PromptStream:
    return PromptStream(RecordStream(RECORDS, seed=seed, bad=bad), make, **options)  # type: ignore[arg-type]


def take(prompts: PromptStream, count: int) -> list[tuple[int, Record, Any]]:
    return [prompts.next(count - number) for number in range(count)]


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prompts")]


@pytest.mark.parametrize(("workers", "ahead"), WAYS)
def test_bad_records_are_left_out_in_order(tmp_path, workers, ahead):
    """Workers and what is made ahead change neither the prompts nor the quarantine file."""
    quarantine = tmp_path / "q" / "rl.jsonl"
    bad = BadRecords("skip", quarantine)
    with stream_of(Making(BAD), bad, workers=workers, ahead=ahead) as prompts:
        assert prompts.state()["position"] == 0
        first = take(prompts, 6)  # one epoch: 8 records, 2 of them bad
        assert sorted(prompt for _, _, prompt in first) == [0, 1, 3, 4, 6, 7]
        entries = [json.loads(line) for line in quarantine.read_text().splitlines()]
        order = RecordStream(RECORDS, seed=0)
        drawn = [order.next().problem_id for _ in range(prompts.state()["position"])]
        assert [entry["problem_id"] for entry in entries] == [number for number in drawn if number in BAD]
        assert all(entry["reason"] == str(BAD[entry["problem_id"]]) for entry in entries)
        assert bad.count == len(entries)
        both = first + take(prompts, 30)
    for position, record, prompt in both:
        assert order.at(position) is record and record.problem_id == prompt
    positions = [position for position, _, _ in both]
    left_out = set(range(positions[-1])) - set(positions)
    assert positions == sorted(positions) and {order.at(one).problem_id for one in left_out} == {2, 5}


@pytest.mark.parametrize(("workers", "ahead"), WAYS)
@pytest.mark.parametrize("error", [MediaError("5.png: broken"), ValueError("a bug")])
def test_an_error_comes_in_its_turn(workers, ahead, error):
    """And again, when the prompt is asked for again: it is neither lost nor passed over."""
    order = RecordStream(RECORDS, seed=0)
    turn = next(position for position in itertools.count() if order.at(position).problem_id == 5)
    with stream_of(Making({5: error}), workers=workers, ahead=ahead) as prompts:
        assert [position for position, _, _ in take(prompts, turn)] == list(range(turn))
        for _ in range(2):
            with pytest.raises(type(error), match=str(error)):
                prompts.next()
            assert prompts.state()["position"] == turn


@pytest.mark.parametrize(("workers", "ahead"), WAYS)
def test_records_that_are_all_bad(tmp_path, workers, ahead):
    nothing = Making({i: MediaError(f"{i}: broken") for i in range(8)})
    bad = BadRecords("skip", tmp_path / "rl.jsonl")
    with stream_of(nothing, bad, workers=workers, ahead=ahead) as prompts:
        with pytest.raises(RecordError, match="none of 8 records can be used"):
            prompts.next()
        assert bad.count == 17


@pytest.mark.parametrize(("workers", "ahead"), WAYS)
def test_resume_is_exact(workers, ahead):
    with stream_of(Making(), workers=workers, ahead=ahead) as prompts:
        states, whole = [prompts.state()], []
        for _ in range(20):
            whole.append(prompts.next())
            states.append(json.loads(json.dumps(prompts.state())))
        for position in (3, 17, 0):  # back, forth, and what was made ahead is of another position
            prompts.restore(states[position])
            assert prompts.state() == states[position]
            assert take(prompts, 3) == whole[position : position + 3]
        prompts.close()
        assert take(prompts, 4) == whole[3:7]  # closed and used again: goes on
    with stream_of(Making()) as fresh:
        fresh.restore(states[11])
        assert take(fresh, 9) == whole[11:]
    with pytest.raises(StreamError, match="another seed"):
        stream_of(Making(), seed=1).restore(states[1])


@pytest.mark.parametrize("workers", [0, 4])
def test_so_many_are_made_ahead_and_no_more(workers):
    make = Making()
    with stream_of(make, workers=workers, ahead=5) as prompts:
        assert make.count == 0
        for handed_out in (1, 2, 3):
            prompts.next()
            make.wait_for(handed_out + 5)
        take(prompts, 4)
        make.wait_for(12)
        prompts.close()  # waits for the threads
        assert make.count == 12
    make = Making()
    with stream_of(make, workers=workers, ahead=0) as prompts:
        for handed_out in (1, 2, 3):
            prompts.next()
            assert make.count == handed_out


def test_what_is_wanted_is_made_at_once():
    """Else the barrier would not let them through."""
    make = Making(hold=threading.Barrier(3, timeout=HANG_S).wait)
    with stream_of(make, workers=3) as prompts:
        assert len(take(prompts, 3)) == 3
        assert make.count == 3


@pytest.mark.parametrize("workers", [0, 4])
def test_close_leaves_no_thread(workers):
    """Nor does an interrupt, with prompts waiting to be made."""
    going = threading.Event()
    make = Making(hold=going.wait)
    with pytest.raises(KeyboardInterrupt), stream_of(make, workers=workers, ahead=9) as prompts:
        release = threading.Timer(0.1, going.set)
        release.start()
        prompts.next()
        assert running()
        raise KeyboardInterrupt
    assert not running()
    assert make.count <= 10


def test_numbers_that_cannot_be():
    with pytest.raises(ValueError, match=r"workers and ahead must be at least 0, got 0, -1"):
        stream_of(Making(), ahead=-1)
