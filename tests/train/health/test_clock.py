"""A wall clock that jumps: durations come of monotonic clocks, and what is of the wall clock is only a time stamp."""

import ast
import itertools
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onethinker_jax.train.config.health import HealthSettings
from onethinker_jax.train.log.log import read_metrics
from tests.places import ROOT
from tests.train.rl.small_run import SETTINGS, is_timed, metrics, same
from tests.waiting import HANG_S

DAY = 86_400.0


def test_rl_on_a_clock_that_jumps(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days forth and back at every look: rates, seconds and the watchdog do not notice, nor does the result.

    Orbax waits by the wall clock for what it writes, as docs/health.md says: it sees the clock as it is.
    """
    settings = replace(SETTINGS, steps=3)
    whole = train(tmp_path / "whole", settings=settings)
    wall, looks = time.time, itertools.count()

    def jumping() -> float:
        if sys._getframe(1).f_globals["__name__"].startswith("orbax"):
            return wall()
        return wall() + DAY * (-3) ** (next(looks) % 5)

    monkeypatch.setattr(time, "time", jumping)
    watchful = HealthSettings(
        step_timeout_factor=2, step_timeout_seconds=HANG_S, first_step_timeout_seconds=HANG_S
    )
    same(train(tmp_path / "jumping", settings=settings, health=watchful), whole)
    assert metrics(tmp_path / "jumping") == metrics(tmp_path / "whole")
    rows = read_metrics(tmp_path / "jumping" / "metrics.jsonl")
    stamps = [row["time"] for row in rows]
    assert max(abs(a - b) for a, b in itertools.pairwise(stamps)) > DAY / 2
    for row in rows:
        for name, value in row.items():
            if is_timed(name) and name.startswith("seconds/"):
                assert 0 <= value < HANG_S, name
            if "_per_second" in name:
                assert value > 0, name


def test_only_time_stamps_ask_the_wall_clock() -> None:
    """The files of the trainer that do: of curves, and of the age of a run's folder."""
    stamps = {"log/event_file.py", "log/log.py", "pages/run_facts.py"}
    trainer = ROOT / "onethinker_jax" / "train"
    asking = {
        path.relative_to(trainer).as_posix()
        for path in trainer.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node) in ("time.time", "datetime.now", "datetime.utcnow")
    }
    assert asking == stamps
