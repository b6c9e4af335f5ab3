"""What the processes of a run remember of their rollouts, dealt anew to another number of processes.

A prompt goes where its record's number in the order of all goes (`data_pipeline/batches/redealing.py`), and a group
that waits goes with it. A rollout that some processes had made ahead is taken apart: its groups wait, and its
statistics are carried to the step's, so that no sample is missing in the metrics. So is one whose step was cut: the
groups that its minibatches had trained on are left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from onethinker_jax.data_pipeline.batches.redealing import redeal_prompts
from onethinker_jax.processes import HostError


def redeal_rollouts(parts: Sequence[Mapping[str, Any]], hosts: int) -> list[dict[str, Any]]:
    """States of `Rollouts` for `hosts` processes, from those of all processes before.

    Raises HostError where rollouts overlap updates: these are of one process, and stay so.
    """
    if any(part["behaviour"] for part in parts):
        raise HostError("the checkpoint is of a run with rl.overlap, which needs one process")
    waiting: list[list[tuple[int, dict[str, Any]]]] = [[] for _ in range(hosts)]
    drawn: list[list[dict[str, Any]]] = [[] for _ in range(hosts)]
    rounds = 0
    for host, part in enumerate(parts):
        ahead = part["ahead"] or {"groups": [], "surplus": [], "drawn": [], "metrics": {"rounds": 0}}
        carried = part.get("carried", {"drawn": [], "rounds": 0})
        learnt_from = (ahead.get("begun") or {"groups": 0})["groups"]
        for group in (*part["waiting"], *ahead["groups"][learnt_from:], *ahead["surplus"]):
            number = group["position"] * len(parts) + host
            waiting[number % hosts].append((number, {**group, "position": number // hosts}))
        drawn[host % hosts] += [*carried["drawn"], *ahead["drawn"]]
        rounds = max(rounds, carried["rounds"], int(ahead["metrics"]["rounds"]))
    streams = redeal_prompts([part["stream"] for part in parts], hosts)
    return [
        {
            "stream": streams[host],
            "waiting": [group for _, group in sorted(waiting[host], key=lambda numbered: numbered[0])],
            "ahead": None,
            "behaviour": False,
            "carried": {"drawn": drawn[host], "rounds": rounds},
        }
        for host in range(hosts)
    ]
