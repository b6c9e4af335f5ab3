"""Streams are deterministic and resume exactly; training batches too, with work done ahead in a thread."""

import itertools
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from onethinker_jax.data_pipeline.loader import RecordStream, TrainingBatches
from onethinker_jax.data_pipeline.media import MediaError
from onethinker_jax.data_pipeline.packing import PackingError, fill_of
from onethinker_jax.data_pipeline.processor import Processor
from onethinker_jax.data_pipeline.records import Record, RecordError, read_records, task_of
from tests.data_pipeline.making import sft_row, write_image, write_rows


def make_batches(
    records: list[Record], processor: Processor, *, seed: int = 0, **options: Any
) -> TrainingBatches:
    shape = {"rows": 2, "tokens": 160, "patches": 96}
    return TrainingBatches(RecordStream(records, seed=seed), processor, **{**shape, **options})


def plain_records(count: int) -> list[Record]:
    kinds = itertools.cycle(["OCR", "math", "math"])
    return [
        Record(i, f"question {i}", "image", next(kinds), (), "", (Path("a.png"),), (), "test")
        for i in range(count)
    ]


@pytest.fixture
def records(tmp_path):
    sizes = [(64, 64), (64, 96), (128, 96)]
    for number, size in enumerate(sizes):
        write_image(tmp_path / f"{number}.png", *size, seed=number)
    rows = [
        sft_row(
            "What is it? " * (1 + i % 4), f"Star {i}. " * (1 + i % 3), images=[f"{i % 3}.png"], problem_id=i
        )
        for i in range(23)
    ]
    return read_records(write_rows(tmp_path / "sft.json", rows))


def take(iterator, count: int) -> list:
    return [next(iterator) for _ in range(count)]


def equal(one, two) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_stream_is_shuffled_anew_every_epoch():
    records = plain_records(50)
    drawn = [r.problem_id for r in take(RecordStream(records, seed=1), 150)]
    epochs = np.array(drawn).reshape(3, 50)
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert (epochs[0] != epochs[1]).any() and (epochs[0] != np.arange(50)).any()
    again = [r.problem_id for r in take(RecordStream(records, seed=1), 150)]
    assert again == drawn
    assert [r.problem_id for r in take(RecordStream(records, seed=2), 50)] != epochs[0].tolist()


def test_stream_resumes_exactly():
    records = plain_records(40)
    stream = RecordStream(records, seed=3)
    take(stream, 67)
    state = json.loads(json.dumps(stream.state()))
    expected = take(stream, 100)
    fresh = RecordStream(records, seed=3)
    fresh.restore(state)
    assert take(fresh, 100) == expected and fresh.position == 167
    for other in (RecordStream(records, seed=4), RecordStream(records[:-1], seed=3)):
        with pytest.raises(ValueError, match="the saved stream had another"):
            other.restore(state)


def test_weights_set_the_share_of_each_task():
    records = plain_records(60)  # 20 OCR, 40 math
    stream = RecordStream(records, seed=0, weights={"OCR (image)": 3.0, "math (image)": 1.0})
    drawn = take(stream, 240)
    assert Counter(map(task_of, drawn)) == {"OCR (image)": 180, "math (image)": 60}
    ocr = [r.problem_id for r in drawn if r.problem_type == "OCR"]
    assert len(set(ocr[:20])) == 20  # epochs of its own
    only = RecordStream(records, seed=0, weights={"OCR (image)": 1.0, "math (image)": 0.0})
    assert {r.problem_type for r in take(only, 50)} == {"OCR"}
    bad = [({"OCR (image)": 1.0}, "no weight for math"), ({"OCR (image)": 0, "math (image)": 0}, "one above")]
    bad += [({"OCR (image)": 1, "math (image)": 1, "x": 1}, "weight for x, which no record has")]
    for weights, message in bad:
        with pytest.raises(ValueError, match=message):
            RecordStream(records, seed=0, weights=weights)
    with pytest.raises(ValueError, match="at least one record"):
        RecordStream([], seed=0)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_batches_resume_exactly(processor, records, prefetch):
    def fresh() -> TrainingBatches:
        return make_batches(records, processor, seed=5, window=12, prefetch=prefetch)

    with fresh() as batches:
        whole, states = [], [batches.state()]
        for _ in range(12):
            whole.append(next(batches))
            states.append(json.loads(json.dumps(batches.state())))
        assert batches.state()["pending"], "the window should hold examples over"
        batches.restore(states[3])
        assert equal(next(batches), whole[3])
        batches.close()
        assert equal(next(batches), whole[4])  # closed and used again: goes on
    for place in (0, 1, 7):
        with fresh() as resumed:
            resumed.restore(states[place])
            assert equal(take(resumed, 5), whole[place : place + 5])
    assert np.mean([fill_of(batch)[0] for batch in whole]) > 0.8
    with pytest.raises(ValueError, match="another seed"), fresh() as other:
        other.restore({**states[1], "stream": {**states[1]["stream"], "seed": 6}})


def test_every_record_is_placed_once_an_epoch(processor, records):
    """No example is lost or doubled by the window."""
    wanted = Counter(processor.training(record).tokens.tobytes() for record in records)
    seen: Counter[bytes] = Counter()
    with make_batches(records, processor, window=8) as batches:
        while sum(seen.values()) < 5 * len(records):
            inputs = next(batches).inputs
            for row, segments in enumerate(np.asarray(inputs.segment_ids)):
                for segment in range(1, segments.max() + 1):
                    seen[inputs.tokens[row, segments == segment].tobytes()] += 1
    assert set(seen) == set(wanted)
    assert max(seen.values()) - min(seen.values()) <= 2  # an epoch begun, and examples still waiting


def test_errors_of_the_thread_reach_the_consumer(processor, records):
    records[5].images[0].write_bytes(b"broken")
    batches = make_batches(records, processor)
    for _ in range(2):  # asked again, it says the same
        with pytest.raises(MediaError, match=r"2\.png"):
            take(batches, 50)
    batches.close()
    small = make_batches(records[:1], processor, rows=1, tokens=20, patches=96)
    with pytest.raises(PackingError, match=r"record 0: \d+ tokens do not fit in a row of 20"), small:
        next(small)


def test_bad_examples_can_be_skipped(processor, records, tmp_path):
    records[5].images[0].write_bytes(b"broken")
    quarantine = tmp_path / "bad.jsonl"
    with make_batches(
        records,
        processor,
        on_bad_record="skip",
        quarantine=quarantine,
        prefetch=0,
        window=23,
    ) as batches:
        next(batches)
        entries = [json.loads(line) for line in quarantine.read_text().splitlines()]
        assert batches.skipped == len(entries) > 0 and "2.png" in entries[0]["reason"]
    for record in records:
        record.images[0].write_bytes(b"broken")
    none = make_batches(records, processor, on_bad_record="skip")
    with pytest.raises(RecordError, match="none of 23 records can be used"), none:
        next(none)


def test_close_leaves_no_thread(processor, records):
    with make_batches(records, processor) as batches:
        next(batches)
        assert any("training-batches" in thread.name for thread in threading.enumerate())
    assert not any("training-batches" in thread.name for thread in threading.enumerate())
