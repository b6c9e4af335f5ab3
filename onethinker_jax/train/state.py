"""TrainState: everything on the device that training remembers, and the two compiled halves of an update.

An update is any number of equal-shaped micro-batches: ``accumulate`` adds a micro-batch's gradient *sum*,
``apply`` divides by the update's token count and takes the AdamW step.  SFT and RL share both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from onethinker_jax.model.sharding import constrain_parameters, tree_shardings
from onethinker_jax.train.advantages import TaskMoments
from onethinker_jax.train.config.optimizer import OptimizerSettings

Sums = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Parameters, optimiser state, update count, the reward moments of EMA-GRPO, and the reference policy.

    ``behaviour`` is only in checkpoints whose next rollout is still to be sampled from older parameters.
    """

    params: nnx.State
    optimizer: optax.OptState
    step: jax.Array  # int32 []
    moments: TaskMoments
    reference: nnx.State | None = None
    behaviour: nnx.State | None = None


def make_optimizer(
    settings: OptimizerSettings, updates: int, *, train_vision: bool
) -> optax.GradientTransformation:
    """AdamW or Muon after clipping by global norm; weight decay on matrices only; what is frozen keeps no moments.

    Muon (Jordan et al. 2024) is Optax's, its steps scaled to AdamW's root mean square (arXiv 2502.16982).  Optax
    lets the matrices that Muon leaves to AdamW decay not at all, or norms and biases with them: so their decay is
    added here.
    """
    warmup = round(settings.warmup * updates)
    if settings.schedule == "cosine":
        schedule = optax.warmup_cosine_decay_schedule(
            0.0 if warmup else settings.learning_rate,
            settings.learning_rate,
            warmup,
            max(updates, warmup + 1),
            0.1 * settings.learning_rate,
        )
    else:
        schedule = optax.join_schedules(
            [
                optax.linear_schedule(0.0, settings.learning_rate, max(warmup, 1)),
                optax.constant_schedule(settings.learning_rate),
            ],
            [warmup],
        )

    def decayed(params: nnx.State) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: _names(path)[-1] in ("kernel", "embed"), params
        )

    def decayed_by_adam(params: nnx.State) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, is_matrix: is_matrix and not _is_layer_matrix(_names(path)), decayed(params)
        )

    def scale(path: tuple[Any, ...], step: jax.Array) -> jax.Array:
        names = _names(path)
        factor = settings.vision_lr_multiplier if names[0] == "visual" else 1.0
        return step * (settings.patch_lr_multiplier if "patch_embed" in names else factor)

    if settings.kind == "muon":
        step = optax.contrib.muon(
            schedule,
            weight_decay=settings.weight_decay,
            adam_b1=settings.beta1,
            adam_b2=settings.beta2,
            mu_dtype=settings.momentum_dtype,
            muon_weight_dimension_numbers=_layer_matrices,
            consistent_rms=0.2,
        )
        decay = settings.weight_decay if settings.adam_weight_decay is None else settings.adam_weight_decay
        if decay:
            added = optax.inject_hyperparams(optax.add_decayed_weights, static_args="mask")
            step = optax.chain(
                step, added(weight_decay=lambda count: -decay * schedule(count), mask=decayed_by_adam)
            )
    else:
        step = optax.adamw(
            schedule,
            settings.beta1,
            settings.beta2,
            eps=1e-8,
            weight_decay=settings.weight_decay,
            mask=decayed,
            mu_dtype=settings.momentum_dtype,
        )
    trained = optax.chain(
        optax.clip_by_global_norm(settings.max_grad_norm),
        step,
        optax.stateless(lambda steps, _: jax.tree_util.tree_map_with_path(scale, steps)),
    )
    if train_vision:
        return trained

    def label(params: nnx.State) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "frozen" if _names(path)[0] == "visual" else "trained", params
        )

    return optax.partition({"trained": trained, "frozen": optax.set_to_zero()}, label)


def init_state(
    params: nnx.State,
    optimizer: optax.GradientTransformation,
    moments: TaskMoments,
    mesh: Mesh,
    *,
    reference: bool,
) -> TrainState:
    """A state at step 0 around ``params``, its optimiser moments lying where the parameters do."""
    opt_state = jax.jit(
        lambda params: optimizer.init(in_dtype(params, "float32")),
        out_shardings=tree_shardings(optimizer_shapes(optimizer, params), mesh),
    )(params)
    copy = jax.tree.map(jnp.copy, params) if reference else None
    # Laid out as `apply` returns them, so that it is compiled once; copied, as no two donated leaves may share.
    everywhere = NamedSharding(mesh, PartitionSpec())
    step = jax.device_put(jnp.zeros((), jnp.int32), everywhere)
    moments = jax.device_put(jax.tree.map(jnp.copy, moments), everywhere)
    return TrainState(params, opt_state, step, moments, copy)


