"""A whole RL step of our own loop: prompts of one image each, samples, a reward, advantages, two updates.

The images, questions and the reward are those of `benchmarks.rl_step`. The end token is never drawn, so that each
sample has its full length. The first step compiles and does not count.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import jax
from jax.sharding import Mesh
from rich.console import Console

from benchmarks.gpu.cases import Case, Scale, rl_config
from benchmarks.gpu.programs import Compiler
from benchmarks.gpu.table import Row
from benchmarks.gpu.weights import fresh_weights
from benchmarks.rl_step import write_records
from benchmarks.rl_step_ours import LetterScorer
from onethinker_jax.data_pipeline.batches.loader import RecordStream
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.tokenizer import record_texts, train_tokenizer
from onethinker_jax.data_pipeline.records.record import Record, read_records
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.responses import Sampler
from onethinker_jax.tasks import MOMENTS
from onethinker_jax.train.advantages import init_moments
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.hosts import Hosts
from onethinker_jax.train.log.compilation_watch import count_compilations
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.policy import Policy, planned_sizes
from onethinker_jax.train.rl.dynamic_sampling import Rollouts
from onethinker_jax.train.rl.learner import Learner
from onethinker_jax.train.state import TrainState, init_state

IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
STEPS = 2


def rl_step(case: Case, scale: Scale, mesh: Mesh, compiler: Compiler) -> Row:
    """The row of a step; the plan's programs of the same settings are compiled beside it, for what they cost."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        write_records(scratch, scale.rl_image)
        records = read_records(scratch / "records.json")
        processor = _processor(records, scratch / "tokenizer", case, scale)
        prompts = [processor.prompt(record) for record in records]
        longest = max(len(one.tokens) for one in prompts), max(len(one.patches) for one in prompts)
        config = rl_config(case.model, scale, longest)
        sizes = replace(planned_sizes(config.model), **{name: getattr(processor, name) for name in IDS})
        programs = [future.result() for future in compiler.begin(config, sizes).values()]
        step = _Step(scratch, config, sizes, mesh)
        seconds, metrics = step.run(records, processor)
    sampled = scale.rl_prompts * scale.group * scale.rl_new_tokens
    rollout, update = (metrics[f"seconds/{name}"] for name in ("rollout", "update"))
    return Row(
        *(case.part, case.size, "ours", seconds, sampled),
        work=tuple(one.work(one.program.runs) for one in programs),
        memory=max(one.memory for one in programs),
        notes=f"{scale.rl_prompts} prompts of {longest[0]} tokens x {scale.group} samples x {scale.rl_new_tokens}: "
        f"rollout {rollout:.2f} s, update {update:.2f} s in {metrics['micro_batches']:.0f} micro-batches"
        + (f", its mfu {metrics['mfu']:.0%}" if "mfu" in metrics else ""),
    )


def _processor(records: list[Record], folder: Path, case: Case, scale: Scale) -> Processor:
    """One whose samples never end early."""
    sizes = planned_sizes(rl_config(case.model, scale, (128, 128)).model)
    train_tokenizer(record_texts(records), folder, min(sizes.text.vocab_size, 8192))
    processor = Processor.from_pretrained(folder, grid_side=sizes.vision.grid_side)
    processor.ends = replace(processor.ends, eos_ids=(processor.vision_start_token_id,))
    return processor


class _Step:
    """The loop's own parts, without its checkpoints."""

    def __init__(self, scratch: Path, config: TrainConfig, sizes: Qwen3VLConfig, mesh: Mesh) -> None:
        self._scratch, self._config, self._sizes, self._mesh = scratch, config, sizes, mesh

    def run(self, records: list[Record], processor: Processor) -> tuple[float, dict[str, float]]:
        """Seconds and metrics of the last of `STEPS` steps. Raises RuntimeError where it compiled anything."""
        config, mesh = self._config, self._mesh
        rl, dtype = config.rl, config.model.compute_dtype
        graphdef, params = fresh_weights(self._sizes, config, mesh)
        optimizer = make_optimizer(rl.optimizer, rl.steps * rl.num_minibatches, train_vision=True)
        settings = rl.rollout.all_together(rl.prompts_per_step)
        sampler = Sampler(graphdef, processor, settings, mesh=mesh, compute_dtype=dtype)
        state = init_state(params, optimizer, init_moments(len(MOMENTS)), mesh, reference=False)
        del params
        with (
            count_compilations() as compilations,
            RunLog(self._scratch / "run", console=Console(quiet=True), beats=False) as log,
        ):
            log.stage("rl", STEPS, 0)
            stream = RecordStream(records, seed=0)
            rollouts = Rollouts(stream, sampler, LetterScorer(), rl, seed=0, log=log)
            learner = Learner(Policy(graphdef, mesh, dtype), optimizer, rl, rollouts)
            with rollouts:
                seconds, metrics, before = 0.0, {}, 0
                for step in range(1, STEPS + 1):
                    before = compilations.count
                    state, seconds, metrics = _one(step, rollouts, learner, state)
                if late := compilations.since(before):
                    raise RuntimeError(f"the counted step compiled {', '.join(late)}")
        return seconds, metrics


def _one(
    step: int, rollouts: Rollouts, learner: Learner, state: TrainState
) -> tuple[TrainState, float, dict[str, float]]:
    """The state after a step, the step's seconds, and its metrics."""
    began = time.perf_counter()
    rollout = rollouts.take(step, state.params)
    state, _, metrics = learner.learn(state, rollout, Hosts(), began)
    jax.block_until_ready(state.params)
    return state, time.perf_counter() - began, {**metrics, **rollout.metrics}
