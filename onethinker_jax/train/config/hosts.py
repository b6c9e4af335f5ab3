"""The devices and the processes of a run."""

from dataclasses import dataclass

from onethinker_jax.train.config.checks import SettingError, positive


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


@dataclass(frozen=True)
class HostSettings:
    """The processes of a run on several hosts, which all are given the same command; by default there is one."""

    coordinator: str | None = None
    """`auto`: as a TPU pod, Slurm, Open MPI or Kubernetes says; else `host:port` where the first one listens."""
    count: int | None = None
    """How many there are, and which this is, from 0; with `host:port`."""
    index: int | None = None
    """Number of this process, from 0; with `host:port`."""

    def __post_init__(self) -> None:
        named = self.count is not None and self.index is not None
        if self.coordinator is None or self.coordinator == "auto":
            if self.count is not None or self.index is not None:
                raise SettingError("hosts.count and hosts.index go with hosts.coordinator host:port")
        elif not named or ":" not in self.coordinator:
            raise SettingError(
                f"hosts.coordinator {self.coordinator}: give host:port, and hosts.count and hosts.index"
            )
        elif not 0 <= (self.index or 0) < (self.count or 0):
            raise SettingError(f"hosts.index {self.index} is not one of hosts.count {self.count}")
