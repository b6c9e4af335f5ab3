"""Rollouts with a made-up sampler: prompts are made beside the device's work, and a failure loses none."""

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from onethinker_jax.data_pipeline.batches.loader import RecordStream
from onethinker_jax.data_pipeline.batches.prompt_stream import PromptStream
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.responses import Samples
from onethinker_jax.rewards.client.client import RewardUnavailable
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.rl.dynamic_sampling import Rollout, Rollouts
from onethinker_jax.train.rl.rollouts import RolloutWatch, Stopped, roll_out
from tests.train.rl.small_run import SETTINGS, Rule
from tests.waiting import HANG_S

RECORDS = [
    Record(i, "?", "image", "OCR", (), "<answer>x</answer>", (Path("a.png"),), (), "s") for i in range(30)
]
EVERY_GROUP = replace(SETTINGS, accuracy_low=-1.0, accuracy_high=2.0)


class Prompt(int):
    opening = ""
    tokens = patches = np.zeros(1, np.int32)


def policy(number: int) -> nnx.State:
    """A policy of one parameter."""
    return nnx.State({"number": nnx.Param(jnp.float32(number))})


class FakeSampler:
    """A prompt is the record's number; a sample's tokens are the prompt, the draw and the sample's number."""

    def __init__(self, workers: int = 0):
        self.made: list[Record] = []
        self.draws: list[int] = []
        self.moved = 0
        self.changed = threading.Condition()
        media = SimpleNamespace(workers=workers)
        self.processor = SimpleNamespace(media=media, response=lambda _, ids: str(ids.tolist()))
        self.while_decoding = lambda: None
        self.mesh = make_mesh()

    def decoding_params(self, params: Any) -> Any:
        self.moved += 1
        return params

    def prompt(self, record: Record) -> Any:
        with self.changed:
            self.made.append(record)
            self.changed.notify_all()
        return Prompt(record.problem_id)

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.made) >= count, HANG_S), self.made

    def parts(
        self, params: Any, prompts: Sequence[int], *, seed: int, step: int, **_: Any
    ) -> Iterator[tuple[list[int], list[Samples]]]:
        self.while_decoding()
        self.draws.append(step)
        for number, prompt in enumerate(prompts):
            group_size = SETTINGS.rollout.group_size
            tokens = [np.array([prompt, step, g], np.int32) for g in range(group_size)]
            value = 0 if params is None else float(jax.tree.leaves(params)[0])
            logprobs = [np.full(3, value, np.float32)] * group_size
            texts = [self.processor.response(prompt, ids) for ids in tokens]
            yield [number], [Samples(tokens, logprobs, [True] * group_size, texts)]


def rollouts(
    sampler: FakeSampler, log: RunLog, settings: RLSettings = SETTINGS, rule: Rule | None = None
) -> Rollouts:
    ours: Any = sampler
    scorer: Any = rule or Rule()
    return Rollouts(RecordStream(RECORDS, seed=3), ours, scorer, settings, seed=0, log=log)


def taken(source: Rollouts, step: int, policies: Sequence[Any] = (None,) * 9) -> Rollout:
    """The step's rollout, after which the next one begins beside the update, with the policy of now."""
    rollout = source.take(step, policies[step - 1])
    source.start(step + 1, policies[step - 1])
    return rollout


def same(ours: Rollout, theirs: Rollout) -> None:
    for part in ("groups", "surplus"):
        assert ours.to_json()[part] == theirs.to_json()[part]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RunLog]:
    with RunLog(tmp_path) as log:
        log.stage("rl", SETTINGS.steps, 0)
        yield log


@pytest.mark.parametrize(("workers", "ahead"), [(0, None), (3, None), (3, 2), (0, 0)])
def test_prompts_of_the_next_step_are_made_while_the_device_works(log, workers, ahead):
    """Else the waits would not end: the first while answers decode, the second while the policy is updated."""
    sampler = FakeSampler(workers)
    settings = replace(EVERY_GROUP, prompts_ahead=ahead)
    more = settings.prompts_per_step if ahead is None else ahead
    with rollouts(sampler, log, settings) as source:
        for step in (1, 2, 3):
            sampler.while_decoding = lambda step=step: sampler.wait_for(
                step * settings.prompts_per_step + more
            )
            taken(source, step)
            sampler.wait_for(step * settings.prompts_per_step + more)
    assert len(sampler.made) == 3 * settings.prompts_per_step + more
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("prompts")]


@pytest.mark.parametrize("workers", [0, 3])
def test_a_failure_loses_no_prompt(log, workers):
    """Whatever was made ahead by then, the step's groups are those of a run that nothing disturbed."""
    with rollouts(FakeSampler(), log, replace(SETTINGS, prompts_ahead=0)) as undisturbed:
        whole = [taken(undisturbed, step) for step in (1, 2, 3)]

    def gone() -> None:
        raise RewardUnavailable("gone")

    rule = Rule()
    with rollouts(FakeSampler(workers), log, rule=rule) as source:
        same(taken(source, 1), whole[0])
        state = source.state()
        rule.at, rule.then = rule.count + 3, gone
        with pytest.raises(RewardUnavailable):
            taken(source, 2)
        assert source.state() == state
        same(taken(source, 2), whole[1])
        state = source.state()
    with rollouts(FakeSampler(workers), log) as resumed:
        resumed.restore(state, None)
        assert resumed.state() == state
        same(taken(resumed, 3), whole[2])


@pytest.mark.parametrize("overlap", [False, True])
def test_what_is_given_back_is_taken_again(log, overlap):
    """With the samples that the policy of then made, and without asking it again; also from a checkpoint."""
    settings = replace(
        SETTINGS, overlap=overlap, loss=replace(SETTINGS.loss, importance_sampling="token_truncate")
    )
    policies = tuple(map(policy, (1, 2, 3)))
    with rollouts(FakeSampler(), log, settings) as undisturbed:
        whole = [taken(undisturbed, step, policies) for step in (1, 2, 3)]
    assert any(rollout.surplus for rollout in whole)
    assert whole[1].groups[-1].samples.logprobs[0][0] == (1 if overlap else 2)
    sampler, again = FakeSampler(), FakeSampler()
    with rollouts(sampler, log, settings) as source:
        same(taken(source, 1, policies), whole[0])
        source.give_back(source.take(2, policies[1]))
        state = json.loads(json.dumps(source.state()))
        same(taken(source, 2, policies), whole[1])
        same(taken(source, 3, policies), whole[2])
    assert len(set(sampler.draws)) == len(sampler.draws), "what was given back is sampled a second time"
    with rollouts(again, log, settings) as resumed:
        resumed.restore(state, None)
        same(taken(resumed, 2, policies), whole[1])
        # Other processes, which were given nothing back, move the policy: that takes all of them.
        assert overlap or again.moved == 1
        same(taken(resumed, 3, policies), whole[2])
    assert min(again.draws) >= 3 * settings.max_generation_rounds


def test_nobody_waits_for_the_prompts_of_a_rollout_that_is_stopped():
    """One that is being made is waited for, the others of the round are not."""
    stop, sampler = threading.Event(), FakeSampler()

    def prompt(record: Record) -> Any:
        stop.set()
        return sampler.prompt(record)

    ours: Any = sampler
    scorer: Any = Rule()
    with pytest.raises(Stopped), PromptStream(RecordStream(RECORDS, seed=3), prompt) as prompts:
        roll_out(None, prompts, 8, ours, scorer, seed=0, step=0, watch=RolloutWatch(stop=stop))  # type: ignore[arg-type]
    assert len(sampler.made) == 1