def optimizer_shapes(optimizer: optax.GradientTransformation, params: nnx.State) -> optax.OptState:
    """Shapes of the optimiser's state; its moments are float32 whatever the parameters are kept in."""
    return jax.eval_shape(lambda params: optimizer.init(in_dtype(params, "float32")), params)


@dataclass(frozen=True)
class Update:
    """The compiled halves of an update.

    ``accumulate(params, reference, gradients, batch) -> (gradients, sums)`` and
    ``apply(state, gradients, count) -> (state, gradient norm)``; ``zeros(params)`` starts an update.
    """

    accumulate: Callable[[nnx.State, nnx.State | None, nnx.State, Any], tuple[nnx.State, Sums]]
    apply: Callable[[TrainState, nnx.State, jax.Array], tuple[TrainState, jax.Array]]
    zeros: Callable[[nnx.State], nnx.State]


def make_update(
    loss: Callable[[nnx.State, nnx.State | None, Any], tuple[jax.Array, Sums]],
    optimizer: optax.GradientTransformation,
    *,
    compute_dtype: str = "float32",
) -> Update:
    """Compiles an update around ``loss(params, reference, batch) -> (summed loss, sums to report)``.

    ``loss`` sees the parameters in ``compute_dtype``; gradients add up and the optimiser steps in float32.
    """

    def typed_loss(params: nnx.State, reference: nnx.State | None, batch: Any) -> tuple[jax.Array, Sums]:
        return loss(in_dtype(params, compute_dtype), in_dtype(reference, compute_dtype), batch)

    def accumulate(
        params: nnx.State, reference: nnx.State | None, gradients: nnx.State, batch: Any
    ) -> tuple[nnx.State, Sums]:
        (total, sums), new = jax.value_and_grad(typed_loss, has_aux=True)(params, reference, batch)
        new = constrain_parameters(in_dtype(new, "float32"))
        return jax.tree.map(jnp.add, gradients, new), {"loss": total, **sums}

    def apply(state: TrainState, gradients: nnx.State, count: jax.Array) -> tuple[TrainState, jax.Array]:
        gradients = jax.tree.map(lambda g: g / jnp.maximum(count, 1), gradients)
        masters = in_dtype(state.params, "float32")
        updates, opt_state = optimizer.update(gradients, state.optimizer, masters)
        stepped: Any = optax.apply_updates(masters, updates)
        params = jax.tree.map(lambda new, old: new.astype(old.dtype), stepped, state.params)
        return (
            TrainState(params, opt_state, state.step + 1, state.moments, state.reference),
            optax.global_norm(gradients),
        )

    return Update(
        accumulate=jax.jit(accumulate, donate_argnums=2),
        apply=jax.jit(apply, donate_argnums=0),
        zeros=jax.jit(lambda params: constrain_parameters(_zeros(params))),
    )


def in_dtype(params: Any, dtype: str) -> Any:
    """A tree of parameters in ``dtype``."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def _zeros(params: nnx.State) -> nnx.State:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params)


def freeze_vision(params: nnx.State) -> nnx.State:
    """The same parameters; no gradient reaches the vision tower's."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.lax.stop_gradient(leaf) if _names(path)[0] == "visual" else leaf, params
    )


def _layer_matrices(params: Any) -> Any:
    """Which axes of a kernel are a matrix, layer by layer; None for what Muon leaves to AdamW."""

    def axes(path: tuple[Any, ...], leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        names = _names(path)
        if not _is_layer_matrix(names):
            return None
        inputs = leaf.ndim - (3 if "gate_up" in names else 2)  # experts: [.., D, 2, F], two matrices
        return optax.contrib.MuonDimensionNumbers(inputs, leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(axes, params)


def _is_layer_matrix(names: list[str]) -> bool:
    """Whether Muon takes the parameter of this path: a kernel, but for those at the model's two ends."""
    return names[-1] == "kernel" and "patch_embed" not in names and "lm_head" not in names


def _names(path: tuple[Any, ...]) -> list[str]:
    """The attribute names of a parameter's path."""
    names = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
    return [name for name in names if name != "value"]
