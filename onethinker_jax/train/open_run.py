"""A run that is open: what its stages share beside the policy."""

from dataclasses import dataclass
from typing import Any

from onethinker_jax.train.checkpoints.adapter_record import AdapterRecord, check_adapters
from onethinker_jax.train.checkpoints.checkpoints import Checkpoints
from onethinker_jax.train.hosts import Hosts
from onethinker_jax.train.log.compilation_watch import Compilations
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.run_folder import RunFolder
from onethinker_jax.train.state import TrainState


@dataclass(frozen=True)
class Run:
    """The processes of a run, what it says, what it keeps, and where."""

    hosts: Hosts
    log: RunLog
    checkpoints: Checkpoints
    folder: RunFolder
    compilations: Compilations
    adapters: AdapterRecord | None = None  # what this run's checkpoints hold the adapters of

    def save(self, number: int, state: TrainState, stage: str, mine: Any) -> None:
        """Begins checkpoint `number`; `mine` is what this process itself must remember, as JSON holds it."""
        host = {"stage": stage, "hosts": self.hosts.gather(mine)}
        if self.adapters is not None:
            host["adapters"] = self.adapters.to_json()
        self.checkpoints.save(number, state, host)

    def newest(self) -> tuple[int, dict[str, Any]] | None:
        """As `Checkpoints.newest`; raises CheckpointError where that is of other adapters or another base."""
        saved = self.checkpoints.newest()
        if saved is not None:
            number, host = saved
            check_adapters(host.get("adapters"), self.adapters, self.checkpoints.directory / str(number))
        return saved
