"""TrainState: everything on the device that training remembers, and the two compiled halves of an update.

An update is any number of equal-shaped micro-batches: `accumulate` adds a micro-batch's gradient *sum*,
`apply` divides by the update's token count and takes the optimiser's step. SFT and RL share both. An update whose loss
or gradient is NaN or infinite is skipped on the device: the host need not look at it first.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from onethinker_jax.model.parameters import join_adapters
from onethinker_jax.model.sharding import constrain_parameters, tree_shardings
from onethinker_jax.train.advantages import TaskMoments
from onethinker_jax.train.optimizer import parameter_names

Sums = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Skips:
    """How many updates were skipped because their loss or gradient was not finite."""

    total: jax.Array  # int32 []
    in_a_row: jax.Array  # int32 [], the newest ones; 0 after an update that was taken

    @classmethod
    def none(cls) -> "Skips":
        """Of a stage at its start."""
        return cls(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Parameters, optimiser state, update count, the reward moments of EMA-GRPO, skips, and the reference policy.

    With LoRA the parameters, here and in `reference` and `behaviour`, are the adapters alone: the base, which no update
    changes, is no part of the state. `behaviour` is only in checkpoints whose next rollout is still to be sampled from
    older parameters.
    """

    params: nnx.State
    optimizer: optax.OptState
    step: jax.Array  # int32 [], updates that were taken
    moments: TaskMoments
    skips: Skips
    reference: nnx.State | None = None
    behaviour: nnx.State | None = None


def init_state(
    params: nnx.State,
    optimizer: optax.GradientTransformation,
    moments: TaskMoments,
    mesh: Mesh,
    *,
    reference: bool,
) -> TrainState:
    """A state at step 0 around `params`, its optimiser moments lying where the parameters do."""
    opt_state = jax.jit(
        lambda params: optimizer.init(in_dtype(params, "float32")),
        out_shardings=tree_shardings(optimizer_shapes(optimizer, params), mesh),
    )(params)
    copy = jax.tree.map(jnp.copy, params) if reference else None
    # Laid out as `apply` returns them, so that it is compiled once; copied, as no two donated leaves may share.
    everywhere = NamedSharding(mesh, PartitionSpec())
    step, skips = jax.device_put((jnp.zeros((), jnp.int32), Skips.none()), everywhere)
    moments = jax.device_put(jax.tree.map(jnp.copy, moments), everywhere)
    return TrainState(params, opt_state, step, moments, skips, copy)


def optimizer_shapes(optimizer: optax.GradientTransformation, params: nnx.State) -> optax.OptState:
    """Shapes of the optimiser's state; its moments are float32 whatever the parameters are kept in."""
    return jax.eval_shape(lambda params: optimizer.init(in_dtype(params, "float32")), params)


@dataclass(frozen=True)
class Update:
    """The compiled halves of an update.

    `accumulate(params, reference, gradients, batch, base) -> (gradients, sums)` and
    `apply(state, gradients, count, loss) -> (state, gradient norm)`. An update starts from `zeros(params)`, or from
    None where it has one micro-batch, whose gradients need no sum. `base` is what adapters are added to, by default
    nothing. Where `loss`, the update's sum, or the norm is not finite, `apply` gives the state as it was, bit for bit,
    with one more skip.
    """

    accumulate: Callable[..., tuple[nnx.State, Sums]]
    apply: Callable[[TrainState, nnx.State, jax.Array, jax.Array], tuple[TrainState, jax.Array]]
    zeros: Callable[[nnx.State], nnx.State]


def make_update(
    loss: Callable[[nnx.State, nnx.State | None, Any], tuple[jax.Array, Sums]],
    optimizer: optax.GradientTransformation,
    *,
    compute_dtype: str = "float32",
    stop_after: int = 0,
) -> Update:
    """Compiles an update around `loss(params, reference, batch) -> (summed loss, sums to report)`.

    `loss` sees whole trees of parameters in `compute_dtype`, adapters joined with their base; gradients add up and the
    optimiser steps in float32. After `stop_after` skips in a row nothing is taken or counted any more, so that the
    state is still that of the skipped updates when the host comes to look; 0: it always goes on.
    """

    def typed_loss(
        params: nnx.State, reference: nnx.State | None, batch: Any, base: nnx.State | None
    ) -> tuple[jax.Array, Sums]:
        base = in_dtype(base, compute_dtype)
        anchor = None if reference is None else join_adapters(in_dtype(reference, compute_dtype), base)
        return loss(join_adapters(in_dtype(params, compute_dtype), base), anchor, batch)

    def accumulate(
        params: nnx.State,
        reference: nnx.State | None,
        gradients: nnx.State | None,
        batch: Any,
        base: nnx.State | None = None,
    ) -> tuple[nnx.State, Sums]:
        (total, sums), new = jax.value_and_grad(typed_loss, has_aux=True)(params, reference, batch, base)
        new = constrain_parameters(in_dtype(new, "float32"))
        whole = new if gradients is None else jax.tree.map(jnp.add, gradients, new)
        return whole, {"loss": total, **sums}

    def apply(
        state: TrainState, gradients: nnx.State, count: jax.Array, loss: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        gradients = jax.tree.map(lambda g: g / jnp.maximum(count, 1), gradients)
        norm = optax.global_norm(gradients)
        finite = jnp.isfinite(norm) & jnp.isfinite(loss)
        stopped = state.skips.in_a_row >= stop_after if stop_after else jnp.zeros((), bool)
        masters = in_dtype(state.params, "float32")
        updates, opt_state = optimizer.update(gradients, state.optimizer, masters)
        stepped: Any = optax.apply_updates(masters, updates)
        params = jax.tree.map(lambda new, old: new.astype(old.dtype), stepped, state.params)
        # a choice leaf by leaf, not a branch: it is fused into the step and writes into the same buffers
        params, opt_state, step = jax.tree.map(
            lambda new, old: jnp.where(finite & ~stopped, new, old),
            (params, opt_state, state.step + 1),
            (state.params, state.optimizer, state.step),
        )
        skips = _counted(state.skips, finite, stopped)
        return TrainState(params, opt_state, step, state.moments, skips, state.reference), norm

    return Update(
        accumulate=jax.jit(accumulate, donate_argnums=2),
        apply=jax.jit(apply, donate_argnums=0),
        zeros=jax.jit(lambda params: constrain_parameters(_zeros(params))),
    )


class InFlight:
    """Keeps the host near the devices, so that a stop has little to wait for: JAX lets it run dozens of calls ahead."""

    MOST = 2  # one that is at work, and one behind it, so that the devices never wait for the host

    def __init__(self) -> None:
        self._outputs: deque[Any] = deque()

    def add(self, outputs: Any) -> None:
        """Takes what a micro-batch will give; waits until no more than `MOST` are under way."""
        self._outputs.append(outputs)
        while len(self._outputs) > self.MOST:
            jax.block_until_ready(self._outputs.popleft())


def _counted(skips: Skips, finite: jax.Array, stopped: jax.Array) -> Skips:
    """The skips after an update."""
    skipped = (~finite & ~stopped).astype(jnp.int32)
    going_on = jnp.where(finite & ~stopped, 0, skips.in_a_row)
    return Skips(skips.total + skipped, going_on + skipped)


def in_dtype(params: Any, dtype: str) -> Any:
    """A tree of parameters in `dtype`."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def _zeros(params: nnx.State) -> nnx.State:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params)


def freeze_vision(params: nnx.State) -> nnx.State:
    """The same parameters; no gradient reaches the vision tower's."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.lax.stop_gradient(leaf) if parameter_names(path)[0] == "visual" else leaf,
        params,
    )
