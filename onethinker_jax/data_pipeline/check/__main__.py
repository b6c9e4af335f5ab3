"""Checks corpora in OneThinker's format, media included, before a run meets them.

    python -m onethinker_jax.data_pipeline.check onethinker_rl_train.json onethinker_sft_video.json

Every record is read and checked, its media decoded in parallel processes as training would. Prints what is
wrong and what there is, and writes to the folder `--out`: `bad.jsonl` (bad records with their reasons),
`counts.json`, and `index.html`, a page of pictures with the true answers drawn.

Exit status: 0 all records are good, 1 some are bad or a file cannot be read, 2 an unknown flag.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take some time
    command_line.begin()

import json
import os
import random
import re
import sys
import time
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from onethinker_jax.data_pipeline.check.corpus_counts import CorpusCounts
from onethinker_jax.data_pipeline.check.corpus_page import write_corpus_page
from onethinker_jax.data_pipeline.check.inspection import MediaFacts, inspect_media
from onethinker_jax.data_pipeline.drawing.views import View, view_record
from onethinker_jax.data_pipeline.media.decoding import MediaError
from onethinker_jax.data_pipeline.media.reading.media_pool import MediaPool
from onethinker_jax.data_pipeline.media.reading.media_reader import GRACE_SECONDS, MediaReader
from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.records.json_rows import JsonRows, RecordError
from onethinker_jax.data_pipeline.records.record import Purpose, Record, iter_records, task_of
from onethinker_jax.files import write_whole
from onethinker_jax.tasks import Task
from onethinker_jax.text_output import json_text, one_line

if TYPE_CHECKING:  # they import JAX, which only `--model` needs
    from onethinker_jax.data_pipeline.check.corpus_lengths import CorpusLengths
    from onethinker_jax.data_pipeline.processor.processor import Lengths

_BOUNDS = (
    "image_min_pixels",
    "image_max_pixels",
    "video_min_pixels",
    "video_max_pixels",
    "video_total_pixels",
)
_REASON = re.compile(r".*?: record \d+(?: \(problem_id .*?\))?: ([\w.\[\]-]+):", re.DOTALL)


@dataclass(frozen=True)
class CheckSettings:
    """Checks record files in OneThinker's format and the media they name."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Record files, JSON lists or JSON lines."""
    purpose: Annotated[Purpose | None, tyro.conf.arg(name="for")] = None
    """What the files are for: records that do not serve it are bad. By default any layout is taken."""
    out: Path = Path("check")
    """Folder for bad.jsonl, counts.json and index.html."""
    media_root: Path | None = None
    """Folder the media paths are relative to; by default each file's own."""
    media: bool = True
    """Decode the media; without, only that they exist is checked."""
    workers: int = os.cpu_count() or 1
    """Processes that decode."""
    fps: float = 2.0
    """Videos are sampled as in training: frames a second ..."""
    max_frames: int = 128
    """... and at most this many."""
    time_limit: float = 60.0
    """Seconds that decoding one video may take."""
    samples: int = 2
    """Records a task shown on the page."""
    model: Path | None = None
    """Model directory: also print how many tokens and patches its processor makes of the records, by task, and the
    settings of training that they fit; and write lengths.jsonl, which the plan of training reads."""
    max_new_tokens: int = 4096
    """With a model: the most tokens of an answer; RL's rows need capacity for them beside a prompt."""
    image_min_pixels: int | None = None
    """With a model: bounds of an image's area, by default the directory's."""
    image_max_pixels: int | None = None
    """Its largest area."""
    video_min_pixels: int | None = None
    """With a model: bounds of a frame's area, by default those of OneThinker's RL."""
    video_max_pixels: int | None = None
    """Its largest area."""
    video_total_pixels: int | None = None
    """With a model: bound of a video's sampled frames together, by default the directory's."""

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("name at least one file")
        for name in ("workers", "fps", "max_frames", "time_limit", "max_new_tokens"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} {getattr(self, name)} must be positive")

    def lengths(self, media: MediaReader) -> "CorpusLengths | None":
        """Where the records' lengths are counted; None without a model.

        Raises ProcessorError, PromptError, or ValueError naming bounds that cannot be.
        """
        if self.model is None:
            return None
        from onethinker_jax.data_pipeline.check.corpus_lengths import CorpusLengths
        from onethinker_jax.data_pipeline.processor.processor import Processor
        from onethinker_jax.data_pipeline.processor.processor_config import MediaBounds

        given = {name: getattr(self, name) for name in _BOUNDS if getattr(self, name) is not None}
        processor = Processor.from_pretrained(
            self.model,
            MediaBounds(video_fps=self.fps, video_max_frames=self.max_frames, **given),
            media=media,
        )
        return CorpusLengths(processor, max_new_tokens=self.max_new_tokens)

    def media_flags(self) -> str:
        """The flags of training that give media the sizes that were looked at."""
        flags = {"video_fps": f"{self.fps:g}", "video_max_frames": self.max_frames}
        flags |= {name: getattr(self, name) for name in _BOUNDS if getattr(self, name) is not None}
        return " ".join(f"--data.{name.replace('_', '-')} {value}" for name, value in flags.items())


