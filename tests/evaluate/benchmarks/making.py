"""Made-up data of every benchmark, where `--data` is looked into."""

import json
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.sources.sample import Source
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from onethinker_jax.data_pipeline.sources.training_set.record_rows import RecordRows
from onethinker_jax.evaluate.benchmarks.table import TABLE
from tests.data_pipeline.sources import making, making_videos
from tests.data_pipeline.sources.making import choice_row, write_tsv


def write_questions(data: Path) -> Path:
    """A few rows of each of the 18 of questions and captions, in the files that the table of benchmarks names."""
    making.mmmu(data / "MMMU_DEV_VAL.tsv")
    making.mathvista(data / "MathVista_MINI.tsv")
    making.mathverse(data / "MathVerse_MINIV.tsv")
    making.mmbench(data / "MMBench_DEV_EN.tsv")
    for name in ("MMStar", "ScienceQA_TEST", "AI2D_TEST"):
        write_tsv(data / f"{name}.tsv", [choice_row(n, hint="Look well." if n == 2 else "") for n in (1, 2)])
    tasks = {"visual_captioning": ["video_captioning", "whoops", "whoops"], "counting": ["crowds"]}
    places = [(meta, task) for meta, names in tasks.items() for task in names]
    rows = [choice_row(n, category=task) | {"l2-category": meta} for n, (meta, task) in enumerate(places, 1)]
    write_tsv(data / "MMT-Bench_VAL.tsv", rows)
    making.mmsci(data / "MMSci_DEV_Captioning_image_only.tsv")
    making_videos.videommmu(data / "VideoMMMU")
    making_videos.mmvu(data / "MMVU")
    making_videos.videomme(data / "Video-MME")
    making_videos.video_holmes(data / "Video-Holmes")
    making_videos.longvideobench(data / "LongVideoBench")
    making_videos.longvideo_reason(data / "LongVideo-Reason")
    making_videos.videomathqa(data / "VideoMathQA")
    making_videos.video_mmlu(data / "Video-MMLU")
    return data


def write_own_files(originals: Path, data: Path) -> list[str]:
    """The questions of benchmarks that OneThinker published files of, as such files; returns the names."""
    data.mkdir()
    names = []
    for benchmark in TABLE.values():
        own, *others = benchmark.files
        if own.layout != "onethinker":
            continue
        original = next(file for file in others if (originals / file.path).exists())
        root = originals / original.media if original.media else None
        samples = LAYOUTS[original.layout](
            Source(originals / original.path, split=benchmark.split, media_root=root)
        )
        rows = RecordRows(data / own.path)
        (data / own.path).write_text(json.dumps([_own_row(rows.row(one.record)) for one in samples]))
        names.append(benchmark.name)
    return names


def _own_row(row: dict[str, Any]) -> dict[str, Any]:
    """With the keys of OneThinker's files of evaluation."""
    media = [*row.pop("videos", []), *row.pop("images", [])]
    row["path"], row["solution"] = media[0], row.pop("answer")
    if media[1:]:
        (row["additional_path"],) = media[1:]
    return row
