"""A conversation in the format of OpenAI's API: media as data URLs in the places of their placeholders.

A video goes as the frames that were sampled of it: as pictures with their times between them, which every server takes,
or as one `video_url` of JPEG frames, which vLLM gives a Qwen3-VL as the video that it was trained on.
"""

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image

from onethinker_jax.data_pipeline.media.decoding import Video
from onethinker_jax.data_pipeline.records.conversation import split_media

PictureFormat = Literal["png", "jpeg"]

TICKS = 1000
"""The frame rate at which a video of frames is numbered for vLLM: a frame's number is its time in milliseconds."""


def api_messages(
    turns: Sequence[Mapping[str, str]],
    image: Callable[[], list[dict[str, Any]]],
    video: Callable[[], list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """The turns with the parts of their media: `image` and `video` give those of the next one."""

    def parts(content: str) -> Iterator[dict[str, Any]]:
        for piece in split_media(content):
            if piece.kind == "image":
                yield from image()
            elif piece.kind == "video":
                yield from video()
            elif piece.text.strip():  # some servers refuse a blank part
                yield {"type": "text", "text": piece.text}

    messages: list[dict[str, Any]] = []
    for turn in turns:
        content = list(parts(turn["content"]))
        plain = len(content) == 1 and content[0]["type"] == "text"
        messages.append({"role": turn["role"], "content": content[0]["text"] if plain else content})
    return messages


def picture_part(pixels: np.ndarray, format: PictureFormat = "jpeg", *, quality: int) -> dict[str, Any]:
    """A picture, uint8 [H, W, 3]; JPEG of this `quality` without loss of colour resolution, or PNG without any."""
    encoded = _encoded(pixels, format, quality)
    return {"type": "image_url", "image_url": {"url": f"data:image/{format};base64,{encoded}"}}


def frame_parts(video: Video, *, quality: int) -> list[dict[str, Any]]:
    """A video as pictures, each behind its presentation time."""
    frames = "1 frame" if len(video.frames) == 1 else f"{len(video.frames)} frames"
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": f"A video of {video.duration:.1f} seconds, {frames}:"}
    ]
    for time, frame in zip(video.timestamps, video.frames, strict=True):
        parts += [{"type": "text", "text": f"<{time:.1f} seconds>"}, picture_part(frame, quality=quality)]
    return parts


def video_part(video: Video, *, quality: int) -> dict[str, Any]:
    """A video as one part of JPEG frames; their times go beside the messages, as `video_times` has them."""
    frames = ",".join(_encoded(frame, "jpeg", quality) for frame in video.frames)
    return {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{frames}"}}


def video_times(video: Video) -> dict[str, Any]:
    """What vLLM is told of the frames of a `video_part` (`media_io_kwargs`, "video"): all of them, at these times."""
    numbers = [round(time * TICKS) for time in video.timestamps.tolist()]
    return {
        "num_frames": -1,
        "fps": TICKS,
        "frames_indices": numbers,
        "total_num_frames": max(round(video.duration * TICKS), numbers[-1] + 1),
        "duration": video.duration,
        "do_sample_frames": False,
    }


def _encoded(pixels: np.ndarray, format: PictureFormat, quality: int) -> str:
    buffer = io.BytesIO()
    settings = {"quality": quality, "subsampling": 0} if format == "jpeg" else {}
    Image.fromarray(pixels).save(buffer, format, **settings)
    return base64.b64encode(buffer.getvalue()).decode()
