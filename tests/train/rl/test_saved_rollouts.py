"""Finished prompts on disk: a step that was killed or cut goes on from them, to the bits of an undisturbed run."""

import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from onethinker_jax.command_line import Terminated
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.responses import Sampler
from onethinker_jax.rewards.score import Score
from onethinker_jax.train.config.preemption import PreemptionSettings
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.rl.policy_digest import policy_digest
from onethinker_jax.train.rl.saved_rollouts import SavedRollouts
from onethinker_jax.train.stopping.notice import Notice
from tests.train.rl.small_run import FIRST, SETTINGS, Rule, metrics, numbers, same, saved
from tests.train.test_overlap import OVERLAP
from tests.waiting import wait_until


class Counting:
    """The sampler, which counts the prompts that it samples."""

    def __init__(self, sampler: Sampler):
        self.sampler, self.sampled = sampler, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sampler, name)

    def parts(self, params: Any, prompts: Sequence[Any], **options: Any) -> Any:
        self.sampled += sum(prompt is not None for prompt in prompts)
        return self.sampler.parts(params, prompts, **options)


class Halting(Counting):
    """Calls `then` when more than `after` prompts have ended, and samples on once it is told to halt."""

    def __init__(self, sampler: Sampler, after: int, then: Callable[[], None]):
        super().__init__(sampler)
        self.left, self.then = after, then

    def parts(self, params: Any, prompts: Sequence[Any], **options: Any) -> Any:
        for part in super().parts(params, prompts, **options):
            yield part
            self.left -= len(part[0])
            if self.left < 0 and not options["halted"]():
                self.then()
                wait_until(options["halted"])


class Acting(Rule):
    """Scores by luck; calls `then` when it is asked for more than `after` prompts."""

    def __init__(self, after: int, then: Any):
        super().__init__()
        self.left, self.act = after, then

    def __call__(self, records: Sequence[Record], texts: Sequence[Sequence[str]]) -> list[list[Score]]:
        self.left -= len(records)
        if self.left < 0 and self.act is not None:
            act, self.act = self.act, None
            act()
        return super().__call__(records, texts)


class Killed(BaseException):
    """What nothing catches, as nothing catches SIGKILL."""


@pytest.fixture(scope="module")
def by_twos(policy, processor) -> Sampler:
    """Two prompts are decoded at a time, so that a rollout is in the middle for a while."""
    return Sampler(policy[0], processor, replace(SETTINGS.rollout, prompt_slots=2), mesh=make_mesh())


@pytest.fixture(scope="module")
def whole(train, by_twos, tmp_path_factory) -> tuple[Any, list[dict], list[int]]:
    """Parameters and metrics of a run that nothing disturbs and that keeps no prompts; prompts drawn by each step."""
    directory = tmp_path_factory.mktemp("whole")
    params = train(directory, at=by_twos)
    rows = metrics(directory)
    return params, rows, np.cumsum([0, *(int(row["prompts_drawn"]) for row in rows)]).tolist()


def files(directory: Path, kind: str = "npz") -> list[Path]:
    return sorted((directory / "saved_rollouts").glob(f"*/*.{kind}"))


def test_a_run_that_was_killed(train, whole, by_twos, tmp_path, capsys):
    """It has no checkpoint: the first step is not sampled again, nor what had ended of the second."""
    params, rows, drawn = whole

    def die() -> None:
        raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "as_left", Acting(drawn[1] + 2, die), at=by_twos, keep=True)
    assert not numbers(tmp_path / "as_left")
    kept = files(tmp_path / "as_left")
    assert drawn[1] + 2 < len(kept) < drawn[2] + 1

    shutil.copytree(tmp_path / "as_left", tmp_path / "damaged")
    sampler = Counting(by_twos)
    same(train(tmp_path / "as_left", at=sampler, keep=True), params)
    assert metrics(tmp_path / "as_left") == rows
    assert sampler.sampled == drawn[-1] - len(kept)
    (left,) = (tmp_path / "as_left" / "saved_rollouts").iterdir()
    assert left.name == "4"  # no checkpoint is begun after it
    said = capsys.readouterr().out
    assert "step 1: " in said and "prompts were sampled before, and are read again" in said

    of_step_1 = [path for path in files(tmp_path / "damaged") if path.parent.name == "1"]
    torn, lost, foreign, unscored = of_step_1[:4]
    torn.write_bytes(torn.read_bytes()[:100])
    lost.unlink()
    with np.load(foreign) as file:
        arrays = {**file, "digest": np.array("0" * 64), "tokens": file["tokens"] + 1}
    np.savez(foreign, **arrays)
    unscored.with_suffix(".json").unlink()
    sampler = Counting(by_twos)
    same(train(tmp_path / "damaged", at=sampler, keep=True), params)
    assert metrics(tmp_path / "damaged") == rows
    assert sampler.sampled == drawn[-1] - len(kept) + 3
    assert "step 1: 1 of 4 prompts were saved for another policy" in capsys.readouterr().out.replace(
        "\n", " "
    )


