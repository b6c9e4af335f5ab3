"""The places of one stream of records, dealt anew to another number of hosts.

The stream is one order of records without end. Of n hosts, host i has the numbers i, i + n, i + 2n, … of it, and its
position p stands for number p·n + i. Of m hosts, number g goes to host g mod m, at position g // m: whatever host had
it before, a number that was not taken yet is taken once, and one that was taken is not taken again.
"""

from collections.abc import Mapping, Sequence
from typing import Any


def redeal_positions(places: Sequence[tuple[int, Sequence[int]]], hosts: int) -> list[tuple[int, list[int]]]:
    """The place of each of `hosts` hosts, from the places of all hosts before.

    A place is the next position of a host, and the earlier positions that it has still to take (pending), ascending.
    The new position of all hosts is the first multiple of `hosts` from which on no number was taken; the numbers before
    it that were not taken are pending.
    """
    before = len(places)
    position = -(-max(place for place, _ in places) * before // hosts)
    pending: list[list[int]] = [[] for _ in range(hosts)]
    for host, (place, left) in enumerate(places):
        skipped = range(place, -(-(position * hosts - host) // before))
        for turn in (*left, *skipped):
            number = turn * before + host
            pending[number % hosts].append(number // hosts)
    return [(position, sorted(turns)) for turns in pending]


def redeal_stream(stream: Mapping[str, Any], position: int, host: int, hosts: int) -> dict[str, Any]:
    """The state of host number `host` of `hosts` at a position, from that of any host before."""
    return {**stream, "position": position, "host": host, "hosts": hosts}


def redeal_batches(states: Sequence[Mapping[str, Any]], hosts: int) -> list[dict[str, Any]]:
    """States of `TrainingBatches` for `hosts` hosts, from those of all hosts before."""
    places = [(state["stream"]["position"], state["pending"]) for state in states]
    stream = states[0]["stream"]
    return [
        {"stream": redeal_stream(stream, position, host, hosts), "pending": pending}
        for host, (position, pending) in enumerate(redeal_positions(places, hosts))
    ]


def redeal_prompts(states: Sequence[Mapping[str, Any]], hosts: int) -> list[dict[str, Any]]:
    """States of `PromptStream` for `hosts` hosts, from those of all hosts before."""
    places = [(state["position"], state.get("pending", ())) for state in states]
    return [
        {**redeal_stream(states[0], position, host, hosts), "pending": pending}
        for host, (position, pending) in enumerate(redeal_positions(places, hosts))
    ]
