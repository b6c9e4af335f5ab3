"""Media to ask a model about."""

from pathlib import Path

import pytest

from tests.data_pipeline.making import write_image, write_video


@pytest.fixture
def image(tmp_path) -> Path:
    return write_image(tmp_path / "street.png", 64, 96)


@pytest.fixture
def video(tmp_path) -> Path:
    """Five seconds; the frame of second s has the brightness of number 4 s."""
    return write_video(tmp_path / "walk.mp4", [number / 4 for number in range(20)])
