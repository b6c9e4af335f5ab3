"""The true masks of a segmentation row, each with the time of its frame.

An image has one COCO RLE. A video has RLEs by frame name and `fps`. Where the row lists its `frames`, a frame's number
is its position in that list; only if the names' own numbers leave gaps and `fps` is the video's own rate, they count
instead. Without a list the number in a frame's name counts, from 0, or from 1 where the lowest is 1. A frame is shown
at its number divided by `fps` (the video's exact rate where `fps` only rounds it: 29.97 called 30). Frames
without a mask, or whose mask is null, are not compared.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onethinker_jax.answer_forms import finite_number, finite_numbers
from onethinker_jax.data_pipeline.media.picture_header import PictureHeader
from onethinker_jax.data_pipeline.records.json_rows import RecordError
from onethinker_jax.rewards.metrics import run_lengths

_NUMBER = re.compile(r"([0-9]{1,9})(?:\.[A-Za-z]\w*)?$")  # "00005", "5.jpg", "img_0005.png"
_SAME_RATE = 0.005  # 29.97 frames a second are called 30


@dataclass(frozen=True, eq=False)
class TrueMasks:
    """N masks of one object, in the order of their frames."""

    names: tuple[str, ...]  # of the frames; ("",) of an image
    frames: tuple[int, ...]  # their numbers from the video's first frame, increasing; (0,) of an image
    rles: tuple[dict[str, Any], ...]  # COCO's
    size: tuple[int, int]  # (height, width), of all masks
    fps: float | None = None  # of the numbers; None of an image
    video_fps: float | None = None  # the video's own rate, where it says one
    listed: tuple[str, ...] = ()  # the names of all frames, with and without a mask, where the row lists them

    @property
    def times(self) -> list[float]:
        """When each frame is shown, in seconds; 0 of an image."""
        return [number / (self.fps or 1.0) for number in self.frames]

    @property
    def whole(self) -> bool:
        """Whether there is a mask of every frame of the video up to the last one that has a mask."""
        return self.frames[-1] == len(self.frames) - 1 and self._frame_seconds == 1 / (self.fps or 1.0)

    def moments(self) -> tuple[float, ...]:
        """A time at which each frame is on screen, whatever its time stamp was rounded to."""
        return tuple(time + 0.25 * self._frame_seconds for time in self.times)

    def frame_names(self) -> dict[int, str]:
        """Number -> name of every frame that the row lists; of those that have a mask where it lists none."""
        true = dict(zip(self.frames, self.names, strict=True))
        if not self.listed:
            return true
        positions = {name: position for position, name in enumerate(self.listed)}
        if all(positions.get(name) == number for number, name in true.items()):
            return dict(enumerate(self.listed))
        first = _written_number(self.listed[0]) or 0
        return {(_written_number(name) or 0) - first: name for name in self.listed} | true

    def at(self, times: Sequence[float]) -> list[dict[str, Any] | None]:
        """The mask of each picture of the video, given its time in seconds; None where its frame has none.

        At least one picture gets one: that which is nearest to a mask.
        """
        if self.fps is None:
            return [self.rles[0]] * len(times)
        by_number = dict(zip(self.frames, self.rles, strict=True))
        numbers = [round(time * self.fps) for time in times]
        found = [
            by_number.get(number) if abs(number / self.fps - time) <= 0.6 * self._frame_seconds else None
            for number, time in zip(numbers, times, strict=True)
        ]
        if not any(found):
            pairs = [(abs(t - m), i, j) for i, t in enumerate(times) for j, m in enumerate(self.times)]
            _, picture, mask = min(pairs)
            found[picture] = self.rles[mask]
        return found

    @property
    def _frame_seconds(self) -> float:
        """How long a frame of the video is shown."""
        return 1 / max(self.fps or 1.0, self.video_fps or 0.0)


def parse_masks(row: Mapping[str, Any], header: PictureHeader | None, *, video: bool) -> TrueMasks | None:
    """The masks of an evaluation row; None if it has none. `header` is of the picture that they lie on.

    Raises RecordError: they are malformed, or do not fit the picture; or a video's frames have no time.
    """
    output = row.get("segmentation_output")
    if output is None:
        return None
    rle = output.get("segmentation_rle") if isinstance(output, dict) else None
    if not isinstance(rle, dict) or not rle:
        raise RecordError("segmentation_output: must hold segmentation_rle, an object that is not empty")
    single = "counts" in rle
    masks = {"": rle} if single else {name: mask for name, mask in rle.items() if mask is not None}
    if not masks:
        raise RecordError("segmentation_output: segmentation_rle has no mask, null for every frame")
    for name, mask in masks.items():
        _check_mask(f"segmentation_output: mask {name!r}", mask)
    frames, resolution, fps = _frame_list(row, output), _resolution(row), rate(row)
    named = frames or ([] if single or len(masks) == len(rle) else list(rle))
    if single and video:
        raise RecordError("segmentation_output: one mask for a video, which needs them by frame name")
    if not single and not video:
        raise RecordError("segmentation_output: masks by frame name for an image, which needs one")
    if video and fps is None:
        raise RecordError("fps: is missing, which the masks of a video need to have times")
    own_rate = header.fps if header is not None else None
    is_own = fps is not None and own_rate is not None and abs(own_rate / fps - 1) <= _SAME_RATE
    first = next(iter(masks.values()))["size"]
    for name, mask in masks.items():
        where = f"segmentation_output: mask {name!r}" if name else "segmentation_output"
        _check_size(where, mask["size"], resolution, header, first)
        try:
            run_lengths(mask)
        except ValueError as error:
            raise RecordError(f"{where}: {error}") from None
    numbers = [0] if fps is None or not video else _frame_numbers(list(masks), frames, is_own)
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    names, rles = list(masks), list(masks.values())
    return TrueMasks(
        tuple(names[i] for i in order),
        tuple(numbers[i] for i in order),
        tuple({"size": rles[i]["size"], "counts": rles[i]["counts"]} for i in order),
        (first[0], first[1]),
        (own_rate if is_own else fps) if video else None,
        own_rate,
        _named_as_masks(named, masks) if video else (),
    )


def rate(row: Mapping[str, Any]) -> float | None:
    """The frames a second that a row gives; None where it gives none. Raises RecordError: no positive number."""
    fps = row.get("fps")
    if fps is not None and (finite_number(fps) is None or fps <= 0):
        raise RecordError(f"fps: must be a positive number, is {fps!r:.60}")
    return fps


def _resolution(row: Mapping[str, Any]) -> list | None:
    """[height, width]."""
    found = row.get("resolution")
    if found is None:
        return None
    sides: list = [found.get(k) for k in ("height", "width")] if isinstance(found, dict) else []
    if finite_numbers(sides, 2) is None or min(sides) <= 0:
        raise RecordError(f"resolution: must be {{width, height}} in pixels, is {found!r:.60}")
    return sides


def _frame_list(row: Mapping[str, Any], output: Mapping[str, Any]) -> list[str] | None:
    frames = output.get("frames", row.get("frames"))
    if frames is None:
        return None
    if not isinstance(frames, list) or not frames or not all(isinstance(name, str) for name in frames):
        raise RecordError("frames: must be a list of frame names")
    if len(set(frames)) < len(frames):
        twice = next(name for position, name in enumerate(frames) if name in frames[:position])
        raise RecordError(f"frames: names {twice!r} twice")
    return frames


def _check_mask(name: str, mask: Any) -> None:
    if not isinstance(mask, dict) or finite_numbers(mask.get("size"), 2) is None or "counts" not in mask:
        raise RecordError(f"{name} must hold size and counts")
    height, width = mask["size"]
    if not isinstance(height, int) or not isinstance(width, int) or height < 1 or width < 1:
        raise RecordError(f"{name}: size {mask['size']} must be whole pixels")
    counts = mask["counts"]
    if isinstance(counts, list):
        if not all(isinstance(run, int) and run >= 0 for run in counts) or sum(counts) != height * width:
            raise RecordError(f"{name}: its runs must be whole numbers that add up to {height} x {width}")
    elif not isinstance(counts, str) or not counts:
        raise RecordError(f"{name}: counts must be a text or a list of runs")


def _check_size(
    where: str, size: list, resolution: list | None, header: PictureHeader | None, first: list
) -> None:
    wanted = {"the first mask": first}
    if resolution is not None:
        wanted["resolution"] = resolution
    if header is not None:
        wanted["the picture"] = [header.height, header.width]
    for what, other in wanted.items():
        if size != other:
            has, wants = (f"{height:g} x {width:g}" for height, width in (size, other))
            raise RecordError(f"{where}: is {has}, {what} {wants}")


def _frame_numbers(names: list[str], frames: list[str] | None, is_own_rate: bool) -> list[int]:
    """The number of each named frame, counted from the video's first."""
    if frames is None:
        return _own_numbers(names)
    written = [_written_number(name) for name in frames]
    known: dict[int | None, int] = {n: position for position, n in enumerate(written) if n is not None}
    if len(known) < len(frames):
        known = {}  # names without numbers of their own
    positions = {name: position for position, name in enumerate(frames)}
    found = []
    for name in names:
        position = positions.get(name, known.get(_written_number(name)))
        if position is None:
            raise RecordError(f"segmentation_output: mask {name!r}: is of no frame in frames")
        found.append(position)
    if len(set(found)) < len(found):
        raise RecordError("segmentation_output: two masks of one frame")
    steps = [b - a for a, b in itertools.pairwise(written) if a is not None and b is not None]
    if (
        known and is_own_rate and min(steps, default=0) >= 1 and max(steps) > 1
    ):  # every fifth of the video's frames
        start = written[0] or 0
        return [(written[position] or 0) - start for position in found]
    return found


def _named_as_masks(frames: list[str], masks: Mapping[str, Any]) -> tuple[str, ...]:
    """The frames of a row's list, each by the name of its mask where it has one: that may lack the ending."""
    written = [_written_number(name) for name in frames]
    alone = None not in written and len(set(written)) == len(frames)
    by_number = {_written_number(name): name for name in masks} if alone else {}
    return tuple(
        name if name in masks else by_number.get(number, name)
        for name, number in zip(frames, written, strict=True)
    )


def _own_numbers(names: list[str]) -> list[int]:
    found: dict[int, str] = {}
    for name in names:
        number = _written_number(name)
        if number is None:
            raise RecordError(
                f"segmentation_output: mask {name!r}: its name has no frame number, and there is no list frames"
            )
        if number in found:
            raise RecordError(f"segmentation_output: masks {found[number]!r} and {name!r} are of one frame")
        found[number] = name
    start = 1 if min(found) == 1 else 0
    return [number - start for number in found]


def _written_number(name: str) -> int | None:
    found = _NUMBER.search(name)
    return int(found[1]) if found else None
