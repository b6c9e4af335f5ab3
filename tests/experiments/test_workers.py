"""Trials side by side in processes of their own: their cores, their ends, and what is said of one that fails."""

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from experiments.trial_process import in_process
from experiments.workers import Job, run_jobs
from onethinker_jax.errors import UserError
from onethinker_jax.train.config.presets import smoke
from onethinker_jax.train.config.run import TrainConfig
from tests.waiting import wait_until


def meet(config: TrainConfig, cores: Sequence[int], log: Path) -> None:
    """Waits for the other job's file: it ends only where both run at a time."""

    def run() -> None:
        mine, others = (
            config.out / name for name in sorted(["a", "b"], key=lambda name: name != config.name)
        )
        mine.write_text(f"{sorted(os.sched_getaffinity(0))} {os.getpgid(0) == os.getpid()}")
        wait_until(others.exists)

    in_process(run, cores, log)


def fail(config: TrainConfig, cores: Sequence[int], log: Path) -> None:
    def run() -> None:
        raise UserError(f"{config.name}: no luck")

    in_process(run, cores, log)


def test_jobs_run_side_by_side_and_one_that_fails_is_told(tmp_path: Path) -> None:
    prepared: list[str] = []
    core = min(os.sched_getaffinity(0))
    jobs = [
        Job(
            name,
            work,
            replace(smoke(), name=name, out=tmp_path),
            tmp_path / f"{name}.log",
            lambda config: prepared.append(config.name),
        )
        for name, work in (("a", meet), ("b", meet), ("c", fail))
    ]
    began = time.monotonic()
    with closing(run_jobs(jobs, [[core], [core]])) as ends:
        ended = {one.job.name: one for one in ends}
    assert {name: one.status for name, one in ended.items()} == {"a": 0, "b": 0, "c": 1}
    assert all(0 < one.seconds <= time.monotonic() - began for one in ended.values())
    assert ended["c"].reason == "c: no luck"
    assert {(tmp_path / name).read_text() for name in "ab"} == {f"[{core}] True"}
    assert prepared == ["a", "b", "c"]
