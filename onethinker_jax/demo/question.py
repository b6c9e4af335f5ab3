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


def picture_file(media: Sequence[Path], out: Path | None, *, overwrite: bool) -> Path | None:
    """Where the picture goes: to `out`, else to a free name made of the first medium's.

    An earlier picture stays. None where there is neither `out` nor a medium.

    Raises UsageError when none can be written there.
    """
    if out is None:
        if not media:
            return None
        file, number = Path(f"{media[0].stem}_answer.png"), 1
        while file.exists() and (not overwrite or _is_one_of(file, media)):
            number += 1
            file = file.with_stem(f"{media[0].stem}_answer_{number}")
        return file
    if Image.registered_extensions().get(out.suffix.lower()) not in Image.SAVE:
        raise UsageError(f"--out {out}: not the name of a picture, such as answer.png")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}")
    if _is_one_of(out, media):
        raise UsageError(f"--out {out}: is the medium itself")
    if out.exists() and not overwrite:
        raise UsageError(f"--out {out}: is there already; --overwrite replaces it")
    return out


def _is_one_of(file: Path, media: Sequence[Path]) -> bool:
    return file.exists() and any(medium.exists() and file.samefile(medium) for medium in media)
