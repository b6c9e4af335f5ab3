"""What a run would do, with everything checked that can be and nothing compiled: `train … --dry-run`.

It goes the run's own way up to the first weight. What it leaves in the run's folder (settings, a world, the
base, lengths) is what the run makes first, and finds there.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from onethinker_jax.data_pipeline.processor.record_lengths import UNKNOWN
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.generation.generate import make_programs
from onethinker_jax.model.sharding import data_shards, tree_shardings
from onethinker_jax.responses import generation_shape, sampling_config, suppressed_ids
from onethinker_jax.sampler_settings import SamplerSettings
from onethinker_jax.tasks import MOMENTS
from onethinker_jax.train.checkpoints.checkpoints import Checkpoints
from onethinker_jax.train.config.model import ModelSettings
from onethinker_jax.train.config.optimizer import OptimizerSettings
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.cost.hardware import GIB
from onethinker_jax.train.cost.program_cost import device_bytes
from onethinker_jax.train.heldout import sampled_stages, stages_of
from onethinker_jax.train.hosts import join_hosts
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.plans.shapes import (
    decoding_shapes,
    moved,
    shard_shapes,
    state_shapes,
    training_layout,
)
from onethinker_jax.train.policy import abstract_model
from onethinker_jax.train.run import Ready, begin, connect_service, open_log, prepare


@dataclass(frozen=True)
class StageMemory:
    """Bytes of a device that a stage needs at least, by kind."""

    stage: str
    kinds: dict[str, float]

    @property
    def total(self) -> float:
        """Of all kinds."""
        return sum(self.kinds.values())


def dry_run(config: TrainConfig) -> None:
    """Checks what `run` checks before its first step, the reward service included, and says what it would do.

    Raises what `run` would.
    """
    hosts = join_hosts(config.hosts)
    hosts.share(config)
    notes = begin(config, hosts)
    with open_log(config, hosts) as log:
        for note in notes:
            log.info(note)
        if hosts.gather(config.folder.finished)[0]:
            log.info("this run is finished: nothing is left to do")
            return
        ready = prepare(config, hosts, log)
        with connect_service(config, hosts.folder(config), log):
            pass
        sizes = Qwen3VLConfig.from_directory(config.model.init_from or config.folder.base)
        _say_start(config, log)
        log.table("What would run", ["stage", *_COLUMNS], stage_rows(config, ready))
        _say_memory(config, ready, sizes, log)
        log.info("dry run: everything checked, nothing trained; the same command without --dry-run begins")


def _say_start(config: TrainConfig, log: RunLog) -> None:
    checkpoints = Checkpoints(config.checkpoint_directory)
    newest = checkpoints.newest()
    checkpoints.close()
    if newest is not None:
        number, host = newest
        done = number - (config.sft.steps if host["stage"] == "rl" else 0)
        log.info(f"goes on from the checkpoint after {host['stage'].upper()} step {done}")


_COLUMNS = ("steps", "records", "examples a step", "passes over the records", "tokens a step, at most")


def stage_rows(config: TrainConfig, ready: Ready) -> list[list[object]]:
    """A row a stage: steps, records, examples of a step, how often each record comes, tokens of a step.

    Examples of an SFT step are at most those that fill its rows, by the mean lengths of the records.
    """
    rows: list[list[object]] = []
    sft, rl, corpora = config.sft, config.rl, ready.corpora
    if sft.steps:
        batch = sft.batch
        tokens = batch.rows * batch.tokens * sft.accumulate
        lengths = ready.lengths["sft"]
        means = (
            lengths[lengths[:, 0] != UNKNOWN].mean(axis=0)
            if (lengths[:, 0] != UNKNOWN).any()
            else np.zeros(2)
        )
        capacity = np.array([tokens, batch.rows * batch.patches * sft.accumulate])
        examples = float((capacity / np.maximum(means, 1e-9)).min()) if means[0] else None
        passes = None if examples is None else sft.steps * examples / len(corpora.sft)
        rows.append(
            [
                "SFT",
                sft.steps,
                len(corpora.sft),
                None if examples is None else f"up to {examples:,.0f}",
                passes,
                f"{tokens:,}",
            ]
        )
    if rl.steps:
        drawn = f"{rl.prompts_per_step:,} prompts x {rl.rollout.group_size} answers"
        tokens = rl.prompts_per_step * rl.rollout.group_size * rl.rollout.max_new_tokens
        rows.append(
            [
                "RL",
                rl.steps,
                len(corpora.rl),
                drawn,
                rl.steps * rl.prompts_per_step / len(corpora.rl),
                f"{tokens:,} sampled",
            ]
        )
    answered = len(stages_of(config)) + len(sampled_stages(config))
    rows.append(["held-out answers", None, len(corpora.heldout), None, float(answered), None])
    return rows


def _say_memory(config: TrainConfig, ready: Ready, sizes: Qwen3VLConfig, log: RunLog) -> None:
    shapes = nnx.state(abstract_model(sizes, config.model))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    log.info(f"model: {count:,} parameters, on {ready.mesh.size} x {jax.devices()[0]}")
    stages = stage_memory(config, ready, sizes)
    kinds = list(dict.fromkeys(kind for stage in stages for kind in stage.kinds))
    rows = [[kind, *(_gib(stage.kinds.get(kind)) for stage in stages)] for kind in kinds]
    rows.append(["together, at least", *(_gib(stage.total) for stage in stages)])
    log.table("Estimated memory of a device, GiB", ["", *(stage.stage for stage in stages)], rows)
    log.info("what programs need beside it only compiling tells: python -m onethinker_jax.train.plan")


def _gib(size: float | None) -> str | None:
    return None if size is None else f"{size / GIB:,.3f}"


def stage_memory(config: TrainConfig, ready: Ready, sizes: Qwen3VLConfig) -> list[StageMemory]:
    """What each stage with steps keeps on a device, from shapes and shardings alone."""
    graphdef, shapes = nnx.split(abstract_model(sizes, config.model))
    mesh, found = ready.mesh, []
    lying = training_layout(shapes, mesh)

    def training(optimizer: OptimizerSettings, updates: int, tasks: int, **kept: bool) -> dict[str, float]:
        made = make_optimizer(optimizer, updates, train_vision=kept["train_vision"])
        state, gradients = state_shapes(lying["parameters"], made, tasks, mesh, reference=kept["reference"])
        kinds = {**lying, "optimiser": state.optimizer, "gradients": gradients}
        return {name: device_bytes(tree) for name, tree in kinds.items()} | (
            {"reference": device_bytes(state.reference)} if kept["reference"] else {}
        )

    shards = data_shards(mesh)
    with jax.set_mesh(mesh):
        if config.sft.steps:
            sft = config.sft
            kinds = training(sft.optimizer, sft.steps, 1, train_vision=sft.train_vision, reference=False)
            rows = -(-sft.batch.rows // shards)
            kinds["activations kept for the backward pass"] = kept_activations(
                config.model, sizes, rows * sft.batch.tokens, rows * sft.batch.patches * sft.train_vision
            )
            found.append(StageMemory("SFT", kinds))
        if config.rl.steps:
            rl = config.rl
            rollout = rl.rollout.all_together(rl.prompts_per_step)
            updates, tasks = rl.steps * rl.num_minibatches, len(MOMENTS)
            kinds = training(
                rl.optimizer, updates, tasks, train_vision=True, reference=rl.loss.kl_coefficient > 0
            )
            rows = -(-rl.batch.rows // shards)
            kinds["activations kept for the backward pass"] = kept_activations(
                config.model, sizes, rows * rl.batch.tokens, rows * rl.batch.patches
            )
            found.append(StageMemory("RL, update", kinds))
            resting = {name: kinds[name] for name in (*lying, "optimiser", "reference") if name in kinds}
            found.append(
                StageMemory("RL, rollouts", resting | _decoding(rollout, config, ready, graphdef, shapes))
            )
        answers = _decoding(config.evaluation.sampler, config, ready, graphdef, shapes)
        weights = {kind: device_bytes(tree) for kind, tree in lying.items()}
        found.append(StageMemory("held-out answers", weights | answers))
    return found


def _decoding(
    settings: SamplerSettings, config: TrainConfig, ready: Ready, graphdef: nnx.GraphDef, shapes: nnx.State
) -> dict[str, float]:
    """Weights to decode with, where they are others than the policy's, and the KV cache, laid evenly over the mesh."""
    mesh, dtype, processor = ready.mesh, config.model.compute_dtype, ready.processor
    sampling = sampling_config(
        settings, eos_ids=processor.ends.eos_ids, suppressed_ids=suppressed_ids(processor)
    )
    shards = data_shards(mesh)
    functions: Any = make_programs(graphdef, sampling, generation_shape(settings, dtype, shards))
    weights = decoding_shapes(shapes, mesh, dtype, settings.weights_dtype)
    cache = jax.eval_shape(functions.empty, weights)
    kinds = {"KV cache": device_bytes(cache) / mesh.size}
    layout = shard_shapes(shapes, tree_shardings(shapes, mesh))
    if copied := device_bytes(moved(weights, layout)):
        kinds["weights to decode"] = copied
    return kinds


def kept_activations(model: ModelSettings, sizes: Qwen3VLConfig, tokens: int, patches: int) -> float:
    """Bytes of the layers' activations of a micro-batch on a device that `model.remat` keeps for its backward pass.

    With `full` a layer's input; with `dots` its matrix products and attention too; with `none` about twice as much.
    """
    text, vision = sizes.text, sizes.vision
    item = jnp.dtype(model.compute_dtype).itemsize

    def of_layer(width: int, products: int) -> int:
        return {"full": width, "dots": width + products, "none": 2 * (width + products)}[model.remat]

    heads = 2 * (text.num_heads + text.num_kv_heads) * text.head_dim
    feed_forward = 2 * text.intermediate_size
    if text.moe is not None:
        feed_forward = 2 * text.moe.intermediate_size * text.moe.experts_per_token
    a_token = text.num_layers * of_layer(text.hidden_size, heads + 2 * text.hidden_size + feed_forward)
    seen = 6 * vision.hidden_size + vision.intermediate_size
    a_patch = vision.depth * of_layer(vision.hidden_size, seen)
    return float(item * (tokens * a_token + patches * a_patch))
