"""The RL loop with rewards made up by a rule: filter, waiting groups, and a resume that changes no bit.

The rule rewards even token ids, so that advantages, gradients and moments are not zero; a client that counts
stands in for the reward service.
"""

import json
import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from onethinker_jax.data_pipeline.loader import RecordStream
from onethinker_jax.data_pipeline.packing import PackingError
from onethinker_jax.data_pipeline.processor import Processor
from onethinker_jax.data_pipeline.records import PROBLEM_TYPES, Record
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import make_mesh, tree_shardings
from onethinker_jax.responses import Sampler, Samples, score_request
from onethinker_jax.rewards.client import RewardUnavailable
from onethinker_jax.rewards.score import Score
from onethinker_jax.train import rollouts
from onethinker_jax.train.checkpoint import Checkpoints
from onethinker_jax.train.config import BatchSettings, OptimizerSettings, RLSettings
from onethinker_jax.train.ema_grpo import (
    MOMENT_TASKS,
    NoGroupsLeft,
    moment_task,
    policy_batches,
    rl_loss,
    train_ema_grpo,
)
from onethinker_jax.train.log import RunLog, count_compilations, read_metrics
from onethinker_jax.train.losses import PolicyLossConfig
from onethinker_jax.train.rollouts import Group, roll_out
from tests.data_pipeline.making import write_image, write_tokenizer
from tests.train import making

SETTINGS = RLSettings(
    steps=4,
    prompts=4,
    samples=3,
    updates=2,
    max_rounds=6,
    accuracy_low=0.42,
    accuracy_high=0.58,
    prompt_tokens=96,
    prompt_patches=16,
    max_new_tokens=6,
    batch=BatchSettings(rows=2, tokens=160, patches=32),
    optimizer=OptimizerSettings(learning_rate=3e-3, schedule="constant", warmup=0.0),
    kl_coefficient=0.05,
    save_every=3,
)
FIRST = 10  # number of the last checkpoint before RL


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    directory = tmp_path_factory.mktemp("tokenizer")
    return Processor.from_pretrained(
        write_tokenizer(directory, image_pixels=(1024, 4096)), grid_side=8, cache_bytes=2**20
    )


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    picture = write_image(tmp_path_factory.mktemp("media") / "a.png", 64, 64)

    def record(number: int) -> Record:
        kind = PROBLEM_TYPES[number % 3]
        images, place = ((picture,), "<image>") if number % 2 else ((), "")
        problem = f"{place}What is {number}?"
        data_type = "image" if images else "text"
        return Record(number, problem, data_type, kind, (), f"<answer>{number}</answer>", images, (), "made")

    return [record(number) for number in range(20)]


@pytest.fixture(scope="module")
def policy(processor: Processor) -> tuple[nnx.GraphDef, nnx.State]:
    config = replace(
        making.CONFIG,
        text=replace(making.CONFIG.text, vocab_size=len(processor.tokenizer)),
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        vision_start_token_id=processor.vision_start_token_id,
        vision_end_token_id=processor.vision_end_token_id,
    )
    mesh = make_mesh()
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0))))
    fresh = jax.jit(
        lambda: nnx.state(Qwen3VL(config, rngs=nnx.Rngs(0))), out_shardings=tree_shardings(shapes, mesh)
    )
    return graphdef, fresh()


@pytest.fixture(scope="module")
def sampler(policy: tuple[nnx.GraphDef, nnx.State], processor: Processor) -> Sampler:
    return Sampler(
        policy[0],
        processor,
        rows=SETTINGS.prompts,
        samples=SETTINGS.samples,
        prompt_tokens=SETTINGS.prompt_tokens,
        prompt_patches=SETTINGS.prompt_patches,
        max_new_tokens=SETTINGS.max_new_tokens,
        temperature=SETTINGS.temperature,
        mesh=make_mesh(),
    )


def rule(records: Any, samples: list[Samples], client: Any, variant: str) -> list[list[Score]]:
    """The share of even token ids; the client is told each time, and may refuse."""
    client.asked()
    shares = [[float(np.mean(ids % 2 == 0)) for ids in of_one.tokens] for of_one in samples]
    return [[Score(1 + share, share, 1.0, 0.0) for share in of_one] for of_one in shares]


class Client:
    """Calls ``then`` when it is asked for the ``at``-th time."""

    def __init__(self, at: int = -1, then: Callable[[], Any] = lambda: None):
        self.count, self.at, self.then = 0, at, then

    def asked(self) -> None:
        self.count += 1
        if self.count == self.at:
            self.then()


@pytest.fixture
def train(policy, records, sampler, monkeypatch):
    """train(directory, client, settings) -> parameters at the end, from the newest checkpoint there."""
    monkeypatch.setattr(rollouts, "score_samples", rule)
    graphdef, params = policy

    def run(directory: Path, client: Any = None, settings: RLSettings = SETTINGS) -> nnx.State:
        checkpoints = Checkpoints(directory / "checkpoints", keep=None)
        service: Any = client or Client()
        with RunLog(directory) as log, count_compilations() as compilations:
            try:
                return train_ema_grpo(
                    graphdef,
                    jax.tree.map(lambda leaf: leaf.copy(), params),
                    RecordStream(records, seed=5),
                    sampler,
                    service,
                    settings,
                    seed=5,
                    first_number=FIRST,
                    mesh=make_mesh(),
                    checkpoints=checkpoints,
                    log=log,
                    compilations=compilations,
                )
            finally:
                checkpoints.close()

    return run


def metrics(directory: Path) -> list[dict]:
    timed = ("time", "tokens_per_second", "seconds/rollout", "seconds/update")
    rows = read_metrics(directory / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name not in timed} for row in rows]


