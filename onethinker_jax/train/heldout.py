"""How well each stage's model answers the held-out records: greedily and, before and after RL, as RL samples.

Greedy answers are what a user gets; the mean reward of sampled ones is what RL raises. Of several processes each
answers its part of the records.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
from flax import nnx

from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.evaluate.answers.predictions import (
    Prediction,
    evaluate,
    over_all,
    read_predictions,
    write_predictions,
)
from onethinker_jax.files import whole_file
from onethinker_jax.model.sharding import local_mesh
from onethinker_jax.responses import Sampler
from onethinker_jax.sampler_settings import SamplerSettings
from onethinker_jax.scoring import Scorer
from onethinker_jax.train.checkpoints.checkpoints import CheckpointError
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.health.watchdog import KNOWN_AFTER, NEVER
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
        self._compiled: set[Sampler] = set()  # have answered all records once
        self.sampled = sampler(replace(greedy, temperature=rollout.temperature, stop=rollout.stop))

    def score(self, stage: str, params: nnx.State, *, step: int | None = None) -> None:
        """Answers with the stage's model, where its answers do not stand already.

        `step`: the RL step whose greedy answers are these. Raises PackingError naming a record that is too long,
        MediaError naming a file, RewardUnavailable, and what failed in another process as HostError.
        """
        if step is not None:
            self.run.hosts.first_does(lambda: self._adopt(stage, step))
        self._answer(stage, params)
        if stage in sampled_stages(self.config):
            self._answer(stage, params, sampled=True)

    def check_answers(self) -> None:
        """Raises CheckpointError where an answer of the model before RL is gone: no checkpoint holds that model."""
        if not self.config.sft.steps:
            return
        for sampled in (False, True) if "sft" in sampled_stages(self.config) else (False,):
            file = self.run.folder.answers("sft", sampled=sampled)
            if not self.run.hosts.gather(file.is_file())[0]:
                raise CheckpointError(
                    f"{file} is gone, and the model after SFT, whose answers it held, is in no checkpoint of RL: put "
                    "the run's folder back as it was"
                )

    def score_step(self, step: int, params: nnx.State) -> dict[str, float]:
        """Answers greedily with the model after an RL step; the metrics of that. Raises as `score` does."""
        began = time.perf_counter()
        file = self.run.folder.answers(_of_step(step))
        predictions = self._predict(f"RL step {step}", params, self.greedy, "greedy answers")
        self.run.hosts.first_does(lambda: _write(file, predictions))
        means = over_all(predictions)
        return {
            "heldout/accuracy": means.accuracy,
            "heldout/reward": means.overall,
            "heldout/format": means.format,
            "seconds/heldout": time.perf_counter() - began,
        }

    def _adopt(self, stage: str, step: int) -> None:
        """The answers of an RL step are also the stage's, where both are not there already."""
        made, file = self.run.folder.answers(_of_step(step)), self.run.folder.answers(stage)
        if made.is_file() and not file.is_file():
            with whole_file(file) as aside:
                shutil.copyfile(made, aside)

    def _answer(self, stage: str, params: nnx.State, *, sampled: bool = False) -> None:
        file = self.run.folder.answers(stage, sampled=sampled)
        if self.run.hosts.gather(file.is_file())[0]:
            return
        sampler = self.sampled if sampled else self.greedy
        what = (
            f"answers at temperature {self.config.rl.rollout.temperature:g}" if sampled else "greedy answers"
        )
        predictions = self._predict(f"{stage} model", params, sampler, what)
        self.run.hosts.first_does(lambda: _write(file, predictions))

    def _predict(self, model: str, params: nnx.State, sampler: Sampler, what: str) -> list[Prediction]:
        """The answers of all processes, in the order of the records; each process gives its part."""
        hosts, log = self.run.hosts, self.run.log
        log.info(f"held-out records, {model}: {len(self.records)} {what} …")
        params = sampler.decoding_params(params)
        mine = self.records[hosts.index :: hosts.count]
        title = f"held-out records, {model}: {what}"
        watchdog = self.run.watchdog(
            title,
            stalled="no answer has come after {}",
            known_after=KNOWN_AFTER if sampler in self._compiled else NEVER,
        )
        with jax.set_mesh(sampler.mesh), log.doing(title, len(mine), unit="records") as progress:

            def reached(done: int) -> None:
                progress.reached(done)
                watchdog.beat(done)
                self.run.notice.heed_cut()

            def answer() -> list[Prediction]:
                with watchdog:  # not while the others are waited for
                    return evaluate(sampler, params, mine, self.scorer, tell=reached)

            predicted = hosts.all_do(answer)
        self._compiled.add(sampler)
        answers = hosts.gather([prediction.to_json() for prediction in predicted])
        return [
            Prediction.from_json(answers[number % hosts.count][number // hosts.count], record)
            for number, record in enumerate(self.records)
        ]


def _of_step(step: int) -> str:
    return f"rl_step_{step:08}"


def _write(file: Path, predictions: Sequence[Prediction]) -> None:
    file.parent.mkdir(exist_ok=True)
    write_predictions(file, predictions)