@pytest.mark.parametrize("overlap", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_sigterm_in_the_middle_of_a_rollout(train, whole, by_twos, tmp_path, overlap):
    """The second one cuts it at once; the step before is saved, and what had ended is not sampled again."""
    settings, (params, rows, drawn) = SETTINGS, whole
    if overlap:
        settings = OVERLAP
        params = train(tmp_path / "whole", settings=settings, at=by_twos)
        rows = metrics(tmp_path / "whole")
        drawn = np.cumsum([0, *(int(row["prompts_drawn"]) for row in rows)]).tolist()
    notice = Notice(PreemptionSettings(deadline=1e6, exit_status=75))

    def stop() -> None:
        wait_until(lambda: metrics(tmp_path / "run"))  # with overlap step 1 may still be in its updates
        for heard in (lambda: notice.kind, notice.cut.is_set):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            wait_until(heard)

    sampler = Halting(by_twos, drawn[1] + 1, stop)
    with pytest.raises(Terminated) as stopped:
        train(tmp_path / "run", settings=settings, at=sampler, keep=True, notice=notice)
    assert stopped.value.status == 75
    assert numbers(tmp_path / "run") == [FIRST + 1]
    host = saved(tmp_path / "run", FIRST + 1)
    assert host["ahead"] is None and host["behaviour"] == overlap
    kept = [path for path in files(tmp_path / "run") if path.parent.name == "2"]
    assert kept
    again = Counting(by_twos)
    same(train(tmp_path / "run", settings=settings, at=again, keep=True), params)
    assert metrics(tmp_path / "run") == rows
    assert again.sampled == drawn[-1] - drawn[1] - len(kept)


def test_a_disk_that_takes_nothing_is_said_once(sampler, policy, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    with RunLog(tmp_path) as log:
        kept = SavedRollouts(tmp_path / "file", sampler, seed=0, log=log)
        for name in ("a", "b"):
            kept.write(tmp_path / "file" / f"{name}.npz", {"tokens": np.zeros(1)})
    said = capsys.readouterr().out
    assert said.count("cannot be written") == 1 and "no rollouts are saved" in said.replace("\n", " ")


@pytest.mark.skipif(jax.device_count() < 4, reason="needs four devices, virtual ones do")
def test_a_digest_is_of_bits_and_places_and_not_of_the_layout():
    numbers_of = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    mesh = make_mesh(fsdp=2, tensor=2)
    laid = jax.device_put(numbers_of, NamedSharding(mesh, PartitionSpec("fsdp", "tensor")))

    def digest(values: Any, name: str = "kernel") -> str:
        return policy_digest(nnx.State({name: nnx.Param(jnp.asarray(values))}))

    assert digest(laid) == digest(numbers_of)
    swapped, flipped = numbers_of.copy(), numbers_of.copy()
    swapped[0, 0], swapped[5, 3] = numbers_of[5, 3], numbers_of[0, 0]
    flipped[3, 1] = np.nextafter(flipped[3, 1], np.float32(9))
    others = (swapped, flipped, numbers_of.reshape(4, 8), numbers_of.astype(jnp.bfloat16))
    assert len({digest(numbers_of), digest(numbers_of, "bias"), *map(digest, others)}) == 6
