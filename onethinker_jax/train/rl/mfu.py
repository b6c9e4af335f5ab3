"""Model FLOPs utilisation of the policy update: the FLOPs that its micro-batches need over what the devices could do.

Counted as `plan` does, from the traced program without recomputation: matrix products with the padding of their rows,
the output head's by the tokens that went through it, attention's by the pairs of tokens that see each other in the
micro-batches' own segments and branches. The peak is the chip's dense bfloat16 FLOP/s. Where the chip's peak is not
known, as on a CPU, there is no such metric.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import jax
import numpy as np
import optax
from flax import nnx

from onethinker_jax.model.attention.flash_blocks import pairs_of_one_segment
from onethinker_jax.model.attention.pair_count import seen_pairs
from onethinker_jax.model.generation.generate import SamplingConfig
from onethinker_jax.model.parameters import join_adapters
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import process_count
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.cost.hardware import chip_of
from onethinker_jax.train.cost.program_cost import count_flops, without_recomputation
from onethinker_jax.train.policy import Policy
from onethinker_jax.train.rl.policy_update import PolicyBatch, rl_update
from onethinker_jax.train.state import TrainState


@dataclass(frozen=True)
class UpdateFlops:
    """FLOPs of loss and gradients of micro-batches of one shape; what is computed again does not count again."""

    body: float  # of a micro-batch: all but the head and attention
    head: float  # of a target token
    text: float  # of a pair of text tokens that see each other
    patches: float  # of a pair of patches

    def of(self, micro_batches: float, tokens: float, pairs: np.ndarray) -> float:
        """Of `micro_batches` that hold `tokens` target tokens and `pairs`: [pairs of text, pairs of patches]."""
        return float(
            self.body * micro_batches + self.head * tokens + np.dot((self.text, self.patches), pairs)
        )


class Utilisation:
    """The metric "mfu" of the updates of a run on a mesh of known chips; else no metric."""

    def __init__(
        self,
        policy: Policy,
        optimizer: optax.GradientTransformation,
        settings: RLSettings,
        sampling: SamplingConfig,
        base: nnx.State | None = None,
    ):
        mesh = policy.mesh
        chip = chip_of(mesh.devices.flat[0].device_kind)
        self._processes = process_count(mesh)
        # FLOP/s of the devices that share this process's part of a micro-batch
        self._peak = None if chip is None else chip.flops * mesh.size / self._processes
        self._program = (policy, optimizer, settings, sampling)
        self._base = base
        self._flops: UpdateFlops | None = None  # of micro-batches: their shapes are all the same
        self._shapes: PolicyBatch | None = None
        self._pairs = np.zeros(2)

    def add(self, batch: PolicyBatch) -> None:
        """Counts the pairs of a micro-batch of the step, in the host's memory: while the devices work on it."""
        if self._peak is not None:
            self._pairs += batch_pairs(batch)
            self._shapes = self._shapes or jax.eval_shape(lambda: batch)

    def metrics(self, metrics: Mapping[str, float], state: TrainState) -> dict[str, float]:
        """Of the step with these `metrics` whose micro-batches were added since the last one."""
        if self._peak is None or self._shapes is None:
            return {}
        if self._flops is None:
            self._flops = update_flops(*self._program, state, self._shapes, self._base)
        pairs, self._pairs = self._pairs, np.zeros(2)
        tokens = metrics["trained_tokens"] / self._processes
        done = self._flops.of(metrics["micro_batches"], tokens, pairs)
        return {"mfu": done / (self._peak * metrics["seconds/update"])}


def batch_pairs(batch: PolicyBatch) -> np.ndarray:
    """int64 [2]: pairs of text tokens, and of patches, that see each other."""
    inputs = batch.batch.inputs
    text = seen_pairs(np.asarray(inputs.segment_ids), np.asarray(inputs.branch_ids), causal=True)
    if inputs.vision is None:
        return np.array([text, 0])
    frames = np.asarray(inputs.vision.frame_ids)
    return np.array([text, seen_pairs(frames, np.zeros_like(frames), causal=False)])


def update_flops(
    policy: Policy,
    optimizer: optax.GradientTransformation,
    settings: RLSettings,
    sampling: SamplingConfig,
    state: TrainState,
    batch: PolicyBatch,
    base: nnx.State | None = None,
) -> UpdateFlops:
    """What micro-batches of the shapes of `batch` cost."""
    model: Qwen3VL = nnx.merge(policy.graphdef, jax.eval_shape(lambda: join_adapters(state.params, base)))
    model.remat = "none"
    update = rl_update(replace(policy, graphdef=nnx.split(model)[0]), optimizer, settings, sampling)
    gradients = jax.eval_shape(update.zeros, state.params)
    traced = jax.make_jaxpr(update.accumulate)(state.params, state.reference, gradients, batch, base)
    counts = count_flops(traced.jaxpr, skip_conditional=True)  # the head, chunks of which may have no target
    of_text, of_patches = (
        without_recomputation({kind: n for kind, n in counts.items() if kind.endswith(end)})
        for end in ("_causal", "_full")
    )
    body = sum(n for kind, n in counts.items() if not kind.startswith("attention_"))
    inputs, text = batch.batch.inputs, model.config.text
    # Forward, and backward to the hidden states and to the head, where that is trained.
    passes = 2 + (base is None) + (state.reference is not None)
    return UpdateFlops(
        float(body),
        2.0 * passes * text.hidden_size * text.vocab_size,
        sum(of_text.values()) / _pairs_counted(inputs.segment_ids, causal=True),
        0.0
        if inputs.vision is None
        else sum(of_patches.values()) / _pairs_counted(inputs.vision.frame_ids, causal=False),
    )


def _pairs_counted(ids: jax.Array | np.ndarray, *, causal: bool) -> int:
    """The pairs that a kernel's own estimate takes rows of these ids [B, T] to have."""
    return pairs_of_one_segment(ids.size, ids.shape[1], causal)
