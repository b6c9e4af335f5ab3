"""A world's data set in a folder: an RL file, an SFT file with chains of thought, an evaluation file, and media.

Every scene has a random generator of its own, keyed by (seed, split, kind, number): the bytes of the JSON and the
pixels depend on the settings alone, not on the number of processes. The folder appears whole or not at all; one made
with the same settings is used again.
"""

import json
import logging
import multiprocessing
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.processor import prompts
from onethinker_jax.data_pipeline.worlds.masks import mask_fields
from onethinker_jax.data_pipeline.worlds.question import Question
from onethinker_jax.data_pipeline.worlds.stage import Stage
from onethinker_jax.data_pipeline.worlds.world import Job, RecordFile, World, WorldError, WorldPaths
from onethinker_jax.files import whole_folder
from onethinker_jax.tasks import Task

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_PATIENCE = 40  # scenes drawn, at most, until one carries all the tasks dealt to it


def build_world(
    world: World,
    directory: str | Path,
    *,
    processes: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> WorldPaths:
    """Writes the data set into `directory`, or finds it there, made with the same settings.

    Args:
        world: what is made.
        directory: made anew if it is missing, empty, or such a world of other settings.
        processes: worker processes; 1 works in this one. The result does not depend on it.
        progress: called with (scenes done, scenes in all) now and then.

    Raises WorldError: the folder holds something else, or no scene carries what is to be asked.
    """
    directory = Path(directory)
    paths = WorldPaths.under(directory, world.name)
    if _stands(paths, world):
        return paths
    begin = time.monotonic()
    for note in world.notes():
        logger.warning("%s: %s", world.title, note)
    with whole_folder(directory) as work:  # in the place of one of other settings: `_stands` refused all else
        _write_world(work, world, processes, progress)
    logger.info("%s in %s: %.1f s", world.title, directory, time.monotonic() - begin)
    return paths


def _stands(paths: WorldPaths, world: World) -> bool:
    """Whether the folder holds this very data set; WorldError if it holds what is not ours to replace."""
    directory = paths.directory
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    try:
        found = json.loads((directory / MANIFEST).read_text())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("dataset") != world.dataset:
        raise WorldError(f"{directory} holds something that is not a {world.title}: name another folder")
    return found.get("settings") == world.settings() and all(file.is_file() for file in paths.files.values())


def _write_world(
    work: Path, world: World, processes: int, progress: Callable[[int, int], None] | None
) -> None:
    (work / "images").mkdir()
    (work / "videos").mkdir()
    jobs = world.jobs()
    rows: dict[RecordFile, list[dict[str, Any]]] = {"sft": [], "rl": [], "eval": []}
    for done, (job, made) in enumerate(zip(jobs, _run(work, world, jobs, processes), strict=True), 1):
        rows[job.file] += made
        if progress is not None and (done % 50 == 0 or done == len(jobs)):
            progress(done, len(jobs))
    for file, path in WorldPaths.under(work, world.name).files.items():
        random.Random(f"{world.seed}/{file}/order").shuffle(rows[file])
        _write_json(path, [{"problem_id": number, **row} for number, row in enumerate(rows[file], 1)])
    counts = {file: len(made) for file, made in rows.items()}
    manifest = {
        "dataset": world.dataset,
        "settings": world.settings(),
        "records": counts,
        "scenes": len(jobs),
    }
    (work / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _write_json(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n")


def _run(work: Path, world: World, jobs: list[Job], processes: int) -> Iterator[list[dict[str, Any]]]:
    """Rows of each job, in the order of the jobs."""
    if processes <= 1 or len(jobs) < 100:
        for job in jobs:
            yield _make(work, world, job)
        return
    # Not forked: the parent may hold threads (JAX, prefetching) that a fork would copy half-way.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=_begin_worker, initargs=(work, world)
    ) as pool:
        yield from pool.map(_make_in_worker, jobs, chunksize=16)


_HELD: dict[str, Any] = {}  # of a worker process: what all its jobs share, sent once


def _begin_worker(work: Path, world: World) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: it ends the pool
    _HELD["work"], _HELD["world"] = work, world


def _make_in_worker(job: Job) -> list[dict[str, Any]]:
    return _make(_HELD["work"], _HELD["world"], job)


def _make(work: Path, world: World, job: Job) -> list[dict[str, Any]]:
    """Draws one scene that carries all its tasks, writes its file, returns its rows without problem_id."""
    rng = job.rng
    for _ in range(_PATIENCE):
        scene = world.draw(job, rng)
        asked = (
            [("open-ended", world.describe(scene, rng))]
            if job.describes
            else _ask_all(world, scene, job.problem_types, rng)
        )
        if asked is not None:
            media = job.media(world.ending(job))
            world.write(scene, work / media)
            source = world.data_source(job)
            return [_row(job, source, media, scene, *one) for one in asked]
    raise WorldError(f"no {job.kind} scene in {_PATIENCE} carries {', '.join(job.problem_types)}")


def _ask_all(
    world: World, scene: Stage, problem_types: tuple[str, ...], rng: random.Random
) -> list[tuple[str, Question]] | None:
    """A question for every problem type; None if the scene carries none of one of them."""
    asked: list[tuple[str, Question]] = []
    for problem_type in problem_types:
        question = world.ask(scene, problem_type, rng)
        if question is None:
            return None
        asked.append((problem_type, question))
    return asked


def _row(
    job: Job, source: str, path: str, scene: Stage, problem_type: str, question: Question
) -> dict[str, Any]:
    problem = f"<{job.data_type}>{question.problem}"
    answer = f"<answer>{question.answer}</answer>"
    head = {
        "problem": problem,
        "data_type": job.data_type,
        "problem_type": problem_type,
        "options": list(question.options),
        "data_source": source,
    }
    media = {f"{job.data_type}s": [path]}
    if job.describes:
        said = [{"role": "user", "content": problem}, {"role": "assistant", "content": question.answer}]
        return {**head, "answer": answer, "messages": said, **media}
    if job.file == "sft":
        messages = [
            {
                "role": "user",
                "content": prompts.ask(problem, question.options, Task.of(problem_type, job.data_type)),
            },
            {"role": "assistant", "content": f"<think>{question.thinking}</think>\n{answer}"},
        ]
        return {**head, "answer": answer, "messages": messages, **media}
    masks = mask_fields(scene, question.target) if question.target is not None else {}
    if job.file == "rl":
        return {**head, "answer": answer, **media, **masks}
    return {**head, "solution": answer, "path": path, **masks}
