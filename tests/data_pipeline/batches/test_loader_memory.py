"""Host memory does not grow with the batches handed out: every batch decodes its media anew."""

import os
from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.batches.bin_packing import BatchShape
from onethinker_jax.data_pipeline.batches.loader import RecordStream, TrainingBatches
from onethinker_jax.data_pipeline.media.reading.media_pool import MediaPool
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.processor_config import MediaBounds
from onethinker_jax.data_pipeline.records.record_file import RecordFile
from tests.data_pipeline.making import sft_row, write_image, write_rows


def resident_bytes() -> int:
    """Memory of this process that lies in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(folder: Path, tokenizer: Path, *, batches: int, warm_up: int, workers: int) -> list[int]:
    """Bytes of growth since the warm-up, at five positions of the rest."""
    for number in range(4):
        write_image(folder / f"{number}.png", 32, 32 + 32 * (number % 2), seed=number)
    rows = [sft_row(f"What is {n}?", problem_id=n, images=[f"{n % 4}.png"]) for n in range(40)]
    records = RecordFile(write_rows(folder / "sft.json", rows), kept_bytes=0)
    media = MediaReader(pool=MediaPool(workers) if workers else None)
    processor = Processor.from_pretrained(
        tokenizer, MediaBounds(image_min_pixels=1024), media=media, cache_bytes=1 << 20
    )
    stream = RecordStream(records, seed=0)
    found = []
    with TrainingBatches(
        stream, processor, BatchShape(1, 160, 16), window=4, strategy="best_fit", workers=workers
    ) as loader:
        for _ in range(warm_up):
            next(loader)
        begin = resident_bytes()
        for number in range(1, batches - warm_up + 1):
            next(loader)
            if number % ((batches - warm_up) // 5) == 0:
                found.append(resident_bytes() - begin)
    media.close()
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_memory_is_flat(qwen_directory, tmp_path, workers):
    found = growth(tmp_path, qwen_directory, batches=400, warm_up=150, workers=workers)
    assert max(found) < 8e6, found


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_memory_is_flat_over_ten_thousand_batches(qwen_directory, tmp_path, workers, record_property):
    found = growth(tmp_path, qwen_directory, batches=10_000, warm_up=500, workers=workers)
    record_property("growth_bytes", found)
    assert max(found) < 16e6, found
    assert found[-1] - found[1] < 4e6, found  # nothing that would go on
