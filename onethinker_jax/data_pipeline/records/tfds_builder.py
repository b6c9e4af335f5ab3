"""JSON records and their media -> ArrayRecord files, through TensorFlow Datasets but without TensorFlow.

    python -m onethinker_jax.data_pipeline.records.tfds_builder onethinker_rl_train.json --out rl_corpus

Training then names the folder where it named the file (`--data.rl-file rl_corpus`), and reads the same examples.
Millions of small files become a few large ones, a file that many records share is kept once, and a run starts
without reading the corpus. `record_archive` describes the folder. Nothing is decoded: `check` does that.

Shards are written one after the other; with `--beam-runner` by Apache Beam, whose workers must see the files and
the folder. Beam wants an older protobuf than the trainer: give it an environment of its own, see docs/data.md.

Exit status: 0 the corpus is made, 1 a record is bad or a file cannot be read, 2 an unknown flag, 130 Ctrl-C.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take some time
    command_line.begin()

import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from onethinker_jax.errors import MissingLibrary

try:
    import tensorflow_datasets as tfds
except ImportError as missing:
    raise MissingLibrary(f"tfds_builder needs pip install 'onethinker_jax[tfds]' ({missing})") from missing

from onethinker_jax.data_pipeline.media.frame_folder import FrameFolder
from onethinker_jax.data_pipeline.media.media_file import MediaFile
from onethinker_jax.data_pipeline.records.bad_records import OnBadRecord
from onethinker_jax.data_pipeline.records.json_rows import RecordError
from onethinker_jax.data_pipeline.records.record_archive import (
    MEDIA,
    RECORDS,
    SPLIT,
    TABLE,
    VERSION,
    media_entries,
)
from onethinker_jax.data_pipeline.records.record_file import RecordFile, read_text

logger = logging.getLogger("onethinker_jax.data_pipeline.records.tfds_builder")  # also as __main__

Shard = Callable[[], Iterator[tuple[int, dict[str, Any]]]]


@dataclass(frozen=True)
class BuildSettings:
    """Turns a record file and its media into ArrayRecord files."""

    file: tyro.conf.Positional[Path]
    """Record file, a JSON list or JSON lines."""
    out: Path
    """Folder to make; it must not hold a corpus yet."""
    media_root: Path | None = None
    """Folder the media paths are relative to; by default the file's own."""
    on_bad_record: OnBadRecord = "raise"
    """A malformed record stops, or is left out and written with its reason to OUT/bad.jsonl."""
    shard_bytes: int = 256 * 2**20
    """Size of a shard of records or of media; as much is held in memory."""
    beam_runner: str | None = None
    """Apache Beam's runner, such as DirectRunner or DataflowRunner; by default Beam is not used."""
    beam_options: tuple[str, ...] = ()
    """Flags of that runner, such as --direct_num_workers=8."""

    def __post_init__(self) -> None:
        if self.shard_bytes <= 0:
            raise ValueError(f"shard_bytes {self.shard_bytes} must be positive")
        if self.beam_options and self.beam_runner is None:
            raise ValueError("beam_options are for a beam_runner: name one")


class CorpusRecords(tfds.core.ShardBasedBuilder):
    """Rows of a record file with the numbers of their media, in the file's order."""

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, shards: Sequence[Shard] = (), **settings: Any):
        self._shards = list(shards)
        super().__init__(**settings)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"row": tfds.features.Text(), "media": tfds.features.Sequence(np.int64)}
        return tfds.core.DatasetInfo(
            builder=self,
            description="Records in OneThinker's JSON, each with the numbers of its media in corpus_media.",
            features=tfds.features.FeaturesDict(features),
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, Sequence[Shard]]:
        return {SPLIT: self._shards}


class CorpusMedia(CorpusRecords):
    """The files that records name, in their own encoding."""

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "path": tfds.features.Text(),
            "data": tfds.features.Tensor(shape=(), dtype=np.object_),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Image and video files, each with the path that records give.",
            features=tfds.features.FeaturesDict(features),
        )


