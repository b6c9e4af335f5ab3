"""A run that is open: what its stages share beside the policy."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from onethinker_jax.train.checkpoints.adapter_record import AdapterRecord, check_adapters
from onethinker_jax.train.checkpoints.checkpoints import Checkpoints
from onethinker_jax.train.claim import check_settings, plain
from onethinker_jax.train.config.health import HealthSettings
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.health.watchdog import KNOWN_AFTER, STEP, Watchdog
from onethinker_jax.train.hosts import Hosts
from onethinker_jax.train.log.compilation_watch import Compilations
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.run_folder import RunFolder
from onethinker_jax.train.state import TrainState
from onethinker_jax.train.stopping.notice import Notice


@dataclass(frozen=True)
class Run:
    """The processes of a run, what it says, what it keeps, and where."""

    hosts: Hosts
    log: RunLog
    checkpoints: Checkpoints
    folder: RunFolder
    compilations: Compilations
    adapters: AdapterRecord | None = None  # what this run's checkpoints hold the adapters of
    config: TrainConfig | None = None  # of the whole run; its checkpoints say that they are of it
    health: HealthSettings = field(default_factory=HealthSettings)
    notice: Notice = field(default_factory=Notice)

    def watchdog(self, of: str, *, stalled: str = STEP, known_after: float = KNOWN_AFTER) -> Watchdog:
        """What watches a part of this process's run, as `Watchdog` says."""
        stacks = self.folder.of_process(self.hosts.index).stacks
        return Watchdog(
            *(self.health, stacks),
            stage=of,
            stalled=stalled,
            known_after=known_after,
            processes=self.hosts.count,
        )

    def save(
        self,
        number: int,
        state: TrainState,
        stage: str,
        mine: Any,
        *,
        health: Any,
        heldout: float | None = None,
        **shared: Any,
    ) -> None:
        """Begins checkpoint `number`; `mine` is what this process itself must remember, as JSON holds it.

        `health` is what the stage's `StageHealth` must remember, `heldout` the held-out score of the state's model, and
        `shared` what else all processes know.
        """
        self.notice.begin_writing()
        host = {"stage": stage, "hosts": self.hosts.gather(mine), "health": health, **shared}
        if self.adapters is not None:
            host["adapters"] = self.adapters.to_json()
        if self.config is not None:
            host["settings"] = plain(self.config)
        if self.hosts.gather(self.checkpoints.missing())[0]:
            self.log.warn(
                f"{self.checkpoints.directory} was removed under this run, and with it the checkpoints before: number "
                f"{number} is written into a new one"
            )
            self.hosts.first_does(self.checkpoints.begin_anew)
        self.checkpoints.save(number, state, host, heldout=heldout)

    def add_score(self, number: int, heldout: float | None) -> None:
        """Gives checkpoint `number` the held-out score that it was written without."""
        if heldout is not None:
            self.hosts.first_does(lambda: self.checkpoints.add_score(number, heldout))

    def newest(self) -> tuple[int, dict[str, Any]] | None:
        """As `Checkpoints.newest`, the first process having held the files against their checksums.

        Raises CheckpointError where that is of other settings, other adapters or another base.
        """
        with self.log.doing("verifying the newest checkpoint"):
            self.hosts.first_does(lambda: [self.log.warn(said) for said in self.checkpoints.settle()])
        saved = self.checkpoints.newest(verified=True)
        if saved is not None:
            number, host = saved
            where = self.checkpoints.directory / str(number)
            if self.config is not None:
                check_settings(host.get("settings"), self.config, host["stage"], where)
            check_adapters(host.get("adapters"), self.adapters, where)
        return saved

    def own(self, host: dict[str, Any], deal: Callable[[list[Any], int], list[Any]]) -> Any:
        """What this process itself must remember of a checkpoint.

        Where another number of processes wrote it, `deal` makes theirs into those of as many as there are now.
        """
        parts, count = host["hosts"], self.hosts.count
        if len(parts) != count:
            self.log.info(
                f"the checkpoint is of {len(parts)} process{'es' * (len(parts) > 1)}, not {count}: from here on number "
                f"k of the order of records goes to process k mod {count}"
            )
            parts = deal(parts, count)
        return parts[self.hosts.index]
