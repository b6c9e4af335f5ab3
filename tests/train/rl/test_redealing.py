"""What processes remember of their rollouts, dealt anew: groups go with their records, and no statistic is lost."""

from collections import Counter
from typing import Any

import pytest

from onethinker_jax.data_pipeline.batches.loader import RecordStream
from onethinker_jax.processes import HostError
from onethinker_jax.train.rl.redealing import redeal_rollouts
from tests.train.rl.test_rollouts import RECORDS


def part(host: int, hosts: int, position: int, waiting: list[int], ahead: list[int] | None = None) -> Any:
    stream = {**RecordStream(RECORDS, seed=3, host=host, hosts=hosts).state(), "position": position}

    def group(at: int) -> dict[str, Any]:
        return {"position": at, "of": number_of(host, hosts, at)}

    made = None
    if ahead is not None:
        drawn = [{"stats": number_of(host, hosts, at)} for at in ahead]
        groups = [group(at) for at in ahead]
        made = {"groups": groups[:2], "surplus": groups[2:], "drawn": drawn, "metrics": {"rounds": 2.0}}
    waits = [group(at) for at in waiting]
    return {"stream": {**stream, "pending": []}, "waiting": waits, "ahead": made, "behaviour": False}


def number_of(host: int, hosts: int, position: int) -> int:
    """The number of the record, of which a group is found again."""
    return int(RecordStream(RECORDS, seed=3, host=host, hosts=hosts).at(position).problem_id)


@pytest.mark.parametrize("hosts", [1, 2, 3])
def test_groups_go_where_their_records_go(hosts: int) -> None:
    before = [part(0, 2, 6, [1, 4]), part(1, 2, 9, [0], [6, 7, 8])]
    after = redeal_rollouts(before, hosts)
    groups = [(host, group) for host, one in enumerate(after) for group in one["waiting"]]
    assert len(groups) == 6
    for host, group in groups:
        assert number_of(host, hosts, group["position"]) == group["of"]
    assert all(one["ahead"] is None and one["carried"]["rounds"] == 2 for one in after)
    told = Counter(stats["stats"] for one in after for stats in one["carried"]["drawn"])
    assert told == Counter(number_of(1, 2, at) for at in (6, 7, 8))
    for one in redeal_rollouts(after, 2):  # and once more
        assert one["carried"]["rounds"] == 2


def test_groups_that_a_cut_step_had_learnt_from_are_left_out() -> None:
    before = [part(0, 1, 9, [], [6, 7, 8])]
    before[0]["ahead"]["begun"] = {"groups": 1}
    after = redeal_rollouts(before, 2)
    assert {group["of"] for one in after for group in one["waiting"]} == {
        number_of(0, 1, at) for at in (7, 8)
    }
    assert sum(len(one["carried"]["drawn"]) for one in after) == 3


def test_overlapping_rollouts_stay_with_one_process() -> None:
    with pytest.raises(HostError, match=r"rl.overlap, which needs one process"):
        redeal_rollouts([{**part(0, 1, 3, []), "behaviour": True}], 2)
