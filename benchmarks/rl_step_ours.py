"""Our side of `rl_step`: the RL loop itself, one step a turn.

Before the first step it writes what the peer checks itself against: samples of the first prompts, their
log-probabilities in the trainer, advantages, and the loss and gradient norm that these give.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from benchmarks.rl_step import CLIP, LEARNING_RATE, NEW_TOKENS, PROMPTS, SAMPLES, Turns, reward
from onethinker_jax.data_pipeline.batches.loader import RecordStream
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.records.record import Record, read_records
from onethinker_jax.model.hf_weights import load_hf
from onethinker_jax.model.sharding import make_mesh, shard_rows
from onethinker_jax.responses import Sampler
from onethinker_jax.rewards.score import Score
from onethinker_jax.sampler_settings import SamplerSettings
from onethinker_jax.scoring import Scorer
from onethinker_jax.train.checkpoints.checkpoints import Checkpoints
from onethinker_jax.train.config.checkpoints import CheckpointSettings
from onethinker_jax.train.config.objective import AdvantageConfig, PolicyLossSettings
from onethinker_jax.train.config.optimizer import BatchSettings, OptimizerSettings
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.ema_grpo import train_ema_grpo
from onethinker_jax.train.hosts import Hosts
from onethinker_jax.train.log.compilation_watch import Compilations, count_compilations
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.open_run import Run
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.policy import Policy
from onethinker_jax.train.rl.dynamic_sampling import Rollouts
from onethinker_jax.train.rl.policy_update import policy_batches, rl_logprobs, rl_update
from onethinker_jax.train.rl.rollouts import Group
from onethinker_jax.train.run_folder import RunFolder


class LetterScorer(Scorer):
    """Scores without a reward service."""

    def __init__(self) -> None:
        pass

    def __call__(self, records: Sequence[Record], texts: Sequence[Sequence[str]]) -> list[list[Score]]:
        return [
            [Score(reward(text), reward(text), 0.0, 0.0) for text in samples_of_prompt]
            for samples_of_prompt in texts
        ]

    def give_up(self) -> None:
        """Nothing is waited for."""

    def max_accuracy(self, record: Record) -> float:
        return 1.0


class TurnLog(RunLog):
    """A run's log whose every step is a turn."""

    def __init__(self, directory: Path, turns: Turns, steps: int, compilations: Compilations) -> None:
        super().__init__(directory)
        self._turns, self._steps, self._compilations = turns, steps, compilations
        self._compiled = 0

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        super().metrics(step, values)
        late, self._compiled = self._compilations.since(self._compiled), self._compilations.count
        self._turns.done(last=step == self._steps, rollout=values["seconds/rollout"], compiled=late)


def rl_settings(steps: int, prompt_tokens: int, patches: int) -> RLSettings:
    """GRPO as TRL is asked for it: one update a step, no KL term, every group kept."""
    row = prompt_tokens - 1 + SAMPLES * NEW_TOKENS  # a whole group
    return RLSettings(
        steps=steps,
        prompts_per_step=PROMPTS,
        num_minibatches=1,
        accuracy_low=-1.0,
        accuracy_high=2.0,
        rollout=SamplerSettings(
            prompt_tokens=prompt_tokens,
            prompt_patches=patches,
            max_new_tokens=NEW_TOKENS,
            group_size=SAMPLES,
        ),
        batch=BatchSettings(rows=PROMPTS, tokens=row, patches=patches),
        optimizer=OptimizerSettings(
            learning_rate=LEARNING_RATE, schedule="constant", warmup=0.0, weight_decay=0.0
        ),
        advantage=AdvantageConfig(method="grpo", variant="released"),
        loss=PolicyLossSettings(clip_low=CLIP[0], clip_high=CLIP[1], dual_clip=float("inf")),
        save_every=10**9,
    )


def optimizer_of(settings: RLSettings) -> optax.GradientTransformation:
    return make_optimizer(settings.optimizer, settings.steps, train_vision=True)


