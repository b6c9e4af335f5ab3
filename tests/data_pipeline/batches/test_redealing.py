"""A stream dealt anew to another number of hosts: every record that was not taken yet is taken once, no other again."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onethinker_jax.data_pipeline.batches.bin_packing import BatchShape
from onethinker_jax.data_pipeline.batches.loader import RecordStream, StreamError, TrainingBatches
from onethinker_jax.data_pipeline.batches.prompt_stream import PromptStream
from onethinker_jax.data_pipeline.batches.redealing import redeal_batches, redeal_positions, redeal_prompts
from onethinker_jax.data_pipeline.records.record import Record, read_records
from tests.data_pipeline.making import sft_row, write_image, write_rows

Places = list[tuple[int, list[int]]]


@st.composite
def places(draw: st.DrawFn) -> Places:
    """Where each of some hosts may be: its next position, and earlier ones that it has not taken."""
    found = []
    for _ in range(draw(st.integers(1, 5))):
        position = draw(st.integers(0, 12))
        earlier = st.sets(st.integers(0, position - 1), max_size=4) if position else st.just(set[int]())
        found.append((position, sorted(draw(earlier))))
    return found


def untaken(where: Places, below: int) -> list[int]:
    """Numbers of the order below `below` that no host has taken, in the order in which hosts would take them."""
    hosts = len(where)
    turns = [[*left, *range(position, below)] for position, left in where]
    return sorted(t * hosts + host for host in range(hosts) for t in turns[host] if t * hosts + host < below)


@given(places(), st.integers(1, 5))
def test_every_number_is_taken_once(before: Places, hosts: int) -> None:
    after = redeal_positions(before, hosts)
    assert len(after) == hosts
    assert untaken(after, 100) == untaken(before, 100)
    assert all(turn < position for position, left in after for turn in left)
    assert len({position for position, _ in after}) == 1


def test_by_hand() -> None:
    """Of two hosts the first has taken 0, 2, 4, the second 1 and 7, having left out 3 and 5: so 3, 5, 6 are left."""
    assert redeal_positions([(3, []), (4, [1, 2])], 1) == [(8, [3, 5, 6])]
    assert redeal_positions([(3, []), (4, [1, 2])], 3) == [(3, [1, 2]), (3, []), (3, [1, 2])]  # 8 too
    assert redeal_positions([(8, [3, 5, 6])], 2) == [(4, [3]), (4, [1, 2])]


def records_of(number: int) -> list[Record]:
    return [Record(i, "?", "text", "math", (), "<answer>1</answer>", (), (), "made") for i in range(number)]


def prompts_of(records: list[Record], hosts: int) -> list[PromptStream]:
    made: Any = lambda record: record.problem_id  # noqa: E731
    streams = (RecordStream(records, seed=5, host=host, hosts=hosts) for host in range(hosts))
    return [PromptStream(stream, made, workers=2, ahead=3) for stream in streams]


def test_prompts_of_three_processes_of_one_and_of_two() -> None:
    """They take different numbers of prompts each time; after three epochs every record was taken three times."""
    records, taken = records_of(30), []
    states: list[dict[str, Any]] | None = None
    for takes in ((5, 9, 2), (7,), (8, 3)):
        streams = prompts_of(records, len(takes))
        if states is not None:
            with pytest.raises(StreamError, match="another host"):
                streams[0].restore(states[0])
            for stream, state in zip(streams, redeal_prompts(states, len(takes)), strict=True):
                stream.restore(json.loads(json.dumps(state)))
        for stream, number in zip(streams, takes, strict=True):
            taken += [stream.next()[2] for _ in range(number)]
        states = [stream.state() for stream in streams]
        for stream in streams:
            stream.close()
    (alone,) = prompts_of(records, 1)
    alone.restore(redeal_prompts(states or [], 1)[0])
    taken += [alone.next()[2] for _ in range(90 - len(taken))]
    alone.close()
    assert sorted(taken) == sorted(list(range(30)) * 3)


def test_training_batches_of_two_processes_go_on_in_one_and_in_three(tmp_path: Path, processor) -> None:
    """Windows differ, so that each process has examples pending: none of an epoch is trained on twice, none never."""
    write_image(tmp_path / "a.png", 64, 64)
    rows = [
        sft_row(f"What is {i}? " * (1 + i % 4), f"Star {i}.", images=["a.png"], problem_id=i)
        for i in range(40)
    ]
    records = read_records(write_rows(tmp_path / "sft.json", rows))

    def batches(hosts: int) -> list[TrainingBatches]:
        streams = (RecordStream(records, seed=0, host=host, hosts=hosts) for host in range(hosts))
        shape = BatchShape(rows=1, tokens=160, patches=96)
        return [TrainingBatches(s, processor, shape, window=5 + i, prefetch=0) for i, s in enumerate(streams)]

    def taken(part: TrainingBatches, hosts: int, host: int) -> set[int]:
        """Numbers of the order that a process has trained on."""
        state = part.state()
        return {t * hosts + host for t in set(range(state["stream"]["position"])) - set(state["pending"])}

    first = batches(2)
    for part in first:
        list(islice(part, 3))
    done = taken(first[0], 2, 0) | taken(first[1], 2, 1)
    states = [part.state() for part in first]
    assert all(state["pending"] for state in states)
    for hosts in (1, 3):
        parts = batches(hosts)
        for part, state in zip(parts, redeal_batches(states, hosts), strict=True):
            part.restore(json.loads(json.dumps(state)))
        assert set.union(*(taken(part, hosts, host) for host, part in enumerate(parts))) == done
        while not (now := set.union(*(taken(p, hosts, host) for host, p in enumerate(parts)))) >= set(
            range(40)
        ):
            for part in parts:
                next(part)
        assert now > done
        for part in (*parts, *first):
            part.close()
