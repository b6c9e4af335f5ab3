"""A process that hands out training batches and RL prompts and can be killed at any moment.

python -m tests.data_pipeline.batches.stream_process SETTINGS.json

Appends "number hash hash" (of a batch and of a prompt) to the log for each pair, and now and then saves its state as
training does: atomically. Begins from the last state saved. The settings are the arguments of `Streams`, with "log",
"state", "count", "save_every" and "at_most": pairs after which it waits to be killed, null for none.
"""

import hashlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np

from onethinker_jax.data_pipeline.batches.bin_packing import BatchShape
from onethinker_jax.data_pipeline.batches.loader import RecordStream, TrainingBatches
from onethinker_jax.data_pipeline.batches.mixture import Mixture
from onethinker_jax.data_pipeline.batches.prompt_stream import PromptStream
from onethinker_jax.data_pipeline.media.reading.media_pool import MediaPool
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.processor_config import MediaBounds
from onethinker_jax.data_pipeline.records.record_archive import open_records


class Streams:
    """Batches for SFT and prompts for RL of one host, as `train.run` makes them."""

    def __init__(self, *, corpus: str, tokenizer: str, workers: int, host: int, hosts: int, strategy: str):
        records = open_records(corpus)
        share: dict[str, Any] = {"mixture": Mixture(sources={"b": 2.0}), "host": host, "hosts": hosts}
        media = MediaReader(pool=MediaPool(workers) if workers else None)
        self.processor = Processor.from_pretrained(
            tokenizer, MediaBounds(video_min_pixels=4096, video_max_pixels=96 * 64), media=media
        )
        self.prompts = PromptStream(
            RecordStream(records, seed=2, **share), self.processor.prompt, workers=workers, ahead=3
        )
        self.batches = TrainingBatches(
            RecordStream(records, seed=1, **share),
            self.processor,
            BatchShape(2, 200, 128),
            window=10,
            strategy=strategy,  # type: ignore[arg-type]
            workers=workers,
        )

    def next(self) -> str:
        """Hashes of the next batch and of the next prompt."""
        _, _, prompt = self.prompts.next()
        return f"{digest(next(self.batches))} {digest(vars(prompt))}"

    def state(self) -> dict[str, Any]:
        return {"batches": self.batches.state(), "prompts": self.prompts.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.batches.restore(state["batches"])
        self.prompts.restore(state["prompts"])

    def close(self) -> None:
        self.batches.close()
        self.prompts.close()
        self.processor.media.close()


def digest(tree: Any) -> str:
    """A hash of all arrays of a tree."""
    result = hashlib.blake2b(digest_size=8)
    for leaf in jax.tree.leaves(tree):
        result.update(np.ascontiguousarray(leaf).tobytes())
    return result.hexdigest()


def main(settings: dict[str, Any]) -> None:
    log, state_file, count, save_every = (settings.pop(n) for n in ("log", "state", "count", "save_every"))
    at_most = settings.pop("at_most")
    streams = Streams(**settings)
    number = 0
    if Path(state_file).exists():
        saved = json.loads(Path(state_file).read_text())
        number = saved["number"]
        streams.restore(saved["streams"])
    with open(log, "a") as file:
        begin = number
        while number < count:
            if at_most is not None and number >= begin + at_most:
                threading.Event().wait()
            file.write(f"{number} {streams.next()}\n")
            file.flush()
            number += 1
            if number % save_every == 0:
                aside = Path(f"{state_file}.writing")
                aside.write_text(json.dumps({"number": number, "streams": streams.state()}))
                os.replace(aside, state_file)
    streams.close()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
