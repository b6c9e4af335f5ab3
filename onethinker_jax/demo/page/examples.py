"""Questions that the page offers: held-out records of the model's run, a few of every task."""

import json
import logging
from collections import defaultdict
from pathlib import Path

from onethinker_jax.data_pipeline.records.record import Record, read_records, task_of
from onethinker_jax.tasks import PROBLEM_TYPES, Task

logger = logging.getLogger("onethinker_jax.demo")

OF_A_TASK = 3
"""Examples of a problem type about one kind of medium."""


def read_examples(file: Path, media_root: Path | None = None) -> list[Record]:
    """The first records of every task, in the order of the table of tasks. Raises RecordError."""
    found: dict[Task, list[Record]] = defaultdict(list)
    for record in read_records(file, media_root=media_root, purpose="heldout"):
        if len(found[task_of(record)]) < OF_A_TASK:
            found[task_of(record)].append(record)
    tasks = sorted(found, key=lambda task: (PROBLEM_TYPES.index(task.problem_type), task.medium))
    return [record for task in tasks for record in found[task]]


def examples_of_run(model: Path) -> tuple[Path, Path | None] | None:
    """The held-out file of the run whose `model` this is, and its media root; None where there is none to be found."""
    run = model.resolve().parent
    try:
        data = json.loads((run / "config.json").read_text("utf-8"))["data"]
        named, root = data["heldout_file"], data["media_root"]
    except (OSError, ValueError, KeyError, TypeError):  # not in the folder of a run
        return None
    if named is None:
        return next(((file, None) for file in sorted((run / "data").glob("eval_*.json"))), None)
    if not Path(named).is_file():  # it was named from another folder, or is gone
        logger.warning("%s, the run's held-out records, is not there: no examples", named)
        return None
    return Path(named), None if root is None else Path(root)
