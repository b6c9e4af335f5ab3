"""The devices of a run."""

from dataclasses import dataclass

from onethinker_jax.train.config.checks import positive


@dataclass(frozen=True)
class MeshSettings:
    """How many devices along each axis of the mesh."""

    data: int = 1
    """Groups of devices that each hold the weights and take a part of every batch."""
    fsdp: int = 1
    """Devices that share out weights and optimiser state among them, and each take a part of every batch."""
    tensor: int = 1
    """Devices that share out each layer's heads and columns."""

    def __post_init__(self) -> None:
        positive("mesh", self, "data", "fsdp", "tensor")

    @property
    def size(self) -> int:
        """Number of devices."""
        return self.data * self.fsdp * self.tensor
