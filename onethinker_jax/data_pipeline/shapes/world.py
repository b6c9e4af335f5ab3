"""The Shapes world: a dataset in OneThinker's own JSON formats, with real media files and true answers.

`build_shapes_world` draws small pictures (PNG) and videos (H.264) of coloured shapes and printed text
(`random_scenes`), asks several questions of different tasks about each (`questions`), and writes an RL file, an
SFT file with chains of thought and an evaluation file, each on scenes of its own (`worlds.building`).
"""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from onethinker_jax.data_pipeline.shapes import random_scenes, rendering
from onethinker_jax.data_pipeline.shapes.descriptions import describe
from onethinker_jax.data_pipeline.shapes.questions import QUESTIONS, ask_task
from onethinker_jax.data_pipeline.shapes.scene import Scene
from onethinker_jax.data_pipeline.worlds.building import build_world
from onethinker_jax.data_pipeline.worlds.question import Question
from onethinker_jax.data_pipeline.worlds.world import Job, World, WorldPaths

VERSION = 10
"""Raise it when scenes, questions or wordings change: a folder made by another version is made anew."""


@dataclass(frozen=True)
class ShapesWorld(World):
    """All that the dataset depends on."""

    name: ClassVar = "shapes"
    title: ClassVar = "Shapes world"
    questions: ClassVar = QUESTIONS
    records_a_scene: ClassVar = {"shapes": 5, "words": 3, "sum": 2}
    described: ClassVar = (
        *(
            ("image", "shapes"),
            ("video", "shapes"),
            ("image", "words"),
            ("image", "shapes"),
            ("video", "words"),
        ),
        *(("image", "shapes"), ("video", "shapes"), ("image", "sum"), ("image", "shapes"), ("video", "sum")),
    )
    taught_more: ClassVar = {"multiple choice": 3}  # options and letters are learnt later than the rest

    def settings(self) -> dict[str, Any]:
        """Numbers, seed and version."""
        return {**asdict(self), "version": VERSION}

    def draw(self, job: Job, rng: random.Random) -> Scene:
        """A picture or a video of the job's kind."""
        made = random_scenes.video_scene if job.data_type == "video" else random_scenes.image_scene
        return made(rng, job.kind)

    def ask(self, scene: Scene, problem_type: str, rng: random.Random) -> Question | None:
        """By the table of `questions`."""
        return ask_task(scene, problem_type, rng)

    def describe(self, scene: Scene, rng: random.Random) -> Question:
        """By `descriptions`."""
        return describe(scene, rng)

    def write(self, scene: Scene, path: Path) -> None:
        """As PNG or MP4."""
        write = rendering.write_mp4 if scene.duration else rendering.write_png
        write(scene, path)


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
) -> WorldPaths:
    """Writes the dataset into `directory`, or finds it there, made with the same settings.

    Args:
        directory: made anew if it is missing, empty, or a Shapes world of other settings.
        seed: of all scenes; the three files' scenes differ for any seed.
        train_rl: records of the RL file.
        train_sft: records of the SFT file that ask a task's question.
        heldout: records of the evaluation file.
        captions: further SFT records, each on a scene of its own, that only describe it: few tokens, all of them to
            be seen. A model that starts from nothing learns to see from these.
        processes: worker processes; 1 works in this one. The result does not depend on it.
        progress: called with (scenes done, scenes in all) now and then.

    Raises WorldError: the folder holds something else.
    """
    world = ShapesWorld(seed, train_rl, train_sft, heldout, captions)
    return build_world(world, directory, processes=processes, progress=progress)
