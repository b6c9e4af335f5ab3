"""What the demo is asked: a question, the media that it is about, and the kind of answer that is wanted."""

import mimetypes
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from onethinker_jax.command_line import UsageError
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.question import question_record
from onethinker_jax.tasks import is_structured

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)


@dataclass(frozen=True)
class Question:
    """One question about media, whose kinds their content says."""

    text: str
    media: tuple[Path, ...] = ()
    task: str = "open-ended"
    options: tuple[str, ...] = ()

    def record(self) -> Record:
        """The question as the pipeline takes it. Raises UsageError, or MediaError naming a file."""
        return question_record(self.text, self.media, task=self.task, options=self.options)


def split_words(words: Sequence[str]) -> tuple[tuple[Path, ...], str]:
    """The media and the question, which stands last. Raises UsageError where it is missing, or a file an address."""
    *files, question = words or ("",)
    media = media_files(files)
    # A question may be any text, too long for a file's name too, which os.path.exists takes for none.
    named = (mimetypes.guess_type(question)[0] or "").startswith(("image/", "video/"))
    if os.path.exists(question) or (named and not re.search(r"\s", question)):
        media_files([question])
        raise UsageError(f"the question about {question} is missing")
    return media, question


def media_files(words: Sequence[str]) -> tuple[Path, ...]:
    """The files of these names. Raises UsageError naming one that is an address: nothing is fetched."""
    for word in words:
        if _ADDRESS.fullmatch(word):
            raise UsageError(f"{word}: is an address, and nothing is fetched; download it and name the file")
    return tuple(map(Path, words))


@dataclass(frozen=True)
class AnswerFiles:
    """Where an answer is drawn: as a picture, and as a clip where it is about places or times of a video."""

    picture: Path | None
    clip: Path | None


def answer_files(
    question: Question, record: Record, out: Path | None, *, overwrite: bool, clip: bool
) -> AnswerFiles:
    """The picture goes to `out`, else to a free name made of the first medium's; a clip has its name, and ends in .mp4.

    Earlier files stay. No picture where there is neither `out` nor a medium; no clip without a picture, or where
    `clip` is false.

    Raises UsageError when one cannot be written there.
    """
    clip = clip and bool(record.videos) and is_structured(record.problem_type)
    media = question.media

    def files(picture: Path) -> AnswerFiles:
        return AnswerFiles(picture, picture.with_suffix(".mp4") if clip else None)

    if out is None:
        if not media:
            return AnswerFiles(None, None)
        found, number = files(Path(f"{media[0].stem}_answer.png")), 1
        while any(
            one.exists() and (not overwrite or _is_one_of(one, media))
            for one in (found.picture, found.clip)
            if one is not None
        ):
            number += 1
            found = files(Path(f"{media[0].stem}_answer_{number}.png"))
        return found
    if Image.registered_extensions().get(out.suffix.lower()) not in Image.SAVE:
        raise UsageError(f"--out {out}: not the name of a picture, such as answer.png")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}")
    found = files(out)
    _check_free(out, f"--out {out}", media, overwrite)
    if found.clip is not None:
        _check_free(found.clip, f"--out {out}: its clip {found.clip}", media, overwrite)
    return found


def _check_free(file: Path, name: str, media: Sequence[Path], overwrite: bool) -> None:
    if _is_one_of(file, media):
        raise UsageError(f"{name}: is the medium itself")
    if file.exists() and not overwrite:
        raise UsageError(f"{name}: is there already; --overwrite replaces it")


def _is_one_of(file: Path, media: Sequence[Path]) -> bool:
    return file.exists() and any(medium.exists() and file.samefile(medium) for medium in media)
