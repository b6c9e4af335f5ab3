"""Records with messages, of several lengths."""

from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.records.record import Record, read_records
from tests.data_pipeline.making import sft_row, write_image, write_rows


@pytest.fixture(scope="session")
def sft_records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    folder: Path = tmp_path_factory.mktemp("sft")
    for number, size in enumerate([(64, 64), (64, 96)]):
        write_image(folder / f"{number}.png", *size, seed=number)
    rows = [
        sft_row(
            "What is it? " * (1 + i % 4), f"Star {i}. " * (1 + i % 3), images=[f"{i % 2}.png"], problem_id=i
        )
        for i in range(23)
    ]
    return read_records(write_rows(folder / "sft.json", rows))
