"""Conversations and media by formula, for the reference run of `make_qwen3_vl_processor` and for the tests.

Needs numpy alone, so that both environments make the same bytes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

IMAGE_PIXELS = 4096, 40000
ANY_TOTAL = 4096, 25165824  # of the released models
ONETHINKER_TRAINING = 4 * 32 * 32, 64 * 32 * 32  # a frame
ONETHINKER_EVALUATION = 128 * 32 * 32, 256 * 32 * 32
SAMPLED_PATCHES = 8  # of each case's images and videos, kept in the fixture


@dataclass(frozen=True)
class Clip:
    """Frames of a video of constant rate: those with these indices."""

    height: int
    width: int
    indices: tuple[int, ...]
    fps: float = 4.0

    def frames(self, seed: int) -> np.ndarray:
        """uint8 [N, H, W, 3]."""
        return np.stack([picture(self.height, self.width, seed + index) for index in self.indices])


@dataclass(frozen=True)
class Case:
    """One conversation. `frame_pixels` are the recipe's bounds of a frame, before those of the whole video."""

    messages: tuple[tuple[str, str], ...]  # (role, content with <image> and <video>)
    images: tuple[tuple[int, int], ...] = ()  # (height, width)
    clips: tuple[Clip, ...] = ()
    image_pixels: tuple[int, int] = IMAGE_PIXELS
    video_total: tuple[int, int] = ANY_TOTAL
    frame_pixels: tuple[int, int] | None = None

    @property
    def asks(self) -> bool:
        """Whether it ends where the model starts to answer."""
        return self.messages[-1][0] == "user"

    def pictures(self) -> list[np.ndarray]:
        """Its images, uint8 [H, W, 3]."""
        return [picture(*size, seed) for seed, size in enumerate(self.images)]

    def films(self) -> list[np.ndarray]:
        """The frames of its videos."""
        return [clip.frames(100 * seed) for seed, clip in enumerate(self.clips, 1)]

    def typed_messages(self) -> list[dict[str, Any]]:
        """The messages as transformers has them: content in typed parts."""
        typed = []
        for role, content in self.messages:
            parts: list[dict[str, str]] = []
            for piece in content.replace("<image>", "\0I\0").replace("<video>", "\0V\0").split("\0"):
                if piece in ("I", "V"):
                    parts.append({"type": "image" if piece == "I" else "video"})
                elif piece:
                    parts.append({"type": "text", "text": piece})
            typed.append({"role": role, "content": parts})
        return typed


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """uint8 [H, W, 3]: ramps with noise, and blocks with hard edges; integers only."""
    y, x = np.mgrid[:height, :width].astype(np.uint32)
    channels = []
    for channel in range(3):
        ramp = (x * (channel + 1) + y * 2 + 17 * seed) % 256
        noise = ((x * 73856093) ^ (y * 19349663) ^ np.uint32(83492791 * (seed + 7 * channel) % 2**32)) >> 13
        value = (ramp * 3 + (noise & 63) * 4) // 4
        block = (x // 11 + y // 7 + seed + channel) % 5
        value = np.where(block == 0, 255, np.where(block == 1, 0, value))
        channels.append(np.minimum(value, 255))
    return np.stack(channels, -1).astype(np.uint8)


def ask(content: str) -> tuple[tuple[str, str], ...]:
    """One question."""
    return (("user", content),)


CASES = {
    "text": Case(
        (
            ("system", "Answer briefly."),
            ("user", "Zwölf 12 é 中\n\n\tit's  two?"),
            ("assistant", "<think>b</think>\n<answer>c</answer>"),
        )
    ),
    "image": Case(ask("<image>What?"), ((64, 96),)),
    "image, resized": Case(ask("What is <image> here?"), ((333, 211),)),
    "image, one pixel": Case(ask("<image>"), ((1, 1),)),
    "image, a line": Case(ask("<image>?"), ((2, 400),)),  # 200 times as wide as high, as far as it goes
    "image, long beyond its bound": Case(ask("<image>?"), ((30, 5990),)),
    "image, huge": Case(ask("<image>?"), ((1500, 2100),)),
    "image, one size allowed": Case(ask("<image>?"), ((50, 70),), image_pixels=(9216, 9216)),
    "images": Case(
        (
            ("user", "One <image> and\n<image>: differ?"),
            ("assistant", "<think>yes</think>\n<answer>1</answer>"),
            ("user", "<image> as well?<image>"),
        ),
        ((64, 64), (100, 37), (20, 20), (181, 290)),
    ),
    "video": Case(ask("<video>When?"), clips=(Clip(64, 96, (0, 2, 4, 6)),)),
    "video, odd": Case(ask("<video>When?"), clips=(Clip(100, 75, (0, 3, 7, 31, 60), 29.97),)),
    "video, three frames": Case(
        ask("<video>When?"), clips=(Clip(90, 120, (0, 1, 2)),), video_total=(4096, 40000)
    ),
    "video, too small": Case(ask("<video>?"), clips=(Clip(32, 40, (0, 5)),), video_total=(65536, 131072)),
    "video, too large": Case(
        ask("<video>?"), clips=(Clip(200, 333, tuple(range(0, 50, 2)), 23.976),), video_total=(4096, 400000)
    ),
    "videos and images": Case(
        (
            ("user", "<video>one<image>two<video>"),
            ("assistant", "<answer>3</answer>"),
            ("user", "<image>four"),
            ("assistant", "<answer>5</answer>"),
        ),
        ((70, 90), (64, 64)),
        (Clip(64, 96, (0, 8, 16), 8.0), Clip(130, 66, (1, 3), 2.0)),
    ),
    "OneThinker, training": Case(
        ask("<video>?"),
        clips=(Clip(360, 480, (0, 12, 25, 37, 50, 62), 25.0),),
        frame_pixels=ONETHINKER_TRAINING,
    ),
    "OneThinker, small film": Case(
        ask("<video>?"), clips=(Clip(48, 40, (0, 1, 2, 3)),), frame_pixels=ONETHINKER_TRAINING
    ),
    "OneThinker, evaluation": Case(
        ask("<video>?"), clips=(Clip(240, 320, (0, 15), 30.0),), frame_pixels=ONETHINKER_EVALUATION
    ),
    "OneThinker, both bounds": Case(
        ask("<video>?"),
        clips=(Clip(240, 320, tuple(range(7)), 2.0),),
        frame_pixels=ONETHINKER_TRAINING,
        video_total=(4096, 200000),
    ),
}
