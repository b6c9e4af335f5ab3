"""The caller's side of `reward.proto`: texts, frames and prompts to messages, results to scores and masks."""

from __future__ import annotations

import hashlib
import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onethinker_jax.errors import SkippableError
from onethinker_jax.rewards.backends.types import TextItem
from onethinker_jax.rewards.proto import reward_pb2

MAX_TEXT_CHARS = 65_536
"""Longer texts are cut before they are sent: no back end reads as much."""

CHUNK_BYTES = 2**19
CALL_BYTES = 900_000  # a server takes messages of a MiB at least; a single item has at most 786,432
CALL_ITEMS = 64

Points = Sequence[Sequence[float]]


class RewardRequestError(SkippableError, ValueError):
    """The service refused a request as malformed or too large; sending it again would not help."""


@dataclass(frozen=True)
class MaskItem:
    """Frames uint8 [N, H, W, 3] (N = 1: an image), and box and points in 0–1000 for frame `key_frame`."""

    frames: np.ndarray
    box: Sequence[float]
    positive_points: Points = ()
    negative_points: Points = ()
    key_frame: int = 0


def text_requests(items: Sequence[TextItem]) -> list[Any]:
    """ScoreTextRequests of at most `CALL_ITEMS` items and about `CALL_BYTES` bytes, in order."""
    requests, size = [], 0
    for item in items:
        message = reward_pb2.TextItem(
            question=_sendable(item.question),
            reference=_sendable(item.reference),
            answer=_sendable(item.answer),
        )
        size += message.ByteSize()
        if not requests or size > CALL_BYTES or len(requests[-1].items) == CALL_ITEMS:
            requests.append(reward_pb2.ScoreTextRequest())
            size = message.ByteSize()
        requests[-1].items.append(message)
    return requests


def _sendable(text: str) -> str:
    """What a protobuf string can hold: a lone surrogate, which UTF-8 cannot, becomes its escape."""
    return text[:MAX_TEXT_CHARS].encode("utf-8", "backslashreplace").decode("utf-8")


class SegmentCall:
    """One call about one medium: its items, and the pixels for a server that lacks them.

    Raises RewardRequestError naming what is malformed.
    """

    def __init__(self, items: Sequence[MaskItem]) -> None:
        self.count = len(items)
        frames = items[0].frames
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise RewardRequestError(
                f"frames are uint8 [N, H, W, 3], not {frames.dtype} {list(frames.shape)}"
            )
        self._pixels = np.ascontiguousarray(frames).data.cast("B")
        self._sha256 = hashlib.sha256(self._pixels).digest()
        count, height, width = frames.shape[:3]
        message = reward_pb2.Frames(count=count, height=height, width=width, sha256=self._sha256)
        self._items = reward_pb2.SegmentItems(
            items=[
                reward_pb2.SegmentItem(frames=message, key_frame=item.key_frame, prompt=_prompt(item))
                for item in items
            ]
        )

    def run(self, method: Callable[[Iterator[Any]], Iterator[Any]]) -> list[Any]:
        """Sends the items, uploads the pixels if the server asks for them, and returns its MaskResults."""
        missing: queue.SimpleQueue[bool] = queue.SimpleQueue()
        results = []

        def requests() -> Iterator[Any]:
            yield reward_pb2.SegmentRequest(items=self._items)
            while missing.get():
                for start in range(0, len(self._pixels), CHUNK_BYTES):
                    data = bytes(self._pixels[start : start + CHUNK_BYTES])
                    yield reward_pb2.SegmentRequest(
                        chunk=reward_pb2.MediaChunk(sha256=self._sha256, data=data)
                    )

        try:
            for response in method(requests()):
                if response.WhichOneof("part") == "missing":
                    missing.put(True)
                else:
                    results.append(response.result)
        finally:
            missing.put(False)
        return results


def _prompt(item: MaskItem) -> Any:
    box, count = item.box, len(item.frames)
    if not 0 <= item.key_frame < count:
        raise RewardRequestError(f"key frame {item.key_frame} of a video of {count} frames")
    if len(box) != 4 or any(len(point) != 2 for point in (*item.positive_points, *item.negative_points)):
        raise RewardRequestError(f"a box has four numbers and a point two: {box!r:.100}")
    return reward_pb2.Prompt(
        box=reward_pb2.Box(x1=box[0], y1=box[1], x2=box[2], y2=box[3]),
        positive_points=[reward_pb2.Point(x=x, y=y) for x, y in item.positive_points],
        negative_points=[reward_pb2.Point(x=x, y=y) for x, y in item.negative_points],
    )


def masks_from(result: Any) -> np.ndarray:
    """A MaskResult's masks as bool [N, H, W]."""
    masks = result.masks
    shape = (masks.count, masks.height, masks.width)
    bits = np.unpackbits(np.frombuffer(masks.bits, dtype=np.uint8), count=int(np.prod(shape)))
    return bits.astype(bool).reshape(shape)
