"""Rollouts one step ahead of the update: what they are sampled with, and a resume that changes no bit."""

import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import pytest

from onethinker_jax.data_pipeline.batches.loader import RecordStream
from onethinker_jax.data_pipeline.batches.prompt_stream import PromptStream
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.responses import Sampler
from onethinker_jax.rewards.client.client import RewardGivenUp, RewardUnavailable
from onethinker_jax.rewards.score import Score
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.hosts import MeshSettings
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.rl.dynamic_sampling import NoGroupsLeft
from onethinker_jax.train.rl.learner import Learner
from onethinker_jax.train.rl.rollouts import roll_out
from onethinker_jax.train.stopping import notice
from tests.train.rl.small_run import FIRST, SEED, SETTINGS, Rule, metrics, numbers, same, saved
from tests.waiting import HANG_S

OVERLAP = replace(SETTINGS, overlap=True, loss=replace(SETTINGS.loss, importance_sampling="token_truncate"))
EVERY_GROUP = {"accuracy_low": -1.0, "accuracy_high": 2.0}


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory) -> tuple[Any, list[dict]]:
    """Parameters and metrics of a run that nothing disturbs."""
    directory = tmp_path_factory.mktemp("whole")
    params = train(directory, settings=OVERLAP)
    assert numbers(directory) == [FIRST + 3, FIRST + 4]
    ahead = saved(directory, FIRST + 3)["ahead"]
    assert len(ahead["groups"]) == SETTINGS.prompts_per_step
    assert saved(directory, FIRST + 4)["ahead"] is None
    return params, metrics(directory)


class Listening(Rule):
    """Notes the texts that it is asked to score; calls `then` once, after more than `after` prompts."""

    def __init__(self, after: int, then: Any = lambda: None):
        super().__init__()
        self.texts: list[list[str]] = []  # of each prompt
        self.after, self.then = after, then

    def __call__(self, records: Sequence[Record], texts: Sequence[Sequence[str]]) -> list[list[Score]]:
        before = len(self.texts)
        self.texts += [list(texts_of_prompt) for texts_of_prompt in texts]
        if before <= self.after < len(self.texts):
            self.then()
        return super().__call__(records, texts)


def test_a_step_is_sampled_beside_the_update_before_it(
    train, policy, records, sampler, tmp_path, monkeypatch, capsys
):
    """With the parameters that this update began with; and the update sees how far the policy has moved since."""
    settings = replace(OVERLAP, steps=2, **EVERY_GROUP)
    second_is_scored = threading.Event()
    update = Learner._update_policy

    def update_later(*arguments: Any, **options: Any) -> Any:
        assert second_is_scored.wait(HANG_S), "the rollout of step 2 waits for the update of step 1"
        return update(*arguments, **options)

    monkeypatch.setattr(Learner, "_update_policy", update_later)
    rule = Listening(settings.prompts_per_step, second_is_scored.set)
    train(tmp_path, rule, settings)
    assert "compiled after warm-up" not in capsys.readouterr().out

    plain: Any = Rule()
    stream = PromptStream(RecordStream(records, seed=SEED), sampler.prompt)
    for step in (1, 2):
        draw = step * settings.max_generation_rounds
        groups = roll_out(policy[1], stream, settings.prompts_per_step, sampler, plain, seed=SEED, step=draw)
        asked = rule.texts[(step - 1) * settings.prompts_per_step : step * settings.prompts_per_step]
        assert sorted(group.samples.texts for group in groups) == sorted(asked)
    first, second = metrics(tmp_path)
    assert first["mismatch"] < 1e-5  # sampled by the very policy
    assert second["mismatch"] > 1e-3  # by the one before
    assert second["importance_weight"] != pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("step", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_interrupt(train, whole, tmp_path, step):
    """While the first rollout is waited for, the next not begun; and while the second runs beside an update."""
    drawn = int(sum(row["prompts_drawn"] for row in whole[1][: step - 1]))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Listening(drawn, lambda: signal.raise_signal(signal.SIGINT)), OVERLAP)
    (number,) = numbers(tmp_path)
    assert FIRST < number < FIRST + SETTINGS.steps
    host = saved(tmp_path, number)
    assert (host["ahead"] is None) == host[
        "behaviour"
    ]  # the next rollout's groups, or what it is sampled with
    same(train(tmp_path, settings=OVERLAP), whole[0])
    assert metrics(tmp_path) == whole[1]


class Silent(Listening):
    """A reward service that stops answering after a number of prompts: it is waited for until it is given up."""

    def __init__(self, after: int, presses: int = 1):
        super().__init__(after, self.silence)
        self.presses, self.heard = presses, threading.Event()

    def silence(self) -> None:
        for _ in range(self.presses):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            assert self.presses == 1 or self.heard.wait(HANG_S)
        assert self.given_up.wait(HANG_S), "the stop waits for the scores"
        raise RewardGivenUp("not waited for any more")


