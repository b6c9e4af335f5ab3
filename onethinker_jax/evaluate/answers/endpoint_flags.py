"""The flags of a model that is behind a URL."""

from dataclasses import dataclass
from typing import Literal

from onethinker_jax.endpoint.settings import RequestSettings

VideoForm = Literal["video_url", "frames"]


@dataclass(frozen=True, kw_only=True)
class EndpointFlags(RequestSettings):
    """How a model behind the URL of an OpenAI-compatible API is asked."""

    model: str = ""
    """Its name at the endpoint; by default that of the only model which the endpoint lists."""
    image_format: Literal["png", "jpeg"] = "png"
    """What images are sent as: png loses nothing, jpeg (quality 95) is smaller. Frames of videos are always jpeg."""
    video: VideoForm = "video_url"
    """How a video's sampled frames are sent: "video_url", one part of JPEG frames with their times, which vLLM takes
    (since April 2026); "frames", an image each behind its time, which every server takes."""
