"""What a run that stops over updates that are not finite leaves to be looked at: micro-batches, records, state.

RUN/replay/sft_00000007/
    facts.json          stage, step, what was not finite
    batch_0.npz         this process's micro-batches of the update, as they went into it; batch_1.npz …
    records_0.jsonl     the records that they are made of, of RL with samples, scores and advantages
    state/              the train state that the update met, as a checkpoint
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import jax
import numpy as np

from onethinker_jax.data_pipeline.batches.packing import Batch
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.errors import UserError
from onethinker_jax.files import whole_file, write_whole
from onethinker_jax.model.inputs import ModelInputs, VisionInputs
from onethinker_jax.text_output import json_text
from onethinker_jax.train.checkpoints.checkpoints import Checkpoints
from onethinker_jax.train.config.checkpoints import CheckpointSettings
from onethinker_jax.train.hosts import Hosts
from onethinker_jax.train.run_folder import RunFolder
from onethinker_jax.train.state import TrainState

FACTS = "facts.json"


class ReplayError(UserError):
    """A folder that holds no update to look at, or only a part of one. The error names it."""


@dataclass(frozen=True)
class FailedUpdate:
    """The update at which a run stopped, as this process had it."""

    step: int
    loss: float
    norm: float  # of its gradient
    micro_batches: Sequence[Any]  # pytrees of numpy arrays: this process's rows
    records: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Replay:
    """Such an update, read again: the micro-batches of all processes, {dotted name: array} each."""

    folder: Path
    facts: dict[str, Any]
    micro_batches: list[dict[str, np.ndarray]]
    records: list[dict[str, Any]]  # each with the "micro_batch" that it is in, where that is known

    def state(self, like: TrainState) -> TrainState:
        """The state that the update met; raises CheckpointError."""
        checkpoints = Checkpoints(self.folder / "state")
        try:
            return checkpoints.restore(self.facts["step"], like)
        finally:
            checkpoints.close()


def write_replay(
    folder: RunFolder, failed: FailedUpdate, state: TrainState, facts: Mapping[str, Any], hosts: Hosts
) -> Path:
    """Writes the update; all processes call it, each with its own rows. An older one of this step is gone."""
    path = folder.replay(facts["stage"], failed.step)
    hosts.first_does(lambda: _emptied(path))
    hosts.all_do(lambda: _write_rows(path, failed, hosts.index))
    checkpoints = Checkpoints(path / "state", CheckpointSettings())
    try:
        checkpoints.save(failed.step, state, dict(facts))
    finally:
        checkpoints.close()
    told = {**facts, "step": failed.step, "loss": str(failed.loss), "grad_norm": str(failed.norm)}
    told["processes"] = hosts.count
    hosts.first_does(
        lambda: write_whole(path / FACTS, json.dumps(told, indent=2) + "\n")
    )  # last: all is there
    return path


def newest_replay(path: Path) -> Path:
    """The folder of the newest update that was kept: `path` itself, or one below the run at `path`.

    Raises ReplayError.
    """
    if (path / FACTS).is_file():
        return path
    found = sorted(RunFolder(path).replays.glob(f"*/{FACTS}"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise ReplayError(f"{path}: holds no update that a run stopped at (RUN/replay/STAGE_STEP)")
    return found[-1].parent


def read_replay(path: Path) -> Replay:
    """The update in a folder as `newest_replay` gives it; raises ReplayError naming what is not there."""
    facts = json.loads((path / FACTS).read_text())
    parts, records = [], []
    for index in range(facts["processes"]):
        try:
            with np.load(path / f"batch_{index}.npz") as arrays:
                parts.append({name: arrays[name] for name in arrays.files})
            lines = (path / f"records_{index}.jsonl").read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise ReplayError(f"{path}: process {index}'s part cannot be read: {error}") from error
        records += [{"process": index, **json.loads(line)} for line in lines]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    count = 1 + max(int(name.partition("/")[0]) for name in rows)
    micro_batches = [
        {name.partition("/")[2]: array for name, array in rows.items() if name.startswith(f"{number}/")}
        for number in range(count)
    ]
    return Replay(path, facts, micro_batches, records)


def batch_of(arrays: Mapping[str, np.ndarray], prefix: str = "") -> Batch:
    """The batch whose arrays have these dotted names, behind `prefix`."""
    place = f"{prefix}inputs."
    vision = None
    if f"{place}vision.patches" in arrays:
        vision = VisionInputs(**{f.name: arrays[f"{place}vision.{f.name}"] for f in fields(VisionInputs)})
    text = {f.name: arrays[place + f.name] for f in fields(ModelInputs) if f.name != "vision"}
    return Batch(
        ModelInputs(**text, vision=vision), arrays[f"{prefix}targets"], arrays[f"{prefix}target_mask"]
    )


def record_row(record: Record) -> dict[str, Any]:
    """What tells a record among all: where it is from, its question and media."""
    return {
        "problem_id": record.problem_id,
        "origin": record.origin,
        "problem": record.problem,
        "media": [str(file) for file in (*record.images, *record.videos)],
    }


def _emptied(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


def _write_rows(path: Path, failed: FailedUpdate, index: int) -> None:
    arrays = {
        f"{number}/{jax.tree_util.keystr(key, simple=True, separator='.')}": np.asarray(leaf)
        for number, batch in enumerate(failed.micro_batches)
        for key, leaf in jax.tree_util.tree_leaves_with_path(batch)
    }
    with whole_file(path / f"batch_{index}.npz") as aside, aside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    lines = "".join(json_text(dict(record)) + "\n" for record in failed.records)
    write_whole(path / f"records_{index}.jsonl", lines)
