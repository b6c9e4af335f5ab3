"""The README's table of the default job: held-out accuracy and reward by family, before and after RL, over runs.

    python -m onethinker_jax.train --name seed_0 --seed 0          # and so on
    python -m experiments.job_table runs/seed_0 runs/seed_1 runs/seed_2

The held-out records are the same in all runs. An interval is a 95% bootstrap interval over the records, each of them
with its mean over the runs.
"""

from onethinker_jax import command_line

if __name__ == "__main__":
    command_line.begin()

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from experiments.result_lines import read_lines
from experiments.tables import rows_to_markdown
from experiments.words import say
from onethinker_jax.errors import UserError
from onethinker_jax.tasks import PROBLEM_TYPES, complete
from onethinker_jax.train.pages.intervals import interval

PROG = "python -m experiments.job_table"
FAMILY: Mapping[str, str] = complete(
    "experiments.job_table.FAMILY",
    {
        "multiple choice": "multiple choice",
        "math": "math, OCR",
        "OCR": "math, OCR",
        "numerical": "counting, amounts",
        "regression": "counting, amounts",
        "open-ended": "captions",
        "temporal grounding": "spans",
        "spatial grounding": "boxes",
        "spatial-temporal grounding": "tubes and tracks",
        "tracking": "tubes and tracks",
        "segmentation": "masks (box and points)",
    },
    PROBLEM_TYPES,
)
FIELDS = ("accuracy", "overall")  # of an answer: in shares of 1; the reward
STAGES = ("sft", "rl")


@dataclass(frozen=True)
class Arguments:
    """Held-out accuracy and reward of runs before and after RL, a Markdown table by family."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs with SFT and RL on one world."""


def read_run(folder: Path) -> tuple[list[str], np.ndarray]:
    """The task of each held-out record, and its answers' `FIELDS` by stage, float [records, 2 stages, 2].

    Raises UserError where a file is missing or the two stages answered other records.
    """
    stages = []
    for stage in STAGES:
        path = folder / "heldout" / f"{stage}.jsonl"
        if not path.is_file():
            raise UserError(f"{path}: no held-out answers; the run has not got to its end")
        stages.append(sorted(read_lines(path), key=lambda row: row["problem_id"]))
    keys = [[(row["problem_id"], row["task"]) for row in rows] for rows in stages]
    if keys[0] != keys[1]:
        raise UserError(f"{folder}: SFT and RL answered different held-out records")
    values = np.array([[[row[field] for field in FIELDS] for row in rows] for rows in stages])
    return [task for _, task in keys[0]], values.transpose(1, 0, 2)


def table(tasks: Sequence[str], values: np.ndarray) -> str:
    """A row a family and one of all. `values`: float [runs, records, 2 stages, 2 fields]."""
    families = np.array([FAMILY[task.rsplit(" (", 1)[0]] for task in tasks])
    names = list(dict.fromkeys(FAMILY.values()))
    rows = []
    for name in (*names, "all"):
        chosen = values[:, (families == name) | (name == "all")]
        if not chosen.shape[1]:
            continue
        gains = chosen[:, :, 1, 0].mean(0) - chosen[:, :, 0, 0].mean(0)
        found = interval(gains)
        half = "" if found is None else f" ± {100 * (found[1] - found[0]) / 2:.1f}"
        (sft, reward_sft), (rl, reward_rl) = chosen.mean((0, 1))
        rows.append(
            [
                name,
                f"{100 * sft:.1f} → {100 * rl:.1f}",
                f"{100 * gains.mean():+.1f}{half}",
                f"{reward_sft:.3f} → {reward_rl:.3f}",
            ]
        )
    return rows_to_markdown(["family", "accuracy: SFT → RL", "RL changed it by", "reward: SFT → RL"], rows)


def rising_tasks(tasks: Sequence[str], values: np.ndarray) -> tuple[int, int]:
    """Tasks whose mean accuracy over the runs is larger after RL, and all tasks."""
    names, of = sorted(set(tasks)), np.array(tasks)
    gains = (values[:, :, 1, 0] - values[:, :, 0, 0]).mean(0)
    return sum(bool(gains[of == name].mean() > 0) for name in names), len(names)


def run(arguments: Arguments) -> None:
    """Prints the table."""
    found = [read_run(folder) for folder in arguments.runs]
    tasks = found[0][0]
    for folder, (others, _) in zip(arguments.runs, found, strict=True):
        if others != tasks:
            raise UserError(f"{folder}: other held-out records than {arguments.runs[0]}")
    values = np.stack([one for _, one in found])
    say(table(tasks, values))
    rising, count = rising_tasks(tasks, values)
    say(f"\n{len(found)} runs; accuracy rises with RL in {rising} of {count} tasks.")


if __name__ == "__main__":
    sys.exit(command_line.main(Arguments, run, sys.argv[1:], prog=PROG))
