"""A stop in the middle of a step's updates: they are cut between two micro-batches, and go on to the same bits."""

import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from onethinker_jax.command_line import Terminated
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.train.config.optimizer import BatchSettings
from onethinker_jax.train.config.preemption import PreemptionSettings
from onethinker_jax.train.rl import learner
from onethinker_jax.train.rl.policy_update import by_sample, own_rows
from onethinker_jax.train.rl.update_progress import UpdateProgress
from onethinker_jax.train.state import Update
from onethinker_jax.train.stopping.notice import Notice
from tests.train.rl.small_run import FIRST, SETTINGS, metrics, numbers, same, saved
from tests.train.rl.test_saved_rollouts import Counting
from tests.train.test_overlap import OVERLAP
from tests.waiting import wait_until

# One group a micro-batch: two minibatches of two, four micro-batches a step.
ROWS = BatchSettings(rows=1, tokens=100, patches=16)
PLAIN, BESIDE = (replace(settings, steps=3, batch=ROWS) for settings in (SETTINGS, OVERLAP))
OF_A_STEP = 4


class MicroBatches:
    """Those that the devices were given; `then` is called once, behind the one of number `at`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.count, self.at, self.then = 0, -1, lambda: None
        made = learner.rl_update

        def watched(*arguments: Any, **options: Any) -> Update:
            update = made(*arguments, **options)
            return replace(update, accumulate=self._noting(update.accumulate))

        monkeypatch.setattr(learner, "rl_update", watched)

    def stop_behind(self, number: int) -> Notice:
        """The notice of a run that is cut there: the second SIGTERM does so at once."""
        notice = Notice(PreemptionSettings(deadline=1e6))

        def stop() -> None:
            for heard in (lambda: notice.kind, notice.cut.is_set):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
                wait_until(heard)

        self.count, self.at, self.then = 0, number, stop
        return notice

    def _noting(self, accumulate: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*arguments: Any) -> Any:
            results = accumulate(*arguments)
            self.count += 1
            if self.count == self.at:
                self.then()
            return results

        return noting


@pytest.fixture(scope="module")
def start(train, records) -> Callable[..., Any]:
    """As `train`, on the records with an image: micro-batches without one would be compiled apart."""
    return partial(train, corpus=records[1::2])


@pytest.fixture(scope="module")
def wholes(start, tmp_path_factory) -> Callable[[Any], tuple[Any, list[dict]]]:
    """Parameters and metrics of a run with these settings that nothing disturbs."""
    found: list[tuple[Any, Any, list[dict]]] = []

    def whole(settings: Any) -> tuple[Any, list[dict]]:
        for of, params, rows in found:
            if of == settings:
                return params, rows
        directory = tmp_path_factory.mktemp("whole")
        found.append((settings, start(directory, settings=settings), metrics(directory)))
        return found[-1][1:]

    return whole


def begun_of(directory: Path, number: int) -> dict[str, Any] | None:
    return saved(directory, number)["ahead"]["begun"]


@pytest.mark.parametrize(
    ("settings", "done", "learnt_from"),
    [
        pytest.param(PLAIN, 1, 0, marks=pytest.mark.slow, id="first_minibatch"),
        pytest.param(PLAIN, 3, 2, id="second_minibatch"),
        pytest.param(BESIDE, 1, 0, marks=pytest.mark.slow, id="overlap_first"),
        pytest.param(BESIDE, 2, 2, id="overlap_second"),
    ],
)
def test_sigterm_in_the_middle_of_an_update(
    start, wholes, sampler, tmp_path, monkeypatch, settings, done, learnt_from
):
    """Of step 2, `done` micro-batches are given to the devices; the rollout is kept, and with it what was learnt."""
    params, rows = wholes(settings)
    assert [row["micro_batches"] for row in rows] == [OF_A_STEP] * settings.steps
    micro_batches = MicroBatches(monkeypatch)
    notice = micro_batches.stop_behind(OF_A_STEP + done)
    with pytest.raises(Terminated) as stopped:
        start(tmp_path, settings=settings, keep=True, notice=notice)
    assert stopped.value.status == 143
    assert micro_batches.count == OF_A_STEP + done  # the step is not waited for
    assert numbers(tmp_path) == [FIRST + 1]
    begun = begun_of(tmp_path, FIRST + 1)
    assert (begun["groups"] if begun else 0) == learnt_from
    assert saved(tmp_path, FIRST + 1)["behaviour"] == (settings is BESIDE and begun is not None)

    if done == 3:  # stopped once more, in the same step: the checkpoint stands
        notice = micro_batches.stop_behind(1)
        with pytest.raises(Terminated):
            start(tmp_path, settings=settings, keep=True, notice=notice)
        assert numbers(tmp_path) == [FIRST + 1]

    micro_batches.stop_behind(-1)
    sampled = Counting(sampler)
    same(start(tmp_path, settings=settings, at=sampled, keep=True), params)
    assert metrics(tmp_path) == rows
    assert micro_batches.count == settings.steps * OF_A_STEP - OF_A_STEP - learnt_from
    assert sampled.sampled <= sum(row["prompts_drawn"] for row in rows[2:])  # none of step 2


def test_progress_is_the_same_from_json():
    rng = np.random.default_rng(0)
    old = [rng.normal(size=n).astype(np.float32) for n in (3, 0, 5)]
    progress = UpdateProgress(groups=2, micro_batches=3, updates=1, seconds=1.5, old=old)
    progress.add({"loss": 0.1, "tokens": 8.0})
    again = UpdateProgress.from_json(progress.to_json())
    assert replace(again, old=None) == replace(progress, old=None) and again.taken == 1
    for ours, theirs in zip(again.old or [], old, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert UpdateProgress.from_json(UpdateProgress().to_json()) == UpdateProgress()


def test_values_by_sample():
    index = np.array([[-1, 4, 4, -1], [2, 2, 2, 7]], np.int32)
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    found = by_sample(rows, index)
    assert {number: values.tolist() for number, values in found.items()} == {
        4: [1.0, 2.0],
        2: [4.0, 5.0, 6.0],
        7: [7.0],
    }
    with make_mesh():
        np.testing.assert_array_equal(own_rows(learner.shard_rows(jnp.asarray(rows), make_mesh())), rows)
