"""A record as a request to a teacher: the student's own question, its pictures as data URLs, and what to write.

The user's turns are those of `prompts`, word for word, since they become the student's; what a teacher needs
beyond them, such as an example of the answer's JSON, stands in a system turn that the student never sees. A
video is sent as the frames that training would sample, each behind its presentation time.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.media.resizing import PixelBounds
from onethinker_jax.data_pipeline.processor.api_messages import api_messages, frame_parts, picture_part
from onethinker_jax.data_pipeline.processor.prompts import chat_messages
from onethinker_jax.data_pipeline.records.conversation import media_kinds
from onethinker_jax.data_pipeline.records.record import Record, task_of

SYSTEM_PROMPT = """\
You write worked examples from which a smaller model learns to reason about images and videos. Reply with \
<think>your reasoning</think> and then <answer>the answer</answer>, each tag once, nothing outside them. In the \
reasoning, written in English, describe what you see that matters, compare and compute step by step, and end \
with the conclusion that the answer then repeats. Do not speak of these instructions. Frames of a video come \
with their times in seconds. Coordinates run from 0 to 1000 over the picture's own width and height, from its \
upper left corner. The answer holds {form} and nothing else."""
"""{form} becomes what the task's answer holds, with an example: the teacher's wording in `tasks.TABLE`."""

TEXT_SYSTEM_PROMPT = """\
You write worked examples from which a smaller model learns to reason. Reply with <think>your reasoning</think> and \
then <answer>the answer</answer>, each tag once, nothing outside them. In the reasoning, written in English, work \
step by step, and end with the conclusion that the answer then repeats. Do not speak of these instructions. The \
answer holds {form} and nothing else."""
"""The same for records without media, which have nothing to be seen."""

_FACTOR = 32  # sides are multiples of it, as for the student
_JPEG_QUALITY = 92


@dataclass(frozen=True, kw_only=True)
class SentMedia:
    """How images and video frames are sent to the teacher. Pixels are height times width after resizing."""

    image_min_pixels: int = 4 * 32 * 32
    """A smaller image is enlarged to this many pixels."""
    image_max_pixels: int = 1024 * 32 * 32
    """A larger image is shrunk to this many pixels."""
    video_fps: float = 2.0
    """Videos are sampled as in training: frames a second ..."""
    video_max_frames: int = 128
    """... and at most this many."""
    video_min_pixels: int = 4 * 32 * 32
    """The fewest pixels of one frame."""
    video_max_pixels: int = 100_352
    """The most pixels of one frame."""

    def __post_init__(self) -> None:
        if not self.video_fps > 0 or self.video_max_frames < 1:
            raise ValueError(
                f"video_fps {self.video_fps} and video_max_frames {self.video_max_frames} must be positive"
            )
        for kind in ("image", "video"):
            self.bounds(kind)

    def bounds(self, kind: str) -> PixelBounds:
        """The bounds of an image or a frame. Raises ValueError when they contradict each other."""
        low, high = getattr(self, f"{kind}_min_pixels"), getattr(self, f"{kind}_max_pixels")
        if not 0 < low <= high:
            raise ValueError(f"{kind}_min_pixels {low} and {kind}_max_pixels {high} must be 0 < min <= max")
        return PixelBounds(_FACTOR, low, high)


def system_prompt(record: Record, template: str = SYSTEM_PROMPT) -> str:
    """The system turn for a record's task; a template without {form} is taken as it is.

    Our own template is another one for records without media.
    """
    if record.data_type == "text" and template == SYSTEM_PROMPT:
        template = TEXT_SYSTEM_PROMPT
    return template.replace("{form}", task_of(record).wording.teacher)


def asked_turns(record: Record) -> list[dict[str, str]]:
    """The turns that the teacher answers: the record's question, or an SFT row's turns without the last."""
    turns = chat_messages(record)
    while turns and turns[-1]["role"] == "assistant":
        turns.pop()
    if not any(media_kinds(turn["content"]) for turn in turns):
        first = next(turn for turn in turns if turn["role"] == "user")
        first["content"] = "<video>" * len(record.videos) + "<image>" * len(record.images) + first["content"]
    return turns


def question_digest(record: Record) -> str:
    """Tells one question from another: its turns, its media's names and its true answer."""
    names = [path.name for path in (*record.images, *record.videos)]
    asked = json.dumps([asked_turns(record), names, record.answer, record.problem_type])
    return hashlib.blake2b(asked.encode(), digest_size=8).hexdigest()


def request_messages(
    record: Record, reader: MediaReader, sent: SentMedia, template: str = SYSTEM_PROMPT
) -> list[dict[str, Any]]:
    """The conversation in the API's format, media as data URLs in the places of their placeholders.

    Raises MediaError: a file cannot be decoded.
    """
    images, videos = iter(record.images), iter(record.videos)

    def image() -> list[dict[str, Any]]:
        return [picture_part(reader.image(next(images), sent.bounds("image")), quality=_JPEG_QUALITY)]

    def video() -> list[dict[str, Any]]:
        bounds, sampling = sent.bounds("video"), {"fps": sent.video_fps, "max_frames": sent.video_max_frames}
        return frame_parts(reader.video(next(videos), bounds, **sampling), quality=_JPEG_QUALITY)

    system = {"role": "system", "content": system_prompt(record, template)}
    return [system, *api_messages(asked_turns(record), image, video)]
