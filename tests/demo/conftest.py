"""A very small model, and media to ask it about."""

from pathlib import Path

import pytest

from tests.data_pipeline.making import write_image, write_video
from tests.tiny_model import write_model


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A Hugging Face directory of a fresh, very small model."""
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def image(tmp_path) -> Path:
    return write_image(tmp_path / "street.png", 64, 96)


@pytest.fixture
def video(tmp_path) -> Path:
    """Five seconds; the frame of second s has the brightness of number 4 s."""
    return write_video(tmp_path / "walk.mp4", [number / 4 for number in range(20)])
