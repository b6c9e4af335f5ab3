"""The masks of a line of predictions, held against what the problem's record says of its pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from onethinker_jax.data_pipeline.records.true_masks import TrueMasks
from onethinker_jax.evaluate.metrics.answer import Rle
from onethinker_jax.evaluate.metrics.masks import IMAGE
from onethinker_jax.evaluate.results.lines import Line
from onethinker_jax.rewards.metrics import run_lengths
from onethinker_jax.tasks import is_video


def masks_of(line: Line, truth: TrueMasks, data_type: str) -> Mapping[str, Rle] | None:
    """The line's masks by frame name; None where it has none. A frame whose mask is null has an empty one.

    Raises PredictionError: a mask is no COCO RLE, has another size than the true ones, or is of no frame.
    """
    given = line.masks
    if given is None:
        return None
    if not isinstance(given, dict):
        raise line.error(f"masks must be a COCO RLE, or an object of them, is a {type(given).__name__}")
    if not is_video(data_type):
        return {IMAGE: _checked(line, "masks", given, truth)}
    if "counts" in given:
        raise line.error("masks is one RLE, a video's must be an object of frame names and RLEs")
    known = {*truth.listed, *truth.names}
    if unknown := [name for name in given if name not in known]:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise line.error(f"masks: no frame {unknown[0]!r:.60}{more} (the first is {min(known)!r:.60})")
    nothing = {"size": list(truth.size), "counts": [math.prod(truth.size)]}
    return {
        name: nothing if rle is None else _checked(line, f"masks {name!r:.60}", rle, truth)
        for name, rle in given.items()
    }


def _checked(line: Line, where: str, rle: Any, truth: TrueMasks) -> Rle:
    if not isinstance(rle, dict):
        raise line.error(f"{where}: must be a COCO RLE, is a {type(rle).__name__}")
    try:
        run_lengths(rle)
    except ValueError as error:
        raise line.error(f"{where}: {error}") from None
    if list(rle["size"]) != list(truth.size):
        given, true = (f"{height} x {width}" for height, width in (rle["size"], truth.size))
        raise line.error(f"{where}: is {given}, the true mask {true}")
    return rle
