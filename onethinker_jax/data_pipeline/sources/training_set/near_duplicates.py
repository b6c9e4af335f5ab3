"""Records that ask the same of nearly the same picture.

Two records are near-duplicates if their questions and options are the same words, case and punctuation aside, and the
difference hashes of their first pictures (of a video, its first frame) differ in few of 64 bits. The hash says for 8 x
8 places of the picture in grey whether it grows lighter to the right (N. Krawetz, "Kind of Like That", 2013):
resizing, compression and small changes of brightness leave it nearly as it is.
"""

import itertools
import re
from collections import defaultdict

import numpy as np
from PIL import Image

from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.records.conversation import words_of
from onethinker_jax.data_pipeline.records.record import Record, task_of

BITS = 64
_SIDE = 8
_NO_WORD = re.compile(r"[\W_]+")


def difference_hash(pixels: np.ndarray) -> int:
    """64 bits of a picture, uint8 [H, W, 3]."""
    grey = Image.fromarray(pixels).convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.LANCZOS)
    values = np.asarray(grey, np.int16)
    bits = (values[:, 1:] > values[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes())


def question_words(record: Record) -> str:
    """What a record asks: task, question and options as words in lower case."""
    texts = (str(task_of(record)), words_of(record.problem), *record.options)
    return "\n".join(_NO_WORD.sub(" ", text).casefold().strip() for text in texts)


class NearDuplicates:
    """Tells whether a record is nearly one that came before."""

    def __init__(self, distance: int, media: MediaReader | None = None):
        """`distance`: bits in which two pictures may differ and still count as one; `media` reads the pictures."""
        self._distance, self._media = distance, media or MediaReader()
        self._seen: dict[str, _Hashes] = defaultdict(lambda: _Hashes(distance))
        self._of_file: dict[str, int] = {}

    def seen(self, record: Record) -> bool:
        """Whether it is one; otherwise later ones are compared with it. Raises MediaError: its picture is damaged."""
        return self._seen[question_words(record)].seen(self._picture(record))

    def _picture(self, record: Record) -> int:
        if not record.images and not record.videos:
            return 0
        if record.videos:
            film = record.videos[0]
            name = str(film)
            if name not in self._of_file:
                self._of_file = {name: self._first_frame_hash(record)}
            return self._of_file[name]
        return difference_hash(self._media.image(record.images[0], None))

    def _first_frame_hash(self, record: Record) -> int:
        video = self._media.video(record.videos[0], None, fps=1.0, max_frames=1)
        return difference_hash(video.frames[0])


class _Hashes:
    """Hashes so far, found again by bits that two near ones must share.

    Two hashes that differ in at most d bits agree wholly in one of d + 1 parts.
    """

    def __init__(self, distance: int):
        self._distance = distance
        ends = [round(BITS * part / (distance + 1)) for part in range(distance + 2)]
        self._parts = [(low, (1 << (high - low)) - 1) for low, high in itertools.pairwise(ends)]
        self._found: dict[tuple[int, int], list[int]] = defaultdict(list)

    def seen(self, found: int) -> bool:
        keys = [(low, found >> low & ones) for low, ones in self._parts]
        near = (other for key in keys for other in self._found[key])
        if any((other ^ found).bit_count() <= self._distance for other in near):
            return True
        for key in keys:
            self._found[key].append(found)
        return False
