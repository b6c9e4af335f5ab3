"""Model FLOPs utilisation of the policy update: the FLOPs that its micro-batches need over what the devices could do.

Counted as `plan` does, from the traced program without recomputation, padding included, but the output head's by
the tokens that went through it; the peak is the chip's dense bfloat16 FLOP/s. Where the chip's peak is not known,
as on a CPU, there is no such metric.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import jax
import numpy as np
import optax
from flax import nnx

from onethinker_jax.model.generation.generate import SamplingConfig
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import process_count
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.cost.hardware import chip_of
from onethinker_jax.train.cost.program_cost import count_flops, of_frames, without_recomputation
from onethinker_jax.train.policy import Policy
from onethinker_jax.train.rl.policy_update import PolicyBatch, policy_batches, rl_update
from onethinker_jax.train.rl.rollouts import Group
from onethinker_jax.train.state import TrainState


class Utilisation:
    """The metric "mfu" of the updates of a run on a mesh of known chips; else no metric."""

    def __init__(
        self,
        policy: Policy,
        optimizer: optax.GradientTransformation,
        settings: RLSettings,
        sampling: SamplingConfig,
    ):
        mesh = policy.mesh
        chip = chip_of(mesh.devices.flat[0].device_kind)
        self._processes = process_count(mesh)
        # FLOP/s of the devices that share this process's part of a micro-batch
        self._peak = None if chip is None else chip.flops * mesh.size / self._processes
        self._program = (policy, optimizer, settings, sampling)
        self._settings = settings
        self._flops: tuple[float, float] | None = None  # of a micro-batch: their shapes are all the same

    def metrics(
        self, metrics: Mapping[str, float], state: TrainState, groups: Sequence[Group]
    ) -> dict[str, float]:
        """Of a step with these `metrics`, trained on `groups`."""
        if self._peak is None:
            return {}
        if self._flops is None:
            nothing = np.zeros((len(groups), len(groups[0].scores)), np.float32)
            batches = policy_batches(groups, nothing, self._settings)
            if not batches:
                return {}
            self._flops = update_flops(*self._program, state, batches[0])
        tokens = metrics["trained_tokens"] / self._processes
        done = self._flops[0] * metrics["micro_batches"] + self._flops[1] * tokens
        return {"mfu": done / (self._peak * metrics["seconds/update"])}


def update_flops(
    policy: Policy,
    optimizer: optax.GradientTransformation,
    settings: RLSettings,
    sampling: SamplingConfig,
    state: TrainState,
    batch: PolicyBatch,
) -> tuple[float, float]:
    """FLOPs of the loss and the gradients of one micro-batch but for its head, and the head's of a target token.

    Nothing that is computed again counts again.
    """
    model: Qwen3VL = nnx.merge(policy.graphdef, jax.eval_shape(lambda: state.params))
    model.remat = "none"
    update = rl_update(replace(policy, graphdef=nnx.split(model)[0]), optimizer, settings, sampling)
    gradients = jax.eval_shape(update.zeros, state.params)
    traced = jax.make_jaxpr(update.accumulate)(state.params, state.reference, gradients, batch)
    counts = count_flops(traced.jaxpr, skip_conditional=True)  # the head, chunks of which may have no target
    counts = without_recomputation(of_frames(counts, _largest_frame(batch)))
    text = model.config.text
    passes = 3 + (state.reference is not None)  # forward, and backward twice
    return float(sum(counts.values())), 2.0 * passes * text.hidden_size * text.vocab_size


def _largest_frame(batch: PolicyBatch) -> float:
    """The share of a row of patches that the largest frame takes."""
    if batch.batch.inputs.vision is None:
        return 1.0
    frames = np.asarray(batch.batch.inputs.vision.frame_ids)
    return max(np.bincount(row[row > 0]).max(initial=1) for row in frames) / frames.shape[1]