@pytest.mark.parametrize("overlap", [False, True])
def test_a_stop_gives_up_scores_that_do_not_come(train, whole, tmp_path, monkeypatch, overlap):
    """What was done is kept, and made again to the same bits; the service's own deadline would be minutes away."""
    monkeypatch.setattr(notice, "STOP_GRACE_S", 0.0)
    settings = OVERLAP if overlap else SETTINGS
    expected = whole
    if not overlap:
        expected = train(tmp_path / "whole", settings=settings), metrics(tmp_path / "whole")
    drawn = int(sum(row["prompts_drawn"] for row in expected[1][:2]))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", Silent(drawn), settings)
    assert numbers(tmp_path / "run") == [FIRST + 2]
    assert saved(tmp_path / "run", FIRST + 2)["behaviour"] == overlap
    same(train(tmp_path / "run", settings=settings), expected[0])
    assert metrics(tmp_path / "run") == expected[1]


def test_a_second_ctrl_c_gives_them_up_at_once(train, tmp_path, monkeypatch):
    monkeypatch.setattr(notice, "STOP_GRACE_S", 100 * HANG_S)
    rule = Silent(0, presses=2)
    monkeypatch.setattr(RunLog, "info", lambda _, text: rule.heard.set() if "Stopping" in text else None)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, rule)
    assert rule.given_up.is_set() and not numbers(tmp_path)


def test_an_error_beside_a_rollout_does_not_wait_for_its_scores(train, tmp_path, monkeypatch):
    scoring = threading.Event()

    class Slow(Silent):
        def silence(self) -> None:
            scoring.set()
            super().silence()

    def fail(*_: Any) -> Any:
        assert scoring.wait(HANG_S)
        raise ValueError("no update")

    monkeypatch.setattr(Learner, "_update_policy", fail)
    with pytest.raises(ValueError, match="no update"):
        train(tmp_path, Slow(SETTINGS.prompts_per_step, presses=0), replace(OVERLAP, **EVERY_GROUP))


class Failing(Rule):
    """Scores a number of prompts, then raises, or gives every sample 0, so that no group is left."""

    def __init__(self, error: type[Exception], working: int):
        super().__init__()
        self.error, self.working = error, working

    def __call__(self, records: Sequence[Record], texts: Sequence[Sequence[str]]) -> list[list[Score]]:
        scores = super().__call__(records, texts)
        self.working -= len(records)
        if self.working >= 0:
            return scores
        if self.error is RewardUnavailable:
            raise RewardUnavailable("gone")
        return [[Score(0.0, 0.0, 0.0, 0.0)] * len(scores_of_prompt) for scores_of_prompt in scores]


def test_a_rollout_that_fails(train, whole, tmp_path):
    """The step beside it is finished and saved, and the rollout made again with the parameters of before that step."""
    drawn = int(sum(row["prompts_drawn"] for row in whole[1][:2]))
    for error, working in ((RewardUnavailable, drawn), (NoGroupsLeft, 0)):  # a second failure changes nothing
        with pytest.raises(error):
            train(tmp_path, Failing(error, working), OVERLAP)
        assert numbers(tmp_path) == [FIRST + 2]
        host = saved(tmp_path, FIRST + 2)
        assert host["behaviour"] and host["ahead"] is None
    same(train(tmp_path, settings=OVERLAP), whole[0])
    assert metrics(tmp_path) == whole[1]


@pytest.mark.slow
def test_an_int8_sampler(train, policy, sampler, tmp_path):
    """Its probabilities are not the policy's; int8 matrices are in a checkpoint, and a resume changes no bit."""
    rollout = replace(SETTINGS.rollout, weights_dtype="int8")
    settings = replace(OVERLAP, rollout=rollout)
    small = Sampler(
        policy[0],
        sampler.processor,
        rollout.all_together(SETTINGS.prompts_per_step),
        mesh=make_mesh(),
    )
    expected = train(tmp_path / "whole", settings=settings, at=small), metrics(tmp_path / "whole")
    assert 1e-4 < expected[1][0]["mismatch"] < 0.1
    drawn = int(expected[1][0]["prompts_drawn"])
    with pytest.raises(RewardUnavailable):
        train(tmp_path / "run", Failing(RewardUnavailable, drawn), settings, at=small)
    (number,) = numbers(tmp_path / "run")
    assert saved(tmp_path / "run", number)["behaviour"]
    same(train(tmp_path / "run", settings=settings, at=small), expected[0])
    assert metrics(tmp_path / "run") == expected[1]


@pytest.mark.slow
def test_devices_of_their_own(train, whole, sampler_on, tmp_path):
    apart = sampler_on(make_mesh(devices=jax.devices()[3:4]))
    same(train(tmp_path, settings=replace(OVERLAP, rollout_mesh=(1, 1, 1)), at=apart), whole[0])
    assert metrics(tmp_path) == whole[1]


def test_settings_that_cannot_be():
    with pytest.raises(
        SettingError, match=r"rl.overlap trains on samples .* set rl.loss.importance_sampling"
    ):
        replace(SETTINGS, overlap=True)
    with pytest.raises(SettingError, match=r"rl.rollout_mesh is for rl.overlap"):
        replace(SETTINGS, rollout_mesh=(1, 1, 1))
    two = MeshSettings(data=2)
    with pytest.raises(SettingError, match=r"mesh of 2 devices needs rl.rollout_mesh"):
        replace(shapes(), mesh=two, rl=OVERLAP)
    with pytest.raises(
        SettingError, match=r"rl.prompts_per_step 4 is not a multiple of rl.rollout_mesh's data x fsdp = 3"
    ):
        replace(shapes(), mesh=two, rl=replace(OVERLAP, rollout_mesh=(3, 1, 1)))
