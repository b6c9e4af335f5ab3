"""SIGKILL for the trainer, also while it writes a checkpoint, and for each process it has: the same bits at the end."""

import logging
from pathlib import Path

import pytest

from tests.train.faults.corpus import write_corpus
from tests.train.faults.harness import CHECKPOINT, MODULES, TRAINER, Harness, Kill, planned
from tests.train.rl.small_run import metrics

SEED = 20
FLAGS = (
    *("--sft.optimizer.learning-rate", 1e-2, "--rl.rollout.group-size", 4, "--rl.batch.tokens", 400),
    *("--data.media-workers", 1, "--sidecar.timeout", 30, "--evaluation.no-sampled"),
    *("--sft.save-every", 2, "--rl.save-every", 1),
)
SHORT, LONG = {"sft": 6, "rl": 2}, {"sft": 12, "rl": 24}


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    return [*write_corpus(tmp_path_factory.mktemp("corpus")), *FLAGS]


def steps_of(steps: dict[str, int]) -> list[object]:
    return [word for stage, count in steps.items() for word in (f"--{stage}.steps", count)]


def assert_same(ours: Path, theirs: Path, steps: dict[str, int]) -> None:
    """Weights and held-out answers byte for byte; every step's metrics once, with the same numbers."""
    names = ["model/model.safetensors", *(f"heldout/{name}.jsonl" for name in ("fresh", "sft", "rl"))]
    for name in names:
        assert (ours / "smoke" / name).read_bytes() == (theirs / "smoke" / name).read_bytes(), name
    rows = metrics(ours / "smoke")
    wanted = [(stage, step) for stage, count in steps.items() for step in range(1, count + 1)]
    assert [(row["stage"], row["step"]) for row in rows] == wanted
    assert rows == metrics(theirs / "smoke")


def clean(out: Path, flags: list[object]) -> Path:
    """A run that nothing disturbs, of one process."""
    assert Harness(out, flags).run([]).starts == 1
    rows = [row for row in metrics(out / "smoke") if row["stage"] == "rl"]
    assert any(row["grad_norm"] > 0 for row in rows), "no reward differs: RL changes nothing"
    return out


def test_killed_three_times(flags: list[object], tmp_path: Path) -> None:
    flags = [*flags, *steps_of(SHORT)]
    kills = [Kill("sft", 1, "media worker"), Kill("sft", 3, CHECKPOINT), Kill("rl", 1, "math worker")]
    endured = Harness(tmp_path / "killed", flags).run(kills)
    assert endured.killed == {kill.victim: 1 for kill in kills} and endured.starts == 2
    assert_same(tmp_path / "killed", clean(tmp_path / "clean", flags), SHORT)


@pytest.mark.slow
def test_killed_twenty_times(flags: list[object], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    flags = [*flags, *steps_of(LONG)]
    kills = planned(20, SEED, LONG)
    assert {kill.victim for kill in kills} == {TRAINER, CHECKPOINT, *MODULES}
    endured = Harness(tmp_path / "killed", flags).run(kills)
    assert endured.killed.total() == 20
    assert_same(tmp_path / "killed", clean(tmp_path / "clean", flags), LONG)
    caplog.set_level(logging.INFO)
    by_victim = ", ".join(f"{count} {victim}" for victim, count in sorted(endured.killed.items()))
    logging.getLogger(__name__).info("20 SIGKILLs (%s), %d starts: the same bits", by_victim, endured.starts)


def test_plans() -> None:
    kills = planned(20, SEED, LONG)
    assert kills == planned(20, SEED, LONG) != planned(20, SEED + 1, LONG)
    assert {kill.stage for kill in kills} == set(LONG)
    places = [(list(LONG).index(kill.stage), kill.step) for kill in kills]
    assert places == sorted(places)
    assert all(1 <= kill.step < LONG[kill.stage] for kill in kills)
