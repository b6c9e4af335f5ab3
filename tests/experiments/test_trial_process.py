"""What a trial's own process sets before its run begins."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from experiments import ablation, trial_process
from experiments.workers import Job, core_shares, run_jobs
from onethinker_jax.train.config.presets import smoke
from onethinker_jax.train.config.run import TrainConfig


def say_what_is_kept(config: TrainConfig, cores: Sequence[int], log: Path) -> None:
    """A trial that writes from how many seconds of compilation on a program is kept."""

    def run() -> None:
        import jax

        assert ablation.PROG  # the command's module, with JAX, comes first in its trials' processes
        sys.stdout.write(f"{jax.config.values[trial_process.KEPT_FROM.lower()]}\n")

    trial_process.in_process(run, cores, log)


@pytest.mark.parametrize(("given", "kept_from"), [(None, "0.0"), ("2.5", "2.5")])
def test_small_programs_are_kept(
    given: str | None, kept_from: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every trial, whose process has loaded JAX before it begins; a variable of the user's own holds."""
    if given is None:
        monkeypatch.delenv(trial_process.KEPT_FROM, raising=False)
    else:
        monkeypatch.setenv(trial_process.KEPT_FROM, given)
    log = tmp_path / "trial.log"
    (ended,) = run_jobs([Job("trial", say_what_is_kept, smoke(), log)], core_shares(1))
    assert ended.status == 0
    assert log.read_text().splitlines() == [kept_from]
