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

from onethinker_jax.data_pipeline.batches.bin_packing import BatchShape
from onethinker_jax.data_pipeline.batches.loader import RecordStream, StreamError, TrainingBatches
from onethinker_jax.data_pipeline.batches.mixture import Mixture
from onethinker_jax.data_pipeline.batches.packing import PackingError, packing_efficiency
from onethinker_jax.data_pipeline.media.decoding import MediaError
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.records.record import Record, RecordError, read_records
from tests.data_pipeline.making import sft_row, write_image, write_rows


def make_batches(
    records: list[Record], processor: Processor, *, seed: int = 0, **options: Any
) -> TrainingBatches:
    sizes = {"rows": 2, "tokens": 160, "patches": 96}
    shape = BatchShape(**{name: options.pop(name, size) for name, size in sizes.items()})
    return TrainingBatches(RecordStream(records, seed=seed), processor, shape, **options)


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
    others = {
        "seed": RecordStream(records, seed=4),
        "records": RecordStream(records[:-1], seed=3),
        "mixture": RecordStream(records, seed=3, mixture=Mixture({"math (image)": 2.0})),
    }
    for name, other in others.items():
        with pytest.raises(StreamError, match=f"the saved stream had another {name}"):
            other.restore(state)
    with pytest.raises(ValueError, match="at least one record"):
        RecordStream([], seed=0)


def test_several_hosts_share_an_epoch():
    records = plain_records(51)
    alone = [r.problem_id for r in take(RecordStream(records, seed=1), 102)]
    for hosts in (2, 4):
        streams = [RecordStream(records, seed=1, host=i, hosts=hosts) for i in range(hosts)]
        drawn = [[r.problem_id for r in take(stream, 102 // hosts)] for stream in streams]
        dealt = [number for turn in zip(*drawn, strict=True) for number in turn]
        assert dealt == alone[: len(dealt)]  # so an epoch is every record once
        assert not set(dealt[:51:hosts]) & set(dealt[1:51:hosts])
    state = RecordStream(records, seed=1, host=0, hosts=2).state()
    with pytest.raises(StreamError, match=r"another host \(0, now 1\)"):
        RecordStream(records, seed=1, host=1, hosts=2).restore(state)
    with pytest.raises(StreamError, match=r"another hosts \(2, now 1\)"):
        RecordStream(records, seed=1).restore(state)
    with pytest.raises(ValueError, match="host 2 is not one of 2"):
        RecordStream(records, seed=1, host=2, hosts=2)


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
    for position in (0, 1, 7):
        with fresh() as resumed:
            resumed.restore(states[position])
            assert equal(take(resumed, 5), whole[position : position + 5])
    assert np.mean([packing_efficiency(batch)[0] for batch in whole]) > 0.8
    with pytest.raises(StreamError, match="another seed"), fresh() as other:
        other.restore({**states[1], "stream": {**states[1]["stream"], "seed": 6}})


@pytest.mark.parametrize("strategy", ["first_fit", "best_fit"])
def test_workers_do_not_change_the_stream(processor, records, strategy):
    """Nor does restoring with another number of them, nor what is decoded in processes."""
    options: dict[str, Any] = {"seed": 3, "window": 12, "strategy": strategy}
    with make_batches(records, processor, prefetch=0, **options) as batches:
        whole, states = [], []
        for _ in range(8):
            whole.append(next(batches))
            states.append(batches.state())
    with make_batches(records, processor, workers=4, **options) as batches:
        for batch, state in zip(whole, states, strict=True):
            assert equal(next(batches), batch) and batches.state() == state
    with make_batches(records, processor, workers=3, prefetch=0, **options) as batches:
        batches.restore(states[2])
        assert equal(take(batches, 5), whole[3:])


def test_bad_records_are_reported_in_order(processor, records, tmp_path):
    """However many threads met them."""
    for number in (4, 5):
        records[number].images[0].write_bytes(b"broken")  # 1.png and 2.png: two records of three
    said = []
    for workers in (0, 4):
        quarantine = tmp_path / f"{workers}.jsonl"
        options: dict[str, Any] = {"on_bad_record": "skip", "quarantine": quarantine, "prefetch": 0}
        with make_batches(records, processor, workers=workers, window=6, **options) as batches:
            take(batches, 3)
        said.append(quarantine.read_text())
    assert said[0] == said[1] and said[0].count("\n") > 3


def test_every_record_is_packed_once_an_epoch(processor, records):
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
    with (
        pytest.raises(PackingError, match=r"record 1 \(problem_id 0\): \d+ tokens do not fit in a row of 20"),
        small,
    ):
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


@pytest.mark.parametrize("rows", [1, 3])
def test_a_state_goes_on_with_other_rows(records: list[Record], processor: Processor, rows: int) -> None:
    """What was handed out before and after is the stream up to its position, less what still waits to be packed."""
    handed: list[Record] = []
    with make_batches(records, processor, window=8) as batches:
        begun = batches.state()
        take(batches, 4)
        saved = batches.state()
        handed += batches.records(begun, saved)
    with make_batches(records, processor, window=8, rows=rows) as batches:
        batches.restore(json.loads(json.dumps(saved)))
        assert {batch.targets.shape[0] for batch in take(batches, 4)} == {rows}
        end = batches.state()
        handed += batches.records(saved, end)
    stream = RecordStream(records, seed=0)
    turns = set(range(end["stream"]["position"])) - set(end["pending"])
    assert saved["pending"] and Counter(handed) == Counter(stream.at(turn) for turn in turns)
