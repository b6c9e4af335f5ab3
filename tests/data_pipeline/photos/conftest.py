"""A library drawn once, and a small Photos world made of it once."""

from typing import Any

import pytest

from onethinker_jax.data_pipeline.photos.library import Library
from onethinker_jax.data_pipeline.photos.world import PhotosWorld
from onethinker_jax.data_pipeline.records.record import read_records
from onethinker_jax.data_pipeline.worlds.building import build_world
from tests.data_pipeline.photos.drawn_library import draw_library

SIZES: dict[str, Any] = {"train_rl": 120, "train_sft": 120, "heldout": 240, "captions": 20}
SIDES: dict[str, Any] = {"image_side": 224, "video_side": 128}


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Library:
    """A drawn library."""
    return draw_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="session")
def world(library) -> PhotosWorld:
    """A small world of it."""
    return PhotosWorld(5, **SIZES, **SIDES, library=library)


@pytest.fixture(scope="session")
def paths(world, tmp_path_factory):
    """The world's files."""
    return build_world(world, tmp_path_factory.mktemp("world") / "photos", processes=1)


@pytest.fixture(scope="session")
def records(paths):
    """File -> its records."""
    return {name: read_records(file) for name, file in paths.files.items()}
