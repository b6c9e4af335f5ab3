"""A question of one's own, in no file of records, as the record that the pipeline takes."""

import io
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from onethinker_jax.command_line import UsageError
from onethinker_jax.data_pipeline.media.grey_levels import set_clear_value, to_rgb
from onethinker_jax.data_pipeline.media.media_file import MediaFile, MemoryFile
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.data_pipeline.records.text_errors import text_error
from onethinker_jax.spelling import hint
from onethinker_jax.tasks import PROBLEM_TYPES, TABLE, is_structured, of_answer

Medium: TypeAlias = str | PathLike[str] | Image.Image | np.ndarray
"""The path of an image or video, a PIL image (its first frame), or uint8 pixels [H, W] or [H, W, 3]."""


def question_record(
    text: str,
    media: Sequence[MediaFile] = (),
    *,
    task: str = "open-ended",
    options: Sequence[str] = (),
    kind_of: Callable[[MediaFile], Literal["image", "video"]] | None = None,
) -> Record:
    """The question about these media, whose kinds `kind_of` says, by default their content, read by this process.

    Raises UsageError, or MediaError naming a file. Whether placeholders fit the media is checked when the prompt is
    made.
    """
    if not text.strip():
        raise UsageError("the question is empty")
    if error := text_error(text):
        raise UsageError(f"the question {error}")
    if task not in PROBLEM_TYPES:
        raise UsageError(
            f"unknown task {task!r}; there are: {', '.join(PROBLEM_TYPES)}{hint(task, PROBLEM_TYPES)}"
        )
    row, lettered = TABLE[task], TABLE[task].answer == "letter"
    if lettered and not 2 <= len(options) <= 26:
        raise UsageError(f"task {task!r} needs 2 to 26 options, has {len(options)}")
    if options and not lettered:
        choices = " or ".join(map(repr, of_answer("letter")))
        raise UsageError(f"options are for task {choices}, not {task!r}")
    kind_of = kind_of or MediaReader().kind
    kinds = [kind_of(file) for file in media]
    kind = "text" if not kinds else "video" if "video" in kinds else "image"
    if kind not in row.media:
        needs = [_article(one) for one in row.media if one != "text"]
        has = f"{media[kinds.index(kind)]} is {_article(kind)}" if kinds else "there is none"
        raise UsageError(f"task {task!r} needs {' or '.join(needs)}, and {has}")
    if is_structured(task) and len(media) > 1:
        raise UsageError(f"task {task!r} is about one medium, and there are {len(media)}")
    files = {
        wanted: tuple(file for file, kind in zip(media, kinds, strict=True) if kind == wanted)
        for wanted in ("image", "video")
    }
    return Record(
        problem_id=", ".join(file.name for file in media) or "question",
        problem=text,
        data_type=kind,
        problem_type=task,
        options=tuple(options),
        answer="",
        images=files["image"],
        videos=files["video"],
        data_source="question",
    )


def media_files(media: Medium | Sequence[Medium] | None) -> list[MediaFile]:
    """The media as files: paths as they are, images as PNG files in memory.

    Raises UsageError naming a medium that is none of these.
    """
    if media is None:
        return []
    given = media if isinstance(media, Sequence) and not isinstance(media, str) else [media]
    return [_media_file(one, f"image {number}") for number, one in enumerate(given, 1)]


def _media_file(medium: object, name: str) -> MediaFile:
    if isinstance(medium, str | PathLike):
        return Path(medium)
    if isinstance(medium, Image.Image):
        picture = medium.copy()
    elif isinstance(medium, np.ndarray):
        shape = medium.shape
        if medium.dtype != np.uint8 or not (len(shape) == 2 or shape[2:] == (3,)) or 0 in shape:
            raise UsageError(
                f"{name}: an array of pixels is uint8 [H, W] or [H, W, 3], not {medium.dtype} {list(shape)}"
            )
        picture = Image.fromarray(medium)
    else:
        raise UsageError(
            f"{name}: a medium is a path, a PIL image or an array, not a {type(medium).__name__}"
        )
    try:
        set_clear_value(picture)
        content = io.BytesIO()
        to_rgb(ImageOps.exif_transpose(picture)).save(content, "PNG", compress_level=1)
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: cannot be read as an image ({error})") from None
    return MemoryFile(name, content.getvalue())


def _article(kind: str) -> str:
    return "an image" if kind == "image" else "a video"
