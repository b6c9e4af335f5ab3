"""The flags of a command that several hosts run together: which processes there are. Imports no JAX."""

from dataclasses import dataclass

from onethinker_jax.errors import UserError


class HostSettingError(UserError, ValueError):
    """Settings that do not say who the processes are; the message names them."""


@dataclass(frozen=True)
class HostSettings:
    """The processes of a run on several hosts, which all are given the same command; by default there is one."""

    coordinator: str | None = None
    """`auto`: as a TPU pod, Slurm or Open MPI says; else `host:port` where the first one listens."""
    count: int | None = None
    """How many there are, and which this is, from 0; with `host:port`."""
    index: int | None = None
    """Number of this process, from 0; with `host:port`."""

    def __post_init__(self) -> None:
        named = self.count is not None and self.index is not None
        if self.coordinator is None or self.coordinator == "auto":
            if self.count is not None or self.index is not None:
                raise HostSettingError("hosts.count and hosts.index go with hosts.coordinator host:port")
        elif not named or ":" not in self.coordinator:
            raise HostSettingError(
                f"hosts.coordinator {self.coordinator}: give host:port, and hosts.count and hosts.index"
            )
        elif not 0 <= (self.index or 0) < (self.count or 0):
            raise HostSettingError(f"hosts.index {self.index} is not one of hosts.count {self.count}")
