"""A Shapes world to annotate, the reward service that judges, and a folder to write to."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.shapes.world import build_shapes_world
from onethinker_jax.rewards.client.server_process import start_server
from tests.data_pipeline.annotate.running import RECORDS, Run


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "world"
    return build_shapes_world(folder, seed=5, train_rl=RECORDS, train_sft=1, heldout=1, processes=1).rl_json


@pytest.fixture(scope="session")
def sidecar() -> Iterator[str]:
    with (
        tempfile.TemporaryDirectory(prefix="onethinker-") as folder,
        start_server(Path(folder) / "s", Path(folder) / "log") as server,
    ):
        yield server.address


@pytest.fixture
def run(sidecar: str, tmp_path: Path) -> Run:
    return Run(sidecar, tmp_path / "out")