def check(settings: CheckSettings, console: Console) -> tuple[CorpusCounts, BadRecords]:
    """Reads all files, writes the results, prints the tables; what was counted and what was bad.

    Raises RecordError: a file cannot be read or is not JSON. OSError: the folder cannot be written.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    (settings.out / "bad.jsonl").unlink(missing_ok=True)
    bad = BadRecords("skip", settings.out / "bad.jsonl")
    counts, shown = CorpusCounts(), _Samples(settings.samples)
    limit = settings.time_limit + GRACE_SECONDS
    with ExitStack() as stack:
        pool = stack.enter_context(MediaPool(settings.workers, time_limit=limit))
        lengths = settings.lengths(MediaReader(pool=pool, time_limit=settings.time_limit))
        threads = stack.enter_context(ThreadPoolExecutor(settings.workers))
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console) as progress:
            for path in settings.files:
                _check_file(path, settings, pool, threads, counts, bad, shown, lengths, progress)
        views = [(record, threads.submit(pool.call, view_record, record)) for record in shown.records()]
        cards = [(record, _view(view)) for record, view in views]
    title = ", ".join(path.name for path in settings.files)
    facts = {
        "Good records": f"{counts.records:,}",
        "Bad records": f"{bad.count:,}" + (", see bad.jsonl" if bad.count else ""),
        **({"Look wrong": f"{bad.doubts:,}: {bad.doubts_text()}"} if bad.doubts else {}),
        "Media": "decoded" if settings.media else "not decoded",
        "Checked": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
    write_corpus_page(settings.out / "index.html", title, counts.tasks, cards, facts)
    summary = {**counts.to_json(), "bad": bad.count, "doubtful": dict(bad.doubtful.most_common())}
    if lengths is not None:
        summary["model_lengths"] = lengths.to_json()
        lines = "".join(json_text(line) + "\n" for line in lengths.lines())
        write_whole(settings.out / "lengths.jsonl", lines)
    write_whole(settings.out / "counts.json", json_text(summary, indent=2) + "\n")
    _print(counts, bad, settings, console)
    if lengths is not None:
        console.print(lengths.table())
        for purpose, flags in lengths.settings().items():
            console.print(
                f"{purpose}, all records fit: {flags} {settings.media_flags()}", soft_wrap=True, markup=False
            )
    return counts, bad


def _check_file(
    path: Path,
    settings: CheckSettings,
    pool: MediaPool,
    threads: ThreadPoolExecutor,
    counts: CorpusCounts,
    bad: BadRecords,
    shown: "_Samples",
    lengths: "CorpusLengths | None",
    progress: Progress,
) -> None:
    rows = JsonRows(path)
    size = path.stat().st_size if path.is_file() else 0
    task: TaskID = progress.add_task(escape(one_line(path.name)), total=size)
    pending: deque[tuple[Record, Future[MediaFacts] | None, Future[Lengths] | None]] = deque()

    def settle() -> None:
        """Counts the record that waits longest."""
        record, facts, of_model = pending.popleft()
        try:
            found = facts.result() if facts is not None else None
            if lengths is not None and of_model is not None:
                lengths.add(record, of_model.result())
        except (MediaError, RecordError) as error:
            bad.report(error, file=str(path), problem_id=record.problem_id, problem=record.problem)
            return
        counts.add(record, found)
        shown.offer(record)

    sampling = {"fps": settings.fps, "max_frames": settings.max_frames, "time_limit": settings.time_limit}
    for record in iter_records(rows, media_root=settings.media_root, purpose=settings.purpose, bad=bad):
        facts = threads.submit(pool.call, inspect_media, record, **sampling) if settings.media else None
        of_model = threads.submit(lengths.of, record) if lengths is not None else None
        pending.append((record, facts, of_model))
        if len(pending) > 4 * settings.workers:
            settle()
        progress.update(task, completed=rows.bytes_read)
    while pending:
        settle()
    progress.update(task, completed=size)


class _Samples:
    """A few records of each task, every one as likely as another, the same ones every time."""

    def __init__(self, count: int):
        self._count, self._random = count, random.Random(0)
        self._kept: dict[Task, list[Record]] = {}
        self._seen: Counter[Task] = Counter()

    def offer(self, record: Record) -> None:
        task = task_of(record)
        kept = self._kept.setdefault(task, [])
        self._seen[task] += 1
        if len(kept) < self._count:
            kept.append(record)
        elif (slot := self._random.randrange(self._seen[task])) < self._count:
            kept[slot] = record

    def records(self) -> list[Record]:
        return [record for task in sorted(self._kept) for record in self._kept[task]]


def _view(view: Future[View]) -> View | str:
    try:
        return view.result()
    except MediaError as error:
        return str(error)


def _print(counts: CorpusCounts, bad: BadRecords, settings: CheckSettings, console: Console) -> None:
    for table in counts.tables():
        console.print(table)
    if bad.count:
        fields: Counter[str] = Counter()
        with (settings.out / "bad.jsonl").open(encoding="utf-8") as file:
            for line in file:
                found = _REASON.match(json.loads(line)["reason"])
                fields[found.group(1) if found else "(whole record)"] += 1
        table = Table("bad field", "records", style="red")
        for field, count in fields.most_common():
            table.add_row(escape(field), f"{count:,}")
        console.print(table)
    if bad.doubts:
        table = Table("looks wrong", "records", style="yellow")
        for text, count in bad.doubtful.most_common():
            table.add_row(escape(text), f"{count:,}")
        console.print(table)
    console.print(
        f"{counts.records:,} good records, {bad.count:,} bad"
        + (f", {counts.repeated_ids:,} with the problem_id of another" if counts.repeated_ids else "")
        + f"; see {one_line(str(settings.out / 'index.html'))}",
        highlight=False,
        markup=False,
    )


def run(settings: CheckSettings) -> int:
    """Checks, with what is logged among the tables; returns 1 where a record is bad."""
    console = Console()
    command_line.show_log(RichHandler(console=console, show_time=False, show_path=False, show_level=False))
    _, bad = check(settings, console)
    return 1 if bad.count else 0


main = partial(command_line.main, CheckSettings, run, prog="python -m onethinker_jax.data_pipeline.check")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
