"""The RL loop with rewards made up by a rule: filter, waiting groups, and a resume that changes no bit.

The rule rewards by a checksum of the text, so that advantages, gradients and moments are not zero; it counts how
often it is asked, and may refuse.
"""

import json
import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any, cast

import jax
import numpy as np
import pytest

from onethinker_jax.data_pipeline.batches.loader import RecordStream
from onethinker_jax.data_pipeline.batches.packing import PackingError
from onethinker_jax.data_pipeline.batches.prompt_stream import PromptStream
from onethinker_jax.data_pipeline.records.record import Record, task_of
from onethinker_jax.responses import Sampler, Samples
from onethinker_jax.rewards.client.client import RewardUnavailable
from onethinker_jax.rewards.score import RewardSettings, Score, score_response
from onethinker_jax.rewards.score_pool import ScoringError
from onethinker_jax.scoring import Scorer
from onethinker_jax.tasks import MOMENTS, PROBLEM_TYPES
from onethinker_jax.train.config.objective import AdvantageConfig, PolicyLossSettings
from onethinker_jax.train.rl import rollouts
from onethinker_jax.train.rl.dynamic_sampling import NoGroupsLeft
from onethinker_jax.train.rl.learner import advantage_config
from onethinker_jax.train.rl.policy_update import policy_batches, rl_loss
from onethinker_jax.train.rl.rollouts import Group, RolloutWatch, roll_out
from tests.places import GOLDEN
from tests.train import making
from tests.train.rl.small_run import FIRST, SETTINGS, Rule, luck, metrics, numbers, same, saved
from tests.waiting import HANG_S


