"""The Photos world: records of all problem types, composed of real photographs, cut-outs, clips, maps and fonts.

Split by identity: scenes of the SFT and RL files are made of the library's train items alone. Half of the held-out
records are of new scenes of train items (`data_source` "photos_seen"), half of held-out items alone, which no training
scene has (`photos_unseen`); wrong options are of the scene's own split, so that what is known tells nothing.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from onethinker_jax.data_pipeline.photos.library import INDEX, Library, Split
from onethinker_jax.data_pipeline.photos.questions.descriptions import describe
from onethinker_jax.data_pipeline.photos.questions.table import QUESTIONS, ask_task
from onethinker_jax.data_pipeline.photos.scenes.placing import picture_of_objects, video_of_objects
from onethinker_jax.data_pipeline.photos.scenes.plates import TO_READ, picture_to_read, video_to_read
from onethinker_jax.data_pipeline.photos.scenes.pools import Pools
from onethinker_jax.data_pipeline.photos.scenes.scene import PhotoScene
from onethinker_jax.data_pipeline.photos.scenes.views import picture_of_map, picture_of_view, video_of_shots
from onethinker_jax.data_pipeline.worlds.question import Question
from onethinker_jax.data_pipeline.worlds.world import Job, Part, World, WorldError

VERSION = 6
"""Raise it when scenes, questions or wordings change: a folder made by another version is made anew."""

UNSEEN = "unseen"
PATIENCE = 200


@dataclass(frozen=True)
class PhotosWorld(World):
    """All that the data set depends on.

    `image_side` and `video_side` are the longer sides of the largest pictures and videos, in pixels; `crf` is how much
    H.264 takes away.
    """

    name: ClassVar = "photos"
    title: ClassVar = "Photos world"
    questions: ClassVar = QUESTIONS
    records_a_scene: ClassVar = {
        "objects": 5,
        "herd": 3,
        "view": 2,
        "map": 3,
        "words": 3,
        "digits": 3,
        "coins": 2,
        "shots": 4,
    }
    described: ClassVar = (
        *(
            ("image", "objects"),
            ("video", "objects"),
            ("image", "words"),
            ("image", "view"),
            ("video", "shots"),
        ),
        *(
            ("image", "objects"),
            ("image", "digits"),
            ("video", "words"),
            ("image", "map"),
            ("image", "coins"),
        ),
    )

    library: Library = field(kw_only=True)
    image_side: int = 448
    video_side: int = 320
    crf: int = 23

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("image_side", 128), ("video_side", 96)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, is {getattr(self, name)}")
        if lacking := self.pools("train").lacks.get("objects"):
            raise WorldError(f"{self.library.folder}: too little for the {self.title}: {lacking}")

    def settings(self) -> dict[str, Any]:
        """Numbers, sides, seed and version, and which library."""
        index = (self.library.folder / INDEX).read_bytes()
        own = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "library"}
        return {**own, "library": hashlib.sha256(index).hexdigest(), "version": VERSION}

    @cached_property
    def _pools(self) -> dict[Split, Pools]:
        return {"train": Pools(self.library, "train"), "heldout": Pools(self.library, "heldout")}

    def pools(self, split: str) -> Pools:
        """What scenes of a split are made of."""
        return self._pools["heldout" if split in ("heldout", UNSEEN) else "train"]

    def kinds(self, split: str) -> Sequence[str]:
        """Those that the library has enough for."""
        return tuple(kind for kind in self.records_a_scene if kind not in self.pools(split).lacks)

    def parts(self) -> Sequence[Part]:
        """Half of the held-out records are of held-out items, where these are enough."""
        unseen = 0 if "objects" in self.pools(UNSEEN).lacks else self.heldout // 2
        return (
            Part("sft", "sft", self.train_sft),
            Part("rl", "rl", self.train_rl),
            Part("seen", "eval", self.heldout - unseen),
            Part(UNSEEN, "eval", unseen),
        )

    def notes(self) -> Sequence[str]:
        """Kinds of scenes that the library has too little for."""
        return [
            f"no {kind} scenes of {split} items: {lacking}"
            for split in ("train", "heldout")
            for kind, lacking in self.pools(split).lacks.items()
        ]

    def draw(self, job: Job, rng: random.Random) -> PhotoScene:
        """A picture or a video of the job's kind, of items of its split.

        Raises WorldError when PATIENCE attempts give no scene: the library, or the sides, must be the cause.
        """
        for _ in range(PATIENCE):
            scene = self._try(job, rng, self.pools(job.split))
            if scene is not None:
                return scene
        raise WorldError(
            f"{self.library.folder}: no {job.kind} scene of {self.pools(job.split).split} items came about in "
            f"{PATIENCE} tries: take larger sides, or a library with more in it"
        )

    def _try(self, job: Job, rng: random.Random, pools: Pools) -> PhotoScene | None:
        if job.data_type == "video":
            if job.kind == "objects":
                return video_of_objects(rng, pools, self.video_side)
            if job.kind == "shots":
                return video_of_shots(rng, pools, self.video_side)
            return video_to_read(rng, pools, self.video_side, job.kind)
        if job.kind in TO_READ:
            return picture_to_read(rng, pools, self.image_side, job.kind)
        if job.kind == "view":
            return picture_of_view(rng, pools, self.image_side)
        if job.kind == "map":
            return picture_of_map(rng, pools, self.image_side)
        return picture_of_objects(rng, pools, self.image_side, job.kind)

    def ask(self, scene: PhotoScene, problem_type: str, rng: random.Random) -> Question | None:
        """By the table of `questions`."""
        return ask_task(scene, problem_type, rng)

    def describe(self, scene: PhotoScene, rng: random.Random) -> Question:
        """By `descriptions`."""
        return describe(scene, rng)

    def ending(self, job: Job) -> str:
        """Maps keep their colours."""
        return "mp4" if job.data_type == "video" else "png" if job.kind == "map" else "jpg"

    def data_source(self, job: Job) -> str:
        """The kind of scene in training; of held-out records, whether their items were seen in it."""
        if job.file == "eval":
            return f"{self.name}_{job.split}"
        return super().data_source(job)

    def write(self, scene: PhotoScene, path: Path) -> None:
        """As JPEG, PNG or MP4."""
        scene.write(path, self.crf)
