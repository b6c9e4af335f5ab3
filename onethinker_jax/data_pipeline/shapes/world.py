"""The Shapes world: a dataset in OneThinker's own JSON formats, with real media files and true answers.

`build_shapes_world` draws small pictures (PNG) and videos (H.264) of coloured shapes and printed text
(`random_scenes`), asks several questions of different tasks about each (`questions`), and writes an RL file, an
SFT file with chains of thought and an evaluation file, each on scenes of its own. Every scene has a random
generator of its own, keyed by (seed, split, kind, number): the bytes of the JSON and the pixels depend on the
settings alone, not on the number of processes. The folder appears whole or not at all; one made with the same
settings is used again.
"""

import json
import logging
import multiprocessing
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.processor import prompts
from onethinker_jax.data_pipeline.shapes import random_scenes, rendering
from onethinker_jax.data_pipeline.shapes.captions import list_objects
from onethinker_jax.data_pipeline.shapes.phrases import Question
from onethinker_jax.data_pipeline.shapes.questions import QUESTIONS, ask_task
from onethinker_jax.data_pipeline.shapes.scene import Scene
from onethinker_jax.errors import UserError
from onethinker_jax.files import whole_folder
from onethinker_jax.rewards.metrics import encode_rle
from onethinker_jax.tasks import TASKS, Task

logger = logging.getLogger(__name__)

VERSION = 4
"""Raise it when scenes, questions or wordings change: a folder made by another version is made anew."""

RECORDS_A_SCENE = {"shapes": 5, "words": 3, "sum": 2}
"""How many records share one picture or video at most, by kind of scene."""

_MANIFEST, _DATASET = "manifest.json", "onethinker_jax Shapes world"
_PATIENCE = 40  # scenes drawn, at most, until one carries all the tasks dealt to it


class ShapesError(UserError):
    """The folder cannot be used, or a scene could not be made. One line naming what."""