def test_the_loop_and_its_resume(train, policy, tmp_path, capsys):
    whole = train(tmp_path / "whole")
    rows = metrics(tmp_path / "whole")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    rollout = SETTINGS.rollout
    for row in rows:
        assert 0.0 < row["groups_kept"] <= 1.0
        assert row["grad_norm"] > 0 and row["advantage_abs"] > 0
        assert 1 <= row["reward"] <= 2
        assert (
            row["trained_tokens"] <= SETTINGS.prompts_per_step * rollout.group_size * rollout.max_new_tokens
        )
        assert row["kl_reference"] >= 0
    assert any(row["groups_kept"] < 1 for row in rows)  # the filter has work to do
    assert rows[0]["kl_reference"] < rows[-1]["kl_reference"]
    before = making.named(policy[1])
    moved = making.named(whole)
    assert all(np.any(moved[name] != before[name]) for name in moved if name.startswith("decoder"))
    assert "compiled after warm-up" not in capsys.readouterr().out
    # Saved every third step and at the end; groups too many for a step wait in the checkpoint.
    assert numbers(tmp_path / "whole") == [13, 14]
    assert saved(tmp_path / "whole", 13)["waiting"]

    # Ctrl-C while the second step is being scored: that step is finished and saved.
    rule = Rule(2, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", rule)
    (number,) = numbers(tmp_path / "stopped")
    assert FIRST < number < FIRST + SETTINGS.steps
    same(train(tmp_path / "stopped"), whole)
    assert metrics(tmp_path / "stopped") == rows

    # A rollout fails in a later step: what was done until then is kept.
    def gone() -> None:
        raise ScoringError("gone")

    rule = Rule()
    train(tmp_path / "counted", rule, replace(SETTINGS, steps=2))
    with pytest.raises(ScoringError):
        train(tmp_path / "gone", Rule(rule.count + 1, gone))
    assert numbers(tmp_path / "gone") == [FIRST + 2]
    same(train(tmp_path / "gone"), whole)
    assert metrics(tmp_path / "gone") == rows


def test_no_group_is_left(train, tmp_path):
    with pytest.raises(NoGroupsLeft, match=r"step 1: only 0 of 4 groups .* after 2 rounds"):
        train(
            tmp_path,
            settings=replace(SETTINGS, accuracy_low=0.9999, accuracy_high=1.0, max_generation_rounds=2),
        )


def test_another_loss_and_other_advantages(train, tmp_path, capsys):
    settings = replace(
        SETTINGS,
        steps=2,
        advantage=replace(SETTINGS.advantage, method="gdpo"),
        loss=replace(
            SETTINGS.loss,
            kind="gspo",
            aggregation="sequence",
            kl_estimator="k2",
            entropy_coefficient=0.01,
            importance_sampling="token_truncate",
            overlong="penalty",
            overlong_buffer=3,
        ),
    )
    train(tmp_path, settings=settings)
    rows = metrics(tmp_path)
    assert "compiled after warm-up" not in capsys.readouterr().out
    # Both updates of the first step compare the sampler with the policy that began it, not with a later one.
    assert rows[0]["mismatch"] < 1e-5
    assert rows[0]["importance_weight"] == pytest.approx(1, abs=1e-5)
    assert rows[0]["importance_cut"] == 0
    assert rows[0]["kl_sampled"] > 1e-7  # which the second update has left
    for row in rows:
        assert row["grad_norm"] > 0 and row["advantage_abs"] > 0
        assert -1 <= row["overlong_penalty"] < 0
        assert math.isfinite(row["loss"]) and math.isfinite(row["kl_reference"])


def test_answers_that_are_all_cut_off_train_nothing(train, policy, tmp_path):
    """Six tokens of a fresh model hardly ever end by themselves."""
    settings = replace(SETTINGS, steps=1, loss=PolicyLossSettings(overlong="mask"))
    after = train(tmp_path, settings=settings)
    (row,) = metrics(tmp_path)
    assert row["truncated"] == 1 and row["trained_tokens"] == 0
    assert "loss" not in row
    same(after, policy[1])


@pytest.mark.parametrize("settings", [RewardSettings(), RewardSettings(format_weight=0.25)])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_the_weights_of_the_reward_parts(variant, settings):
    """GDPO's defaults are what the reward itself sums its parts with, whatever its settings."""
    client: Any = None  # nothing is judged
    settings = replace(settings, variant=variant)
    scorer = Scorer(client, settings=settings)
    gdpo = replace(SETTINGS, advantage=AdvantageConfig(method="gdpo"))
    weights = advantage_config(gdpo, scorer).weights
    lines = (GOLDEN / "rewards_released.jsonl").read_text().splitlines()
    for case in map(json.loads, lines[:80]):
        score = score_response(
            case["response"],
            case["ground_truth"],
            problem_type=case["problem_type"],
            data_type=case["data_type"],
            variant=variant,
            settings=settings,
        )
        parts = (score.accuracy, score.format, score.structure)
        assert np.dot(weights, parts) == pytest.approx(score.overall)
    penalised = replace(
        gdpo, loss=PolicyLossSettings(overlong="penalty", overlong_buffer=3, overlong_penalty=0.5)
    )
    assert advantage_config(penalised, scorer).weights == (*weights, 0.5)
    told = replace(gdpo, advantage=AdvantageConfig(method="gdpo", weights=(3.0, 2.0, 1.0)))
    assert advantage_config(told, scorer).weights == (3.0, 2.0, 1.0)
    assert advantage_config(SETTINGS, scorer).weights == ()


def test_a_group_comes_back_from_a_checkpoint(policy, records, sampler):
    stream = RecordStream(records, seed=1)
    stream.next()
    scorer: Any = Rule()
    groups = roll_out(policy[1], PromptStream(stream, sampler.prompt), 4, sampler, scorer, seed=0, step=3)
    assert [group.position for group in groups] == [1, 2, 3, 4]
    again = roll_out(policy[1], _from(stream, 1, sampler), 4, sampler, scorer, seed=0, step=3)
    other = roll_out(policy[1], _from(stream, 1, sampler), 4, sampler, scorer, seed=0, step=4)
    for group, twin in zip(groups, again, strict=True):
        assert all(map(np.array_equal, group.samples.tokens, twin.samples.tokens))
        back = Group.from_json(json.loads(json.dumps(group.to_json())), stream, sampler)
        assert back.record is group.record
        assert np.array_equal(back.prompt.tokens, group.prompt.tokens)
        assert back.samples.texts == group.samples.texts and back.samples.ended == group.samples.ended
        for ours, theirs in zip(back.samples.logprobs, group.samples.logprobs, strict=True):
            assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
        assert [asdict(score) for score in back.scores] == [asdict(score) for score in group.scores]
        assert back.stats.rewards == [1 + luck(text) for text in group.samples.texts]
    assert any(
        not np.array_equal(ours, theirs)
        for group, twin in zip(groups, other, strict=True)
        for ours, theirs in zip(group.samples.tokens, twin.samples.tokens, strict=True)
    )


def test_scoring_runs_beside_the_sampler(policy, records, sampler, monkeypatch):
    """Each batch but the last is scored while the next one decodes: else the first wait below would not end.

    The clock goes on by scoring alone, a second a batch.
    """
    decoding, scored = [threading.Event() for _ in range(3)], []

    class Halves:
        """The sampler with two prompts a batch."""

        def parts(
            self, *arguments: Any, halted: Callable[[], bool], **options: Any
        ) -> Iterator[tuple[list[int], list[Samples]]]:
            assert not halted()
            samples = sampler(*arguments, **options)
            for start in range(0, 6, 2):
                decoding[start // 2].set()
                yield [start, start + 1], samples[start : start + 2]

    class Beside(Rule):
        def __call__(self, records: Sequence[Record], texts: Sequence[Sequence[str]]) -> list[list[Score]]:
            if len(scored) < 2:
                assert decoding[len(scored) + 1].wait(HANG_S), "the next batch waits for this one's scores"
            scored.append([record.problem_id for record in records])
            now[0] += 1.0
            return super().__call__(records, texts)

    now = [0.0]
    monkeypatch.setattr(rollouts, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    watch, halves = RolloutWatch(), cast(Any, Halves())
    scorer: Any = Beside()
    groups = roll_out(policy[1], _prompts(records, sampler), 6, halves, scorer, watch=watch, seed=0, step=3)
    assert [number for part in scored for number in part] == [group.record.problem_id for group in groups]
    assert watch.seconds.reward == 3
    assert 0 <= watch.seconds.reward_wait <= 3 and watch.seconds.prompts == 0
    monkeypatch.undo()
    plain: Any = Rule()
    whole = roll_out(policy[1], _prompts(records, sampler), 6, sampler, plain, seed=0, step=3)
    assert [group.to_json() for group in groups] == [group.to_json() for group in whole]

    def gone() -> None:
        raise RewardUnavailable("gone")

    failing: Any = Rule(1, gone)
    with pytest.raises(RewardUnavailable):
        roll_out(policy[1], _prompts(records, sampler), 6, halves, failing, seed=0, step=3)
    assert failing.count == 1  # nothing is asked for after that


def _prompts(records: list[Record], sampler: Sampler) -> PromptStream:
    return PromptStream(RecordStream(records, seed=1), sampler.prompt)


def _from(stream: RecordStream, position: int, sampler: Sampler) -> PromptStream:
    stream.restore({**stream.state(), "position": position})
    return PromptStream(stream, sampler.prompt)


def test_sampled_is_what_is_trained(policy, records, sampler):
    """The log-probabilities of the sampler are those of the packed policy batch, and sums are of every token."""
    scorer: Any = Rule()
    prompts = PromptStream(RecordStream(records, seed=2), sampler.prompt)
    groups = roll_out(policy[1], prompts, 4, sampler, scorer, seed=1, step=0)
    advantages = np.arange(12, dtype=np.float32).reshape(4, 3) - 5
    totals: dict[str, float] = {"tokens": 0.0, "mismatch": 0.0, "loss": 0.0}
    loss = jax.jit(
        lambda params, batch: rl_loss(
            policy[0],
            params,
            None,
            batch,
            objective=PolicyLossSettings(),
            max_length=6,
            sampling=sampler.config,
        )
    )
    for batch in policy_batches(groups, advantages, SETTINGS):
        value, sums = loss(policy[1], batch)
        totals["loss"] += float(value)
        for name in ("tokens", "mismatch"):
            totals[name] += float(sums[name])
    lengths = np.array([[len(ids) for ids in group.samples.tokens] for group in groups])
    assert totals["tokens"] == lengths.sum()
    assert totals["mismatch"] / totals["tokens"] < 1e-5
    np.testing.assert_allclose(totals["loss"], -(lengths * advantages).sum(), rtol=1e-4)


def test_a_prompt_too_long_names_its_record(sampler, records, processor):
    long = replace(records[0], problem_id="long one", problem="word " * 300)
    with pytest.raises(
        PackingError, match=r"record long one: prompt of \d+ tokens, more than the 96 allowed"
    ):
        sampler.prompt(long)


def test_tasks_of_the_moments(records):
    """Every task but segmentation, which has two, shares moments between image and video."""
    for problem_type in PROBLEM_TYPES:
        kinds = {
            task_of(replace(records[0], problem_type=problem_type, data_type=data_type)).moments
            for data_type in ("image", "video")
        }
        assert len(kinds) == (2 if problem_type == "segmentation" else 1)
    assert len(set(MOMENTS)) == len(MOMENTS) == len(PROBLEM_TYPES) + 1
