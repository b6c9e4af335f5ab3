"""The optimiser: AdamW or Muon, its schedule, and which parameters it scales, decays or leaves as they are."""

from typing import Any

import jax
import optax
import optax.contrib
from flax import nnx

from onethinker_jax.train.config.optimizer import OptimizerSettings

ADAPTER = ("a", "b")  # the matrices of `layers.LoRA`


def make_optimizer(
    settings: OptimizerSettings, updates: int, *, train_vision: bool
) -> optax.GradientTransformation:
    """AdamW or Muon after clipping by global norm; weight decay on matrices only; what is frozen keeps no moments.

    Muon (Jordan et al. 2024) is Optax's, its steps scaled to AdamW's root mean square (arXiv 2502.16982). Optax
    lets the matrices that Muon leaves to AdamW decay not at all, or norms and biases with them: so their decay is
    added here.
    """
    schedule = _schedule(settings, updates)

    def scale(path: tuple[Any, ...], step: jax.Array) -> jax.Array:
        names = parameter_names(path)
        factor = settings.vision_lr_multiplier if names[0] == "visual" else 1.0
        return step * (settings.patch_lr_multiplier if "patch_embed" in names else factor)

    step = (_muon if settings.kind == "muon" else _adamw)(settings, schedule)
    trained = optax.chain(
        optax.clip_by_global_norm(settings.max_grad_norm),
        step,
        optax.stateless(lambda steps, _: jax.tree_util.tree_map_with_path(scale, steps)),
    )
    if train_vision:
        return trained

    def label(params: nnx.State) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "frozen" if parameter_names(path)[0] == "visual" else "trained", params
        )

    return optax.partition({"trained": trained, "frozen": optax.set_to_zero()}, label)


def _schedule(settings: OptimizerSettings, updates: int) -> optax.Schedule:
    """Update -> learning rate: a linear warm-up, then constant or a cosine down to a tenth."""
    warmup = round(settings.warmup * updates)
    if settings.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            0.0 if warmup else settings.learning_rate,
            settings.learning_rate,
            warmup,
            max(updates, warmup + 1),
            0.1 * settings.learning_rate,
        )
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, settings.learning_rate, max(warmup, 1)),
            optax.constant_schedule(settings.learning_rate),
        ],
        [warmup],
    )


def _adamw(settings: OptimizerSettings, schedule: optax.Schedule) -> optax.GradientTransformation:
    return optax.adamw(
        schedule,
        settings.beta1,
        settings.beta2,
        eps=1e-8,
        weight_decay=settings.weight_decay,
        mask=_decayed,
        mu_dtype=settings.momentum_dtype,
    )


def _muon(settings: OptimizerSettings, schedule: optax.Schedule) -> optax.GradientTransformation:
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
    if not decay:
        return step
    added = optax.inject_hyperparams(optax.add_decayed_weights, static_args="mask")
    return optax.chain(
        step, added(weight_decay=lambda count: -decay * schedule(count), mask=_decayed_by_adam)
    )


def _decayed(params: nnx.State) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: parameter_names(path)[-1] in ("kernel", "embed", *ADAPTER), params
    )


def _decayed_by_adam(params: nnx.State) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, is_matrix: is_matrix and not _is_layer_matrix(parameter_names(path)), _decayed(params)
    )


def _layer_matrices(params: Any) -> Any:
    """Which axes of a kernel are a matrix, layer by layer; None for what Muon leaves to AdamW."""

    def axes(path: tuple[Any, ...], leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        names = parameter_names(path)
        if not _is_layer_matrix(names):
            return None
        return optax.contrib.MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(axes, params)


def _is_layer_matrix(names: list[str]) -> bool:
    """Whether Muon takes the parameter of this path: an adapter's, or a kernel other than those at the model's ends."""
    return names[-1] in ("kernel", *ADAPTER) and "patch_embed" not in names and "lm_head" not in names


def parameter_names(path: tuple[Any, ...]) -> list[str]:
    """The attribute names of a parameter's path."""
    names = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
    return [name for name in names if name != "value"]