def check(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    sampler: Sampler,
    records: Sequence[Record],
    settings: RLSettings,
    mesh: Mesh,
) -> dict[str, Any]:
    """Samples of the first prompts and what the trainer makes of them, over the whole vocabulary as TRL does it."""
    prompts = [sampler.prompt(record) for record in records[:PROMPTS]]
    samples = sampler(params, prompts, seed=1, step=0)
    nothing = [Score(0.0, 0.0, 0.0, 0.0)] * SAMPLES
    groups = [
        Group(number, record, prompt, samples_of_prompt, nothing)
        for number, (record, prompt, samples_of_prompt) in enumerate(
            zip(records, prompts, samples, strict=False)
        )
    ]
    advantages = np.random.default_rng(0).normal(size=(PROMPTS, SAMPLES)).astype(np.float32)
    sampling = replace(sampler.config, suppressed_ids=())
    policy = Policy(graphdef, mesh)
    score = rl_logprobs(policy, sampling)
    update = rl_update(policy, optimizer_of(settings), settings, sampling)
    gradients, count = update.zeros(params), 0.0
    logprobs = np.zeros((PROMPTS * SAMPLES, NEW_TOKENS), np.float32)
    for batch in policy_batches(groups, advantages, settings):
        found = np.asarray(score(params, shard_rows(batch, mesh)))
        for number in set(batch.sample_index[batch.sample_index >= 0].tolist()):
            logprobs[number] = found[batch.sample_index == number]  # its tokens lie side by side in one row
        batch = shard_rows(replace(batch, sampled=found), mesh)  # on policy: every ratio is one
        gradients, sums = update.accumulate(params, None, gradients, batch)
        count += float(sums["count"])
    return {
        "prompts": np.array(
            [np.pad(p.tokens, (settings.rollout.prompt_tokens - len(p.tokens), 0)) for p in prompts]
        ),
        "tokens": np.array([ids for samples_of_prompt in samples for ids in samples_of_prompt.tokens]),
        "advantages": advantages.reshape(-1),
        "logprobs": logprobs,
        "gradient_norm": np.array(
            math.hypot(*(np.linalg.norm(g) for g in jax.tree.leaves(gradients))) / count
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    arguments = parser.parse_args()
    scratch, steps, turns = arguments.scratch, arguments.steps, Turns()

    records = read_records(scratch / "records.json")
    processor = Processor.from_pretrained(scratch / "model")
    never_drawn = (processor.vision_start_token_id,)  # so that nothing ends early
    processor.ends = replace(processor.ends, eos_ids=never_drawn)
    examples = [processor.prompt(record) for record in records]
    settings = rl_settings(
        steps,
        prompt_tokens=max(len(example.tokens) for example in examples),
        patches=max(len(example.patches) for example in examples),
    )
    mesh = make_mesh()
    graphdef, params = nnx.split(load_hf(scratch / "model", mesh=mesh))
    sampler = Sampler(
        graphdef, processor, settings.rollout.all_together(settings.prompts_per_step), mesh=mesh
    )
    with (
        jax.set_mesh(mesh),
        count_compilations() as compilations,
        TurnLog(scratch / "run", turns, steps, compilations) as log,
    ):
        np.savez(scratch / "check.npz", **check(graphdef, params, sampler, records, settings, mesh))
        folder = RunFolder(scratch / "run")
        checkpoints = Checkpoints(folder.checkpoints, CheckpointSettings())
        turns.ready(prompt_tokens=settings.rollout.prompt_tokens)
        rollouts = Rollouts(RecordStream(records, seed=0), sampler, LetterScorer(), settings, seed=0, log=log)
        run = Run(Hosts(), log, checkpoints, folder, compilations)
        train_ema_grpo(Policy(graphdef, mesh), params, rollouts, settings, run, first_number=0)
        checkpoints.close()


if __name__ == "__main__":
    main()
