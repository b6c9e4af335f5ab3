"""From JSON records and media files to fixed-shape batches.

The way of the data: `records` (JSON -> `Record`), `prompts` (-> chat messages), `media` (files ->
pixels), `processor` (-> `Example`), `packing` (-> `Batch`), `loader` (streams with exact resume). Names
are imported on first use, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from onethinker_jax.lazy_names import lazy_names

if TYPE_CHECKING:
    from onethinker_jax.data_pipeline.batches.loader import RecordStream, TrainingBatches
    from onethinker_jax.data_pipeline.batches.mixture import Mixture
    from onethinker_jax.data_pipeline.batches.packing import (
        Batch,
        GroupBatch,
        PackingError,
        pack_groups,
        pack_rows,
        stack_prompts,
    )
    from onethinker_jax.data_pipeline.batches.prompt_stream import PromptStream
    from onethinker_jax.data_pipeline.media.decoding import (
        MediaError,
        Video,
        VideoProbe,
        load_image,
        load_video,
        probe_image,
        probe_video,
    )
    from onethinker_jax.data_pipeline.processor.processor import Example, Processor
    from onethinker_jax.data_pipeline.records.record import (
        Record,
        RecordError,
        iter_records,
        read_records,
        task_of,
    )
    from onethinker_jax.data_pipeline.records.record_archive import RecordArchive, open_records
    from onethinker_jax.data_pipeline.records.record_file import RecordFile

_HOME = {
    "records.record": (
        "Record",
        "RecordError",
        "iter_records",
        "read_records",
        "task_of",
    ),
    "media.decoding": (
        "MediaError",
        "Video",
        "VideoProbe",
        "load_image",
        "load_video",
        "probe_image",
        "probe_video",
    ),
    "processor.processor": ("Example", "Processor"),
    "batches.packing": ("Batch", "GroupBatch", "PackingError", "pack_groups", "pack_rows", "stack_prompts"),
    "batches.mixture": ("Mixture",),
    "records.record_file": ("RecordFile",),
    "records.record_archive": ("RecordArchive", "open_records"),
    "batches.loader": ("RecordStream", "TrainingBatches"),
    "batches.prompt_stream": ("PromptStream",),
}

__all__ = [
    "Batch",
    "Example",
    "GroupBatch",
    "MediaError",
    "Mixture",
    "PackingError",
    "Processor",
    "PromptStream",
    "Record",
    "RecordArchive",
    "RecordError",
    "RecordFile",
    "RecordStream",
    "TrainingBatches",
    "Video",
    "VideoProbe",
    "iter_records",
    "load_image",
    "load_video",
    "open_records",
    "pack_groups",
    "pack_rows",
    "probe_image",
    "probe_video",
    "read_records",
    "stack_prompts",
    "task_of",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
