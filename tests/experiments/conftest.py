"""A very small world, for experiments that start from the very small model of the session."""

from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.shapes.world import ShapesWorld
from onethinker_jax.data_pipeline.worlds.building import build_world
from tests.train.conftest import policy, processor, records, sampler, sampler_on

__all__ = ["policy", "processor", "records", "sampler", "sampler_on"]  # the fixtures of the trainer's tests


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Shapes world, which no test changes."""
    folder = tmp_path_factory.mktemp("world")
    build_world(ShapesWorld(0, 40, 20, 24, 0), folder, processes=1)
    return folder
