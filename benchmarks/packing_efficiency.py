"""How full packed batches of the Shapes world's SFT mixture are, by way of packing, window and batch shape.

    python -m benchmarks.packing_efficiency

Makes the default run's SFT records (as many as asked for, in the same proportions), packs them with the loader and
prints the shares of token cells and patch cells in use.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from onethinker_jax.data_pipeline.batches.bin_packing import STRATEGIES
from onethinker_jax.data_pipeline.batches.loader import RecordStream, TrainingBatches
from onethinker_jax.data_pipeline.batches.packing import packing_efficiency
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.processor_config import MediaBounds
from onethinker_jax.data_pipeline.processor.tokenizer import record_texts, train_tokenizer
from onethinker_jax.data_pipeline.records.record_file import RecordFile
from onethinker_jax.data_pipeline.shapes.world import build_shapes_world
from onethinker_jax.train.config.optimizer import BatchSettings
from onethinker_jax.train.config.presets import shapes

SHAPES = (shapes().sft.batch, BatchSettings(rows=4, tokens=512, patches=320))


@dataclass(frozen=True)
class PackingEfficiencySettings:
    """Measures how full packed batches are."""

    records: int = 1400
    """SFT records, captions included."""
    batches: int = 60
    """Batches of each kind."""
    windows: tuple[int, ...] = (64, 192)


def measure(settings: PackingEfficiencySettings, folder: Path) -> None:
    data, model = shapes().data, shapes().model
    captions = settings.records * data.world_captions // (data.world_captions + data.world_sft)
    world = build_shapes_world(
        folder / "world",
        seed=data.world_seed,
        train_rl=100,
        train_sft=settings.records - captions,
        heldout=32,
        captions=captions,
    )
    records = RecordFile(world.sft_json)
    pixels = data.image_min_pixels, data.image_max_pixels
    train_tokenizer(record_texts(records), folder / "tokenizer", model.vocab_size, image_pixels=pixels)
    processor = Processor.from_pretrained(
        folder / "tokenizer",
        MediaBounds(
            image_min_pixels=data.image_min_pixels,
            image_max_pixels=data.image_max_pixels,
            video_fps=data.video_fps,
            video_max_frames=data.video_max_frames,
            video_min_pixels=data.video_min_pixels,
            video_max_pixels=data.video_max_pixels,
        ),
        grid_side=model.vision_grid,
        cache_bytes=2**32,
    )
    write = sys.stdout.write
    write(f"{'batch':>16} {'strategy':>10} {'window':>7} {'tokens':>8} {'patches':>8}\n")
    for shape in SHAPES:
        for strategy in STRATEGIES:
            for window in settings.windows:
                with TrainingBatches(
                    RecordStream(records, seed=0), processor, shape, strategy=strategy, window=window
                ) as batches:
                    efficiencies = np.array(
                        [packing_efficiency(next(batches)) for _ in range(settings.batches)]
                    )
                size = f"{shape.rows} x {shape.tokens}, {shape.patches}"
                tokens, patches = efficiencies.mean(0)
                write(f"{size:>16} {strategy:>10} {window:>7} {tokens:>8.1%} {patches:>8.1%}\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        measure(tyro.cli(PackingEfficiencySettings), Path(name))