def same(ours: Any, theirs: Any) -> None:
    for name, values in making.named(ours).items():
        np.testing.assert_array_equal(values, making.named(theirs)[name], err_msg=name)


def waiting(directory: Path, number: int) -> list[dict]:
    host = directory / "checkpoints" / str(number) / "host" / "metadata"
    return json.loads(host.read_text())["waiting"]


def test_the_loop_and_its_resume(train, policy, tmp_path, capsys):
    whole = train(tmp_path / "whole")
    rows = metrics(tmp_path / "whole")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        assert 0.0 < row["groups_kept"] <= 1.0
        assert row["grad_norm"] > 0 and row["advantage_abs"] > 0
        assert 1 <= row["reward"] <= 2
        assert row["trained_tokens"] <= SETTINGS.prompts * SETTINGS.samples * SETTINGS.max_new_tokens
        assert row["kl_reference"] >= 0
    assert any(row["groups_kept"] < 1 for row in rows)  # the filter has work to do
    assert rows[0]["kl_reference"] < rows[-1]["kl_reference"]
    before = making.named(policy[1])
    moved = making.named(whole)
    assert all(np.any(moved[name] != before[name]) for name in moved if name.startswith("decoder"))
    assert "compiled after warm-up" not in capsys.readouterr().out
    # Saved every third step and at the end; groups too many for a step wait in the checkpoint.
    assert sorted(int(path.name) for path in (tmp_path / "whole/checkpoints").iterdir()) == [13, 14]
    assert waiting(tmp_path / "whole", 13)

    # Ctrl-C while the second step is being scored: that step is finished and saved.
    client = Client(2, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", client)
    (number,) = (int(path.name) for path in (tmp_path / "stopped/checkpoints").iterdir())
    assert FIRST < number < FIRST + SETTINGS.steps
    same(train(tmp_path / "stopped"), whole)
    assert metrics(tmp_path / "stopped") == rows

    # The reward service goes away in a later step: what was done until then is kept.
    def gone() -> None:
        raise RewardUnavailable("gone")

    client = Client()
    train(tmp_path / "counted", client, replace(SETTINGS, steps=2))
    with pytest.raises(RewardUnavailable):
        train(tmp_path / "gone", Client(client.count + 1, gone))
    assert [path.name for path in (tmp_path / "gone/checkpoints").iterdir()] == [str(FIRST + 2)]
    same(train(tmp_path / "gone"), whole)
    assert metrics(tmp_path / "gone") == rows


def test_no_group_is_left(train, tmp_path):
    with pytest.raises(NoGroupsLeft, match=r"step 1: only 0 of 4 groups .* after 2 rounds"):
        train(tmp_path, settings=replace(SETTINGS, accuracy_low=0.9999, accuracy_high=1.0, max_rounds=2))


def test_a_group_comes_back_from_a_checkpoint(policy, records, sampler, monkeypatch):
    monkeypatch.setattr(rollouts, "score_samples", rule)
    stream = RecordStream(records, seed=1)
    stream.next()
    client: Any = Client()
    groups = roll_out(policy[1], stream, 4, sampler, client, seed=0, step=3, variant="paper")
    assert [group.position for group in groups] == [1, 2, 3, 4]
    again = roll_out(policy[1], _from(stream, 1), 4, sampler, client, seed=0, step=3, variant="paper")
    other = roll_out(policy[1], _from(stream, 1), 4, sampler, client, seed=0, step=4, variant="paper")
    for group, twin in zip(groups, again, strict=True):
        assert all(map(np.array_equal, group.samples.tokens, twin.samples.tokens))
        back = Group.from_json(json.loads(json.dumps(group.to_json())), stream, sampler)
        assert back.record is group.record
        assert np.array_equal(back.prompt.tokens, group.prompt.tokens)
        assert back.samples.texts == group.samples.texts and back.samples.ended == group.samples.ended
        for ours, theirs in zip(back.samples.logprobs, group.samples.logprobs, strict=True):
            assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
        assert [asdict(score) for score in back.scores] == [asdict(score) for score in group.scores]
        assert back.rewards == [1 + float(np.mean(ids % 2 == 0)) for ids in group.samples.tokens]
    assert any(
        not np.array_equal(ours, theirs)
        for group, twin in zip(groups, other, strict=True)
        for ours, theirs in zip(group.samples.tokens, twin.samples.tokens, strict=True)
    )


def _from(stream: RecordStream, position: int) -> RecordStream:
    stream.restore({**stream.state(), "position": position})
    return stream


def test_sampled_is_what_is_trained(policy, records, sampler, monkeypatch):
    """The log-probabilities of the sampler are those of the packed policy batch, and sums are of every token."""
    monkeypatch.setattr(rollouts, "score_samples", rule)
    client: Any = Client()
    groups = roll_out(
        policy[1], RecordStream(records, seed=2), 4, sampler, client, seed=1, step=0, variant="paper"
    )
    advantages = np.arange(12, dtype=np.float32).reshape(4, 3) - 5
    totals: dict[str, float] = {"tokens": 0.0, "mismatch": 0.0, "loss": 0.0}
    loss = jax.jit(
        lambda params, batch: rl_loss(
            policy[0], params, None, batch, objective=PolicyLossConfig(), sampling=sampler.config
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
            moment_task(replace(records[0], problem_type=problem_type, data_type=data_type))
            for data_type in ("image", "video")
        }
        assert len(kinds) == (2 if problem_type == "segmentation" else 1)
    assert len(set(MOMENT_TASKS)) == len(MOMENT_TASKS) == len(PROBLEM_TYPES) + 1


def test_a_score_request_carries_the_question(records):
    request = score_request(records[2], "a response")
    assert request.response == "a response"
    assert request.ground_truth == "<answer>2</answer>"
    assert "What is 2?" in request.question
    assert request.problem_type == records[2].problem_type
