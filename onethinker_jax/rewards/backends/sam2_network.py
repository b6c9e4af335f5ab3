"""What a SAM2 network is to the back end: `sam2_hf.py` runs one by transformers, `sam2_meta.py` by Meta's package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Features(NamedTuple):
    """What the encoder makes of a frame: maps [1, channels, height, width] from fine to coarse.

    `position` is where the coarsest map's cells are, [height · width, 1, channels].
    """

    maps: tuple[Tensor, ...]
    position: Tensor

    @classmethod
    def of_frames(
        cls, flat: Sequence[Tensor], sizes: Sequence[tuple[int, int]], position: Tensor
    ) -> list[Features]:
        """The features from both networks' vision features: maps of B frames, each [height · width, B, channels]."""
        maps = [level.permute(1, 2, 0).unflatten(2, size) for level, size in zip(flat, sizes, strict=True)]
        one = position[:, :1].clone()  # it is the same for all frames
        return [cls(tuple(level[n : n + 1] for level in maps), one) for n in range(position.shape[1])]

    @property
    def flat(self) -> list[Tensor]:
        """The maps as [height · width, 1, channels]."""
        return [level.flatten(2).permute(2, 0, 1) for level in self.maps]


class Network(Protocol):
    """A SAM2 network. Points are float32 [B, P, 2] in pixels of a square of `image_size` S, labels int32 [B, P].

    Labels: 1 inside, 0 outside, 2 and 3 the box's corners. Logits are [B, S / 4, S / 4].
    """

    image_size: int

    def encode(self, frames: Tensor) -> list[Features]:
        """float32 [B, 3, S, S], in one pass."""
        ...

    def image_logits(self, features: Sequence[Features], points: Tensor, labels: Tensor) -> Tensor:
        """The mask logits of B prompts, the b-th for the b-th image; an image may come again."""
        ...

    def video_logits(
        self,
        features: Iterable[tuple[int, Features]],
        key_frame: int,
        count: int,
        points: Tensor,
        labels: Tensor,
    ) -> Iterator[tuple[int, Tensor]]:
        """Each frame's index and logits, for one prompt (B = 1) on the key frame of a video of `count` frames.

        The frames come with their indices: the key frame, those after it, then those before it, backward.
        """
        ...


def stacked_maps(features: Sequence[Features]) -> list[Tensor]:
    """The maps of B frames, each [B, channels, height, width]."""
    return [torch.cat(maps) for maps in zip(*(one.maps for one in features), strict=True)]
