"""The SFT loop: packed conversations -> cross entropy on the assistant's tokens -> AdamW."""

import time
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float

from onethinker_jax.data_pipeline.batches.loader import TrainingBatches
from onethinker_jax.data_pipeline.batches.packing import Batch, packing_efficiency
from onethinker_jax.data_pipeline.batches.redealing import redeal_batches
from onethinker_jax.model.parameters import join_adapters, split_adapters
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import shard_rows
from onethinker_jax.train.advantages import init_moments
from onethinker_jax.train.config.sft import SFTSettings
from onethinker_jax.train.health.replay_folder import FailedUpdate, record_row
from onethinker_jax.train.health.stage_health import NotedUpdate, StageHealth, forgiven
from onethinker_jax.train.lm_head import token_logprobs
from onethinker_jax.train.open_run import Run
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.policy import Policy
from onethinker_jax.train.state import (
    InFlight,
    Sums,
    TrainState,
    Update,
    freeze_vision,
    init_state,
    make_update,
)


def train_sft(
    policy: Policy, params: nnx.State, batches: TrainingBatches, settings: SFTSettings, run: Run
) -> nnx.State:
    """Trains for `settings.steps` updates, from the newest SFT checkpoint if there is one; returns parameters.

    Every process's `batches` are its own rows. Raises KeyboardInterrupt after a checkpoint of the step under way when
    Ctrl-C was pressed, and `Terminated` at SIGTERM; where that cuts the step, after one of the step before. Raises
    NotFinite after too many updates in a row that were not finite, when the next step is logged or saved: after a
    checkpoint of the last of them.
    """
    optimizer = make_optimizer(settings.optimizer, settings.steps, train_vision=settings.train_vision)
    update = sft_update(policy, optimizer, settings, stop_after=run.health.max_consecutive_nonfinite)
    trained, base = split_adapters(params)
    state = init_state(trained, optimizer, init_moments(1), policy.mesh, reference=False)
    health = StageHealth("sft", run)
    state, start = _resume(state, batches, health, run)
    run.log.stage("sft", settings.steps, start)
    meter, began, stopping, flying = [], time.perf_counter(), False, InFlight()

    with health, run.notice.deferred(run.log) as notice:
        for step in range(start + 1, settings.steps + 1):
            place, sums = batches.state(), None
            gradients = update.zeros(state.params) if settings.accumulate > 1 else None
            for _ in range(settings.accumulate):
                if stopping and run.hosts.any(notice.cut.is_set()):
                    if step > start + 1:
                        _catch_up(step - 1, state, batches, settings, health, run)
                        run.save(step - 1, state, "sft", place, health=health.checkpointed(step - 1))
                    raise notice.stop()
                batch = next(batches)
                meter.append((*packing_efficiency(batch), batch.targets.size))
                batch = shard_rows(batch, policy.mesh)
                gradients, new = update.accumulate(state.params, None, gradients, batch, base)
                flying.add(new)
                sums = new if sums is None else jax.tree.map(jnp.add, sums, new)
                stopping = stopping or notice.reached()
            assert sums is not None
            assert gradients is not None
            state, norm = update.apply(state, gradients, sums["tokens"], sums["loss"])
            health.note(NotedUpdate(step, place, sums["loss"], norm))

            last = step == settings.steps
            logged = last or step % settings.log_every == 0
            if logged:
                _catch_up(step, state, batches, settings, health, run)  # waits for the device
                health.beat(step)
                values = {"loss": float(sums["loss"] / sums["tokens"]), "grad_norm": float(norm)}
                values |= _throughput(list(chain(*run.hosts.gather(meter))), began)
                run.log.metrics(step, values | health.metrics(step, values))
                meter, began = [], time.perf_counter()
            if stopping or last or step % settings.save_every == 0:
                _catch_up(step, state, batches, settings, health, run)
                run.save(step, state, "sft", batches.state(), health=health.checkpointed(step))
            if stopping:
                notice.agreed(run.hosts)
                raise notice.stop()
    return join_adapters(state.params, base)


def _resume(
    state: TrainState, batches: TrainingBatches, health: StageHealth, run: Run
) -> tuple[TrainState, int]:
    """The state and the step to go on from, and the batches' place there: the newest checkpoint's, if there is one."""
    if (saved := run.newest()) is None:
        health.begin(state)
        return state, 0
    number, host = saved
    with run.log.doing(f"reading checkpoint {number}"):
        state = run.checkpoints.restore(number, state)
    batches.restore(run.own(host, redeal_batches))
    health.begin(state, host["health"])
    return state, number


def _catch_up(
    step: int,
    state: TrainState,
    batches: TrainingBatches,
    settings: SFTSettings,
    health: StageHealth,
    run: Run,
) -> None:
    """Raises NotFinite where too many updates in a row were skipped, once the last of them is kept and saved.

    What came behind it in the meantime was not taken either, and its records come again. The micro-batches are made
    once more from their place, since no batch is kept while the device is at work.
    """
    health.catch_up(step, state)
    if (failing := health.failing) is None:
        return
    micro_batches: list[Batch] = []
    records: list[dict[str, Any]] = []
    batches.restore(failing.place)
    for number in range(settings.accumulate):
        before = batches.state()
        micro_batches.append(next(batches))
        found = batches.records(before, batches.state())
        records += [{"micro_batch": number, **record_row(record)} for record in found]
    failed = FailedUpdate(failing.step, float(failing.loss), float(failing.norm), micro_batches, records)
    error = health.keep(failed, state)
    run.save(failing.step, forgiven(state), "sft", batches.state(), health=health.checkpointed(failing.step))
    raise error


def sft_update(
    policy: Policy, optimizer: optax.GradientTransformation, settings: SFTSettings, *, stop_after: int = 0
) -> Update:
    """The compiled update of SFT; `stop_after` is that of `make_update`."""

    def loss(params: nnx.State, _: nnx.State | None, batch: Batch) -> tuple[jax.Array, Sums]:
        return sft_loss(policy.graphdef, params, batch, train_vision=settings.train_vision)

    return make_update(loss, optimizer, compute_dtype=policy.compute_dtype, stop_after=stop_after)


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
    hidden, head = model(batch.inputs), model.head()
    logprobs, _ = token_logprobs(hidden, head, targets, mask, head_is_trained=model.lora is None)
    return cross_entropy(logprobs, mask), {"tokens": jnp.sum(mask).astype(jnp.float32)}


def cross_entropy(logprobs: Float[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, ""]:
    """-sum of log pi(target) over the target tokens."""
    return -jnp.sum(jnp.where(mask, logprobs, 0.0))


def _throughput(meter: list[tuple[float, float, int]], began: float) -> dict[str, float]:
    """Tokens a second since `began`, and packing efficiency; a meter entry: that of tokens, of patches, and B x T."""
    of_tokens, of_patches, capacity = np.array(meter, np.float64).T
    return {
        "tokens_per_second": float((of_tokens * capacity).sum() / (time.perf_counter() - began)),
        "packing_efficiency/tokens": float(of_tokens.mean()),
        "packing_efficiency/patches": float(of_patches.mean()),
    }
