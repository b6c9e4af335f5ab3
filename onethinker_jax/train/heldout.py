"""How well each stage's model answers the held-out records: greedily and, before and after RL, as RL samples.

Greedy answers are what a user gets; the mean reward of sampled ones is what RL raises. Of several processes each
answers its part of the records.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
from flax import nnx

from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.evaluate.answers.predictions import (
    Prediction,
    evaluate,
    read_predictions,
    write_predictions,
)
from onethinker_jax.model.sharding import local_mesh
from onethinker_jax.responses import Sampler
from onethinker_jax.sampler_settings import SamplerSettings
from onethinker_jax.scoring import Scorer
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.open_run import Run
from onethinker_jax.train.policy import Policy


@dataclass(frozen=True)
class Answers:
    """Predictions on the held-out records by stage ("fresh", "sft", "rl"), in the order of training.

    `sampled` holds the stages before and after RL, or nothing when `evaluation.sampled` is off or RL left out.
    """

    greedy: dict[str, list[Prediction]]
    sampled: dict[str, list[Prediction]]


def read_answers(config: TrainConfig, records: Sequence[Record]) -> Answers:
    """What a run's `HeldOut` wrote; raises RecordError naming a file of other records."""
    folder = config.folder
    return Answers(
        {stage: read_predictions(folder.answers(stage), records) for stage in stages_of(config)},
        {
            stage: read_predictions(folder.answers(stage, sampled=True), records)
            for stage in sampled_stages(config)
        },
    )


def stages_of(config: TrainConfig) -> list[str]:
    """The run's stages that leave a model of their own; of a run without any steps also "rl", to compare with."""
    trained = ["sft"] * (config.sft.steps > 0) + ["rl"] * (config.rl.steps > 0)
    return ["fresh", *(trained or ["rl"])]


def sampled_stages(config: TrainConfig) -> list[str]:
    """The stages before and after RL, whose models also answer as RL samples; none without RL or when that is off."""
    return stages_of(config)[-2:] if config.evaluation.sampled and config.rl.steps else []


class HeldOut:
    """Scores the model of a stage on the held-out records and keeps its answers in the run's folder."""

    def __init__(
        self,
        config: TrainConfig,
        policy: Policy,
        processor: Processor,
        records: Sequence[Record],
        scorer: Scorer,
        run: Run,
    ):
        """`config` is this process's part; `records` are all."""
        self.config, self.records, self.scorer, self.run = config, records, scorer, run

        def sampler(settings: SamplerSettings) -> Sampler:
            return Sampler(
                policy.graphdef,
                processor,
                settings,
                mesh=local_mesh(policy.mesh),
                compute_dtype=policy.compute_dtype,
                first=run.hosts.index,
                stride=run.hosts.count,
            )

        greedy = config.evaluation.sampler
        self.greedy = sampler(greedy)
        rollout = config.rl.rollout
        self.sampled = sampler(replace(greedy, temperature=rollout.temperature, stop=rollout.stop))

    def score(self, stage: str, params: nnx.State) -> None:
        """Answers with the stage's model, where its answers do not stand already.

        Raises PackingError naming a record that is too long, MediaError naming a file, RewardUnavailable.
        """
        self._answer(stage, params)
        if stage in sampled_stages(self.config):
            self._answer(stage, params, sampled=True)

    def _answer(self, stage: str, params: nnx.State, *, sampled: bool = False) -> None:
        file, hosts, log = self.run.folder.answers(stage, sampled=sampled), self.run.hosts, self.run.log
        if hosts.gather(file.is_file())[0]:
            return
        sampler = self.sampled if sampled else self.greedy
        what = (
            f"answers at temperature {self.config.rl.rollout.temperature:g}" if sampled else "greedy answers"
        )
        log.info(f"held-out records, {stage} model: {len(self.records)} {what} …")
        params = sampler.decoding_params(params)
        mine = self.records[hosts.index :: hosts.count]
        doing = log.doing(f"held-out records, {stage} model: {what}", len(mine), unit="records")
        with jax.set_mesh(sampler.mesh), doing as progress:
            predicted = evaluate(sampler, params, mine, self.scorer, tell=progress.reached)
        answers = hosts.gather([prediction.to_json() for prediction in predicted])
        predictions = [
            Prediction.from_json(answers[number % hosts.count][number // hosts.count], record)
            for number, record in enumerate(self.records)
        ]

        def write() -> None:
            file.parent.mkdir(exist_ok=True)
            write_predictions(file, predictions)

        hosts.first_does(write)
