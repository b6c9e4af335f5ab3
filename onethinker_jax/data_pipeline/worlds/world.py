"""A world: what a data set of scenes is made by, and which scene carries which tasks."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from onethinker_jax.data_pipeline.worlds.question import Question, TaskTable
from onethinker_jax.data_pipeline.worlds.stage import Stage
from onethinker_jax.errors import UserError
from onethinker_jax.tasks import TASKS, Medium, Task

RecordFile = Literal["sft", "rl", "eval"]
"""The three files of a data set."""


class WorldError(UserError):
    """The folder cannot be used, or a scene could not be made. One line naming what."""


@dataclass(frozen=True)
class WorldPaths:
    """Where the three record files lie; media paths in them are relative to their folder."""

    directory: Path
    rl_json: Path
    sft_json: Path
    eval_json: Path

    @classmethod
    def under(cls, directory: Path, name: str) -> "WorldPaths":
        """The paths of a data set of the world `name` in this folder."""
        return cls(
            directory,
            directory / "onethinker_rl_train.json",
            directory / "onethinker_sft.json",
            directory / f"eval_{name}.json",
        )

    @property
    def files(self) -> dict[RecordFile, Path]:
        """The record files by what they are for."""
        return {"sft": self.sft_json, "rl": self.rl_json, "eval": self.eval_json}


@dataclass(frozen=True)
class Part:
    """`records` of one file that are dealt out together; `split` is a word of their scenes' names and keys."""

    split: str
    file: RecordFile
    records: int


@dataclass(frozen=True)
class Job:
    """One scene to make: its key, its kind, and the problem types asked about it."""

    seed: int
    split: str
    file: RecordFile
    data_type: Literal["image", "video"]
    kind: str
    number: int
    problem_types: tuple[str, ...]
    describes: bool = False
    """Whether the scene is only to be described."""

    @property
    def rng(self) -> random.Random:
        """The scene's own random generator."""
        return random.Random(f"{self.seed}/{self.split}/{self.data_type}/{self.kind}/{self.number}")

    def media(self, ending: str) -> str:
        """Its file, relative to the data set's folder."""
        return f"{self.data_type}s/{self.split}_{self.kind}_{self.number:05d}.{ending}"


@dataclass(frozen=True)
class World(ABC):
    """All that a data set depends on; whoever makes the scenes of it has a copy.

    `train_rl`, `train_sft` and `heldout` are numbers of records in the three files. `captions` is that of further
    records of the SFT file, which describe a scene of their own, without a chain of thought.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    questions: ClassVar[TaskTable]
    records_a_scene: ClassVar[Mapping[str, int]]
    """How many records share one picture or video at most, by kind of scene."""
    described: ClassVar[Sequence[tuple[Literal["image", "video"], str]]]
    """Medium and kind of the scenes that are only described, in turn."""
    taught_more: ClassVar[Mapping[str, int]] = {}
    """Problem types that have more than their share of the SFT file, and how many times it."""

    seed: int
    train_rl: int
    train_sft: int
    heldout: int
    captions: int = 0

    def __post_init__(self) -> None:
        for name in ("train_rl", "train_sft", "heldout"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, is {getattr(self, name)}")

    @property
    def dataset(self) -> str:
        """What the manifest calls such a data set."""
        return f"onethinker_jax {self.title}"

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the manifest holds: a folder made with the same ones is used again."""

    @abstractmethod
    def draw(self, job: Job, rng: random.Random) -> Stage:
        """A scene by lot."""

    @abstractmethod
    def ask(self, scene: Any, problem_type: str, rng: random.Random) -> Question | None:
        """A question of `problem_type` on a scene, or None if it offers none."""

    @abstractmethod
    def describe(self, scene: Any, rng: random.Random) -> Question:
        """A caption that is nothing but what is to be seen."""

    @abstractmethod
    def write(self, scene: Any, path: Path) -> None:
        """Writes the scene's picture or video."""

    def ending(self, job: Job) -> str:
        """How the name of the scene's file ends."""
        return "mp4" if job.data_type == "video" else "png"

    def data_source(self, job: Job) -> str:
        """What the scene's records say of where they are from."""
        return f"{self.name}_{'captions' if job.describes else job.kind}"

    def parts(self) -> Sequence[Part]:
        """The records that are dealt out, by file."""
        return (
            Part("sft", "sft", self.train_sft),
            Part("rl", "rl", self.train_rl),
            Part("eval", "eval", self.heldout),
        )

    def kinds(self, split: str) -> Sequence[str]:
        """The kinds of scenes that are made for a split."""
        return tuple(self.records_a_scene)

    def notes(self) -> Sequence[str]:
        """What of it is not made, a line each."""
        return ()

    def jobs(self) -> list[Job]:
        """All scenes, in the order of their numbers; the same for the same settings."""
        jobs = [job for part in self.parts() for job in self._deal(part)]
        described = [one for one in self.described if one[1] in self.kinds("captions")]
        for number in range(self.captions):
            medium, kind = described[number % len(described)]
            jobs.append(
                Job(self.seed, "captions", "sft", medium, kind, number, ("open-ended",), describes=True)
            )
        return jobs

    def task_counts(self, records: int, split: str = "") -> dict[tuple[str, Task], int]:
        """How many of `records` fall on each (kind of scene, task): by their questions' shares, largest remainders.

        Those of the split "sft" are multiplied by `taught_more`.
        """
        more = self.taught_more if split == "sft" else {}
        shares = {
            (kind, task): self.questions[task][kind].share * more.get(task.problem_type, 1)
            for kind in self.kinds(split)
            for task in TASKS
            if task in self.questions and kind in self.questions[task]
        }
        total = sum(shares.values())
        exact = {key: records * share / total for key, share in shares.items()}
        counts = {key: int(value) for key, value in exact.items()}
        rest = sorted(shares, key=lambda key: counts[key] - exact[key])
        for key in rest[: records - sum(counts.values())]:
            counts[key] += 1
        return counts

    def _deal(self, part: Part) -> Iterator[Job]:
        """Deals the tasks out to scenes, to each scene different ones."""
        groups: dict[tuple[Medium, str], list[str]] = {}
        for (kind, task), count in self.task_counts(part.records, part.split).items():
            if count:
                groups.setdefault((task.medium, kind), []).extend([task.problem_type] * count)
        for (medium, kind), problem_types in groups.items():
            most = max(problem_types.count(problem_type) for problem_type in set(problem_types))
            scenes_wanted = max(most, -(-len(problem_types) // self.records_a_scene[kind]))
            data_type = "video" if medium == "video" else "image"
            for number in range(scenes_wanted):
                # Equal tasks are neighbours in the list and at most `scenes_wanted`: a stride parts them.
                dealt = tuple(problem_types[number::scenes_wanted])
                yield Job(self.seed, part.split, part.file, data_type, kind, number, dealt)