@dataclass(frozen=True)
class ShapesSettings:
    """All that the dataset depends on.

    `train_rl`, `train_sft` and `heldout` are numbers of records in the three files. `captions` is that of further
    records of the SFT file, which list what a scene of their own holds.
    """

    seed: int
    train_rl: int
    train_sft: int
    heldout: int
    captions: int = 0
    version: int = VERSION

    def __post_init__(self) -> None:
        for name in ("train_rl", "train_sft", "heldout"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, is {getattr(self, name)}")


@dataclass(frozen=True)
class ShapesPaths:
    """Where the three record files lie; media paths in them are relative to their folder."""

    directory: Path
    rl_json: Path
    sft_json: Path
    eval_json: Path

    @classmethod
    def under(cls, directory: Path) -> "ShapesPaths":
        """The paths of a dataset in this folder."""
        return cls(
            directory,
            directory / "onethinker_rl_train.json",
            directory / "onethinker_sft.json",
            directory / "eval_shapes.json",
        )


def build_shapes_world(
    directory: str | Path,
    *,
    seed: int,
    train_rl: int,
    train_sft: int,
    heldout: int,
    captions: int = 0,
    processes: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> ShapesPaths:
    """Writes the dataset into `directory`, or finds it there, made with the same settings.

    Args:
        directory: made anew if it is missing, empty, or a Shapes world of other settings.
        seed: of all scenes; the three files' scenes differ for any seed.
        train_rl: records of the RL file.
        train_sft: records of the SFT file that ask a task's question.
        heldout: records of the evaluation file.
        captions: further SFT records, each on a scene of its own, that only list its objects: few tokens, all of
            them to be seen. A model that starts from nothing learns to see from these.
        processes: worker processes; 1 works in this one. The result does not depend on it.
        progress: called with (scenes done, scenes in all) now and then.

    Raises ShapesError: the folder holds something else.
    """
    settings = ShapesSettings(seed, train_rl, train_sft, heldout, captions)
    directory = Path(directory)
    if _stands(directory, settings):
        return ShapesPaths.under(directory)
    begin = time.monotonic()
    with whole_folder(directory) as work:  # in the place of one of other settings: `_stands` refused all else
        _write_world(work, settings, processes, progress)
    logger.info("Shapes world in %s: %.1f s", directory, time.monotonic() - begin)
    return ShapesPaths.under(directory)


def _stands(directory: Path, settings: ShapesSettings) -> bool:
    """Whether the folder holds this very dataset; ShapesError if it holds what is not ours to replace."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    try:
        found = json.loads((directory / _MANIFEST).read_text())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("dataset") != _DATASET:
        raise ShapesError(f"{directory} holds something that is not a Shapes world: name another folder")
    paths = ShapesPaths.under(directory)
    files = (paths.rl_json, paths.sft_json, paths.eval_json)
    return found.get("settings") == asdict(settings) and all(file.is_file() for file in files)


def _write_world(
    work: Path, settings: ShapesSettings, processes: int, progress: Callable[[int, int], None] | None
) -> None:
    (work / "images").mkdir()
    (work / "videos").mkdir()
    jobs = []
    for split, count in (("sft", settings.train_sft), ("rl", settings.train_rl), ("eval", settings.heldout)):
        jobs += _deal(split, count, settings.seed)
    jobs += [_caption_job(settings.seed, number) for number in range(settings.captions)]
    rows: dict[str, list[dict[str, Any]]] = {"sft": [], "rl": [], "eval": []}
    for done, (job, made) in enumerate(zip(jobs, _run(work, jobs, processes), strict=True), 1):
        rows["sft" if job.split == "captions" else job.split] += made
        if progress is not None and (done % 50 == 0 or done == len(jobs)):
            progress(done, len(jobs))
    paths = ShapesPaths.under(work)
    for split, path in (("rl", paths.rl_json), ("sft", paths.sft_json), ("eval", paths.eval_json)):
        random.Random(f"{settings.seed}/{split}/order").shuffle(rows[split])
        _write_json(path, [{"problem_id": number, **row} for number, row in enumerate(rows[split], 1)])
    counts = {split: len(made) for split, made in rows.items()}
    manifest = {"dataset": _DATASET, "settings": asdict(settings), "records": counts, "scenes": len(jobs)}
    (work / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _write_json(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n")


# ---------------------------------------------------------------- which scene carries which tasks


@dataclass(frozen=True)
class _Job:
    """One scene to make: its key, its kind, and the problem types asked about it."""

    seed: int
    split: str
    data_type: str
    kind: str
    number: int
    problem_types: tuple[str, ...]

    @property
    def media(self) -> str:
        ending = "mp4" if self.data_type == "video" else "png"
        return f"{self.data_type}s/{self.split}_{self.kind}_{self.number:05d}.{ending}"


def task_counts(records: int) -> dict[tuple[str, Task], int]:
    """How many of `records` fall on each (kind of scene, task): largest remainders of `QUESTIONS`' shares."""
    shares = {
        (kind, task): QUESTIONS[task][kind].share
        for kind in RECORDS_A_SCENE
        for task in TASKS
        if task in QUESTIONS and kind in QUESTIONS[task]
    }
    total = sum(shares.values())
    exact = {key: records * share / total for key, share in shares.items()}
    counts = {key: int(value) for key, value in exact.items()}
    rest = sorted(shares, key=lambda key: counts[key] - exact[key])
    for key in rest[: records - sum(counts.values())]:
        counts[key] += 1
    return counts


def _deal(split: str, records: int, seed: int) -> list[_Job]:
    """Deals the tasks out to scenes, to each scene different ones."""
    jobs = []
    groups: dict[tuple[str, str], list[str]] = {}
    for (kind, task), count in task_counts(records).items():
        if count:
            groups.setdefault((task.medium, kind), []).extend([task.problem_type] * count)
    for (data_type, kind), problem_types in groups.items():
        most = max(problem_types.count(problem_type) for problem_type in set(problem_types))
        scenes_wanted = max(most, -(-len(problem_types) // RECORDS_A_SCENE[kind]))
        for number in range(scenes_wanted):
            # Equal tasks are neighbours in the list and at most `scenes_wanted`: a stride parts them.
            dealt = tuple(problem_types[number::scenes_wanted])
            jobs.append(_Job(seed, split, data_type, kind, number, dealt))
    return jobs


def _caption_job(seed: int, number: int) -> _Job:
    """Every fourth is a video."""
    return _Job(seed, "captions", "image" if number % 4 else "video", "shapes", number, ("open-ended",))


def _run(work: Path, jobs: list[_Job], processes: int) -> Iterator[list[dict[str, Any]]]:
    """Rows of each job, in the order of the jobs."""
    if processes <= 1 or len(jobs) < 100:
        for job in jobs:
            yield _make(work, job)
        return
    # Not forked: the parent may hold threads (JAX, prefetching) that a fork would copy half-way.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_leave_interrupts) as pool:
        yield from pool.map(_make, [work] * len(jobs), jobs, chunksize=16)


def _leave_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: it ends the pool


def _make(work: Path, job: _Job) -> list[dict[str, Any]]:
    """Draws one scene that carries all its tasks, writes its file, returns its rows without problem_id."""
    rng = random.Random(f"{job.seed}/{job.split}/{job.data_type}/{job.kind}/{job.number}")
    draw = random_scenes.video_scene if job.data_type == "video" else random_scenes.image_scene
    for _ in range(_PATIENCE):
        scene = draw(rng, job.kind)
        asked = (
            [("open-ended", list_objects(scene))]
            if job.split == "captions"
            else _ask_all(scene, job.problem_types, rng)
        )
        if asked is not None:
            write = rendering.write_mp4 if job.data_type == "video" else rendering.write_png
            write(scene, work / job.media)
            return [_row(job, scene, problem_type, question) for problem_type, question in asked]
    raise ShapesError(f"no {job.kind} scene in {_PATIENCE} carries {', '.join(job.problem_types)}")


def _ask_all(
    scene: Scene, problem_types: tuple[str, ...], rng: random.Random
) -> list[tuple[str, Question]] | None:
    """A question for every problem type; None if the scene carries none of one of them."""
    asked: list[tuple[str, Question]] = []
    for problem_type in problem_types:
        question = ask_task(scene, problem_type, rng)
        if question is None:
            return None
        asked.append((problem_type, question))
    return asked


# ---------------------------------------------------------------- rows


def _row(job: _Job, scene: Scene, problem_type: str, question: Question) -> dict[str, Any]:
    problem = f"<{job.data_type}>{question.problem}"
    answer = f"<answer>{question.answer}</answer>"
    head = {
        "problem": problem,
        "data_type": job.data_type,
        "problem_type": problem_type,
        "options": list(question.options),
        "data_source": f"shapes_{job.kind}",
    }
    media = {f"{job.data_type}s": [job.media]}
    if job.split in ("sft", "captions"):
        messages = [
            {
                "role": "user",
                "content": prompts.ask(problem, question.options, Task.of(problem_type, job.data_type)),
            },
            {"role": "assistant", "content": f"<think>{question.thinking}</think>\n{answer}"},
        ]
        return {**head, "answer": answer, "messages": messages, **media}
    masks = _masks(scene, question.target) if question.target is not None else {}
    if job.split == "rl":
        return {**head, "answer": answer, **media, **masks}
    return {**head, "solution": answer, "path": job.media, **masks}


def _masks(scene: Scene, index: int) -> dict[str, Any]:
    """Resolution, frame rate (videos) and COCO RLE masks of the visible part of a shape, one a frame."""
    resolution = {"width": scene.width, "height": scene.height}
    if not scene.duration:
        rle = encode_rle(rendering.visible_mask(scene, index, 0.0))
        return {"resolution": resolution, "segmentation_output": {"segmentation_rle": rle}}
    frames = {
        f"{i:05d}": encode_rle(rendering.visible_mask(scene, index, t)) for i, t in enumerate(scene.times)
    }
    output = {"frames": list(frames), "segmentation_rle": frames}
    return {"resolution": resolution, "fps": scene.fps, "segmentation_output": output}
