"""The SFT loop: packed conversations -> cross entropy on the assistant's tokens -> AdamW."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from onethinker_jax.data_pipeline.loader import TrainingBatches
from onethinker_jax.data_pipeline.packing import Batch, fill_of
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import shard_rows
from onethinker_jax.train.advantages import init_moments
from onethinker_jax.train.checkpoint import Checkpoints, deferred_interrupt
from onethinker_jax.train.config import SFTSettings
from onethinker_jax.train.log import RunLog
from onethinker_jax.train.losses import cross_entropy, token_logprobs
from onethinker_jax.train.state import Sums, Update, freeze_vision, init_state, make_optimizer, make_update


def train_sft(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    batches: TrainingBatches,
    settings: SFTSettings,
    *,
    compute_dtype: str = "float32",
    mesh: Mesh,
    checkpoints: Checkpoints,
    log: RunLog,
) -> nnx.State:
    """Trains for ``settings.steps`` updates, from the newest SFT checkpoint if there is one; returns parameters.

    Raises KeyboardInterrupt after a checkpoint when Ctrl-C was pressed.
    """
    optimizer = make_optimizer(settings.optimizer, settings.steps, train_vision=settings.train_vision)
    update = sft_update(graphdef, optimizer, settings, compute_dtype)
    state = init_state(params, optimizer, init_moments(1), mesh, reference=False)
    start = 0
    if (saved := checkpoints.newest()) is not None:
        number, host = saved
        state = checkpoints.restore(number, state)
        batches.restore(host["batches"])
        start = number
    log.stage("sft", settings.steps, start)
    meter, began = [], time.perf_counter()

    with deferred_interrupt("Stopping: finishing this step and saving a checkpoint …", log) as interrupt:
        for step in range(start + 1, settings.steps + 1):
            gradients, sums = update.zeros(state.params), None
            for _ in range(settings.accumulate):
                batch = next(batches)
                meter.append((fill_of(batch), batch.targets.size))
                gradients, new = update.accumulate(state.params, None, gradients, shard_rows(batch, mesh))
                sums = new if sums is None else jax.tree.map(jnp.add, sums, new)
            assert sums is not None
            state, norm = update.apply(state, gradients, sums["tokens"])
            if step % settings.log_every == 0 or step == settings.steps:
                loss = float(sums["loss"] / sums["tokens"])  # waits for the device
                log.metrics(step, {"loss": loss, "grad_norm": float(norm), **_throughput(meter, began)})
                meter, began = [], time.perf_counter()
            last = step == settings.steps or interrupt.requested
            if last or step % settings.save_every == 0:
                checkpoints.save(step, state, {"stage": "sft", "batches": batches.state()})
            if interrupt.requested:
                raise KeyboardInterrupt
    return state.params


def sft_update(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    settings: SFTSettings,
    compute_dtype: str,
) -> Update:
    """The compiled update of SFT."""

    def loss(params: nnx.State, _: nnx.State | None, batch: Batch) -> tuple[jax.Array, Sums]:
        return sft_loss(graphdef, params, batch, train_vision=settings.train_vision)

    return make_update(loss, optimizer, compute_dtype=compute_dtype)


def sft_loss(
    graphdef: nnx.GraphDef, params: nnx.State, batch: Batch, *, train_vision: bool = True
) -> tuple[jax.Array, Sums]:
    """Summed cross entropy of a micro-batch over its assistant tokens, and their number.

    A frozen vision tower's gradients are not computed: they are zeros.
    """
    if not train_vision:
        params = freeze_vision(params)
    model: Qwen3VL = nnx.merge(graphdef, params)
    logprobs, _ = token_logprobs(model(batch.inputs), model.head(), jnp.asarray(batch.targets))
    count = jnp.sum(batch.target_mask).astype(jnp.float32)
    return cross_entropy(logprobs, jnp.asarray(batch.target_mask)), {"tokens": count}


def _throughput(meter: list[tuple[tuple[float, float], int]], began: float) -> dict[str, float]:
    """Tokens a second and fill of the batches since ``began``; a meter entry is (fills, token places)."""
    places = np.array([size for _, size in meter], np.float64)
    fills = np.array([fill for fill, _ in meter])
    return {
        "tokens_per_second": float((fills[:, 0] * places).sum() / (time.perf_counter() - began)),
        "token_fill": float(fills[:, 0].mean()),
        "patch_fill": float(fills[:, 1].mean()),
    }
