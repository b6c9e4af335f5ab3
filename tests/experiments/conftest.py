"""A very small world, for experiments that start from the very small model of the session."""

from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.shapes.world import build_shapes_world
from tests.train.conftest import policy, processor, records, sampler, sampler_on

__all__ = ["policy", "processor", "records", "sampler", "sampler_on"]  # the fixtures of the trainer's tests


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Shapes world, which no test changes."""
    folder = tmp_path_factory.mktemp("world")
    build_shapes_world(folder, seed=0, train_rl=40, train_sft=20, heldout=24, processes=1)
    return folder
