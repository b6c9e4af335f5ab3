"""What a run holds on one device for each mesh: weights, moments, gradients, the sampler's weights, in bytes.

From the shapes and shardings that training and the plan use; no program is traced.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flax import nnx
from jax.sharding import AbstractMesh, AxisType

from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.parameters import join_adapters
from onethinker_jax.model.sharding import AXES
from onethinker_jax.tasks import MOMENTS
from onethinker_jax.train.config.hosts import MeshSettings
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.cost.program_cost import device_bytes
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.plans.shapes import BASE, decoding_shapes, moved, state_shapes, training_layout
from onethinker_jax.train.policy import abstract_model


@dataclass(frozen=True)
class Holdings:
    """Bytes of one device by kind."""

    parameters: float  # that are trained
    base: float  # frozen, beside adapters
    gradients: float
    optimizer: dict[str, float]  # by stage, the reference policy of RL included
    # By `rl.rollout.weights_dtype`:
    decoder: dict[str | None, float]  # weights to decode with
    resting: dict[str | None, float]  # parameters and base that decoding does not share
    apart: dict[str | None, float]  # weights to decode with that training does not share

    def training(self, stage: str) -> float:
        """While gradients are computed, activations aside; RL's reference lies with its optimiser here."""
        return self.parameters + self.base + self.gradients + self.optimizer[stage]

    def sampling(self, weights_dtype: str | None) -> float:
        """While RL samples, the cache aside."""
        return self.decoder[weights_dtype] + self.resting[weights_dtype] + self.optimizer["RL"]


class ModelShapes:
    """The shapes of a policy and of its optimisers, made once for all meshes."""

    def __init__(self, config: TrainConfig, sizes: Qwen3VLConfig):
        self._config = config
        self.shapes: nnx.State = nnx.split(abstract_model(sizes, config.model))[1]

    @cached_property
    def _optimizers(self) -> dict[str, tuple[Any, int, bool]]:
        """Stage -> optimiser, tasks, whether there is a reference."""
        sft, rl = self._config.sft, self._config.rl
        found: dict[str, tuple[Any, int, bool]] = {}
        if sft.steps:
            found["SFT"] = make_optimizer(sft.optimizer, sft.steps, train_vision=sft.train_vision), 1, False
        if rl.steps:
            optimizer = make_optimizer(rl.optimizer, rl.steps * rl.num_minibatches, train_vision=True)
            found["RL"] = optimizer, len(MOMENTS), rl.loss.kl_coefficient > 0
        return found

    def on(self, settings: MeshSettings) -> Holdings:
        """On a mesh of these sizes. Raises ShardingError naming a parameter that it does not divide."""
        shape = (settings.data, settings.fsdp, settings.tensor)
        mesh = AbstractMesh(shape, AXES, (AxisType.Auto,) * len(AXES))
        lying = training_layout(self.shapes, mesh)
        trained = lying["parameters"]
        optimizer, gradients = {}, trained
        for stage, (one, tasks, reference) in self._optimizers.items():
            state, gradients = state_shapes(trained, one, tasks, mesh, reference=reference)
            optimizer[stage] = device_bytes((state.optimizer, state.reference))
        dtype = self._config.model.compute_dtype
        weights = {kind: decoding_shapes(self.shapes, mesh, dtype, kind) for kind in (None, "int8")}
        whole = join_adapters(trained, lying.get(BASE))
        return Holdings(
            device_bytes(trained),
            device_bytes(lying.get(BASE)),
            device_bytes(gradients),
            optimizer,
            {kind: device_bytes(tree) for kind, tree in weights.items()},
            {
                kind: sum(device_bytes(moved(tree, others)) for tree in lying.values())
                for kind, others in weights.items()
            },
            {kind: device_bytes(moved(tree, whole)) for kind, tree in weights.items()},
        )