@dataclass(frozen=True)
class RowShard:
    """Yields rows of the record file that lie one behind the other."""

    file: Path
    positions: list[tuple[int, int]]  # begin and length of each row, bytes
    media: list[list[int]]  # numbers of each row's media

    def __call__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The number and the features of each row, in the order of the file."""
        for number, ((offset, length), media) in enumerate(zip(self.positions, self.media, strict=True)):
            yield number, {"row": read_text(self.file, offset, length), "media": media}


@dataclass(frozen=True)
class MediaShard:
    """Yields media files."""

    files: list[tuple[str, MediaFile]]
    """The path that records give, and the file."""

    def __call__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The number and the features of each media file, in order."""
        for number, (path, file) in enumerate(self.files):
            with file.open("rb") as opened:
                yield number, {"path": path, "data": opened.read()}


def build_corpus(settings: BuildSettings) -> tuple[int, int]:
    """Makes the corpus; how many records and how many media files it holds.

    Raises RecordError: a record is bad, or there is a corpus already. OSError: a file cannot be read or written.
    Raises ImportError: a runner of Beam is asked for, and Beam is not installed.
    """
    out = settings.out
    if (out / TABLE).exists():
        raise RecordError(f"{out}: holds a corpus already; name another folder, or delete it")
    beam = _beam(settings)
    out.mkdir(parents=True, exist_ok=True)
    for part in (RECORDS, MEDIA):  # of an attempt that did not come to its end
        shutil.rmtree(out / part, ignore_errors=True)
    file = settings.file.absolute()  # Beam's workers may run elsewhere
    root = (settings.media_root or file.parent).absolute()
    records = RecordFile(
        file,
        media_root=root,
        on_bad_record=settings.on_bad_record,
        quarantine=out / "bad.jsonl",
        kept_bytes=0,
    )
    files: dict[str, MediaFile] = {}
    numbers: dict[str, int] = {}
    media = []
    for row in (json.loads(records.text(index)) for index in range(len(records))):
        _add_files(files, row, root)
        media.append([numbers.setdefault(entry, len(numbers)) for entry in media_entries(row)])
    positions = [records.position(i) for i in range(len(records))]
    row_shards = [
        RowShard(file, positions[part], media[part])
        for part in _parts([length for _, length in positions], settings.shard_bytes)
    ]
    named = list(files.items())
    media_shards = [
        MediaShard(named[part])
        for part in _parts([file.stat().st_size for _, file in named], settings.shard_bytes)
    ]
    for builder, shards in ((CorpusMedia, media_shards), (CorpusRecords, row_shards)):
        logger.info("%s: %d shards …", builder.name, len(shards))
        made = builder(shards, data_dir=out, file_format="array_record")
        made.download_and_prepare(download_config=tfds.download.DownloadConfig(**beam))
    records.table.save(out / TABLE)  # last: now all is there
    return len(records), len(named)


def _add_files(files: dict[str, MediaFile], row: Mapping[str, Any], root: Path) -> None:
    """The files of a good row by the path that it gives; a folder of frames is kept as one video file.

    Raises RecordError: another row gives the folder another frame rate.
    """
    for entry in media_entries(row):
        path = root / entry
        file = FrameFolder(path, float(row["fps"])) if path.is_dir() else path
        if (other := files.setdefault(entry, file)) != file:
            rates = " and ".join(f"{one.fps:g}" for one in (other, file) if isinstance(one, FrameFolder))
            raise RecordError(f"{path}: is of {rates} frames a second in two records")


def _parts(sizes: Sequence[int], limit: int) -> list[slice]:
    """Slices of items that lie together, of at most `limit` bytes each unless one item is larger."""
    parts, start, total = [], 0, 0
    for number, size in enumerate(sizes):
        if number > start and total + size > limit:
            parts.append(slice(start, number))
            start, total = number, 0
        total += size
    return [*parts, slice(start, len(sizes))]


def _beam(settings: BuildSettings) -> dict[str, Any]:
    if settings.beam_runner is None:
        return {}
    from apache_beam.options.pipeline_options import PipelineOptions  # type: ignore[import-not-found]

    return {
        "beam_runner": settings.beam_runner,
        "beam_options": PipelineOptions(list(settings.beam_options)),
    }


def run(settings: BuildSettings) -> None:
    """Builds, and says how much there is."""
    command_line.show_log(logging.StreamHandler(), level=logging.INFO)
    records, files = build_corpus(settings)
    logger.info("%s: %s records, %s media files", settings.out, f"{records:,}", f"{files:,}")


main = partial(
    command_line.main, BuildSettings, run, prog="python -m onethinker_jax.data_pipeline.records.tfds_builder"
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
