"""The SFT loop: packed conversations -> cross entropy on the assistant's tokens -> AdamW."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from onethinker_jax.data_pipeline.batches.loader import TrainingBatches
from onethinker_jax.data_pipeline.batches.packing import Batch, packing_efficiency
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import shard_rows
from onethinker_jax.train.advantages import init_moments
from onethinker_jax.train.checkpoint import Checkpoints
from onethinker_jax.train.config.sft import SFTSettings
from onethinker_jax.train.hosts import ALONE, Hosts
from onethinker_jax.train.interrupt import deferred_interrupt
from onethinker_jax.train.log.log import RunLog
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
    hosts: Hosts = ALONE,
    checkpoints: Checkpoints,
    log: RunLog,
) -> nnx.State:
    """Trains for ``settings.steps`` updates, from the newest SFT checkpoint if there is one; returns parameters.

    Every process's ``batches`` are its own rows.  Raises KeyboardInterrupt after a checkpoint when Ctrl-C was
    pressed; several processes stop at the next step that is logged.
    """
    optimizer = make_optimizer(settings.optimizer, settings.steps, train_vision=settings.train_vision)
    update = sft_update(graphdef, optimizer, settings, compute_dtype)
    state = init_state(params, optimizer, init_moments(1), mesh, reference=False)
    start = 0
    if (saved := checkpoints.newest()) is not None:
        number, host = saved
        with log.doing(f"reading checkpoint {number}"):
            state = checkpoints.restore(number, state)
        batches.restore(hosts.own(host["hosts"]))
        start = number
    log.stage("sft", settings.steps, start)
    meter, began, stopping = [], time.perf_counter(), False

    with deferred_interrupt(log) as interrupt:
        for step in range(start + 1, settings.steps + 1):
            gradients, sums = update.zeros(state.params), None
            for _ in range(settings.accumulate):
                batch = next(batches)
                meter.append((*packing_efficiency(batch), batch.targets.size))
                gradients, new = update.accumulate(state.params, None, gradients, shard_rows(batch, mesh))
                sums = new if sums is None else jax.tree.map(jnp.add, sums, new)
            assert sums is not None
            state, norm = update.apply(state, gradients, sums["tokens"])
            logged = step % settings.log_every == 0 or step == settings.steps
            if logged:
                loss = float(sums["loss"] / sums["tokens"])  # waits for the device
                speed = _throughput([entry for of_one in hosts.gather(meter) for entry in of_one], began)
                log.metrics(step, {"loss": loss, "grad_norm": float(norm), **speed})
                meter, began = [], time.perf_counter()
            if logged or hosts.count == 1:  # to ask the others is to wait for the device
                stopping = hosts.any(interrupt.requested)
            if stopping or step % settings.save_every == 0 or step == settings.steps:
                checkpoints.save(step, state, {"stage": "sft", "hosts": hosts.gather(batches.state())})
            if stopping:
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
    targets, mask = jnp.asarray(batch.targets), jnp.asarray(batch.target_mask)
    logprobs, _ = token_logprobs(model(batch.inputs), model.head(), targets, mask)
    return cross_entropy(logprobs, mask), {"tokens": jnp.sum(mask).astype(jnp.float32)}


def _throughput(meter: list[tuple[float, float, int]], began: float) -> dict[str, float]:
    """Tokens a second and fill of batches since ``began``; a meter entry is (token fill, patch fill, token places)."""
    of_tokens, of_patches, capacity = np.array(meter, np.float64).T
    return {
        "tokens_per_second": float((of_tokens * capacity).sum() / (time.perf_counter() - began)),
        "packing_efficiency/tokens": float(of_tokens.mean()),
        "packing_efficiency/patches": float(of_patches.mean()),
    }
