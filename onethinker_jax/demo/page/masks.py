"""The masks of answers, made by the reward service."""

import contextlib
import threading

from onethinker_jax.data_pipeline.drawing.views import Masks
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.demo.session import make_masks
from onethinker_jax.rewards.answers import StructuredAnswer
from onethinker_jax.rewards.client.client import RewardClient
from onethinker_jax.rewards.client.sidecar import SidecarSettings, connect


class MaskMaker:
    """Asks the service of these settings, which is found or started when the first mask is wanted. Thread-safe."""

    def __init__(self, settings: SidecarSettings):
        self._settings, self._lock = settings, threading.Lock()
        self._open_until_the_end = contextlib.ExitStack()
        self._client: RewardClient | None = None

    def __call__(self, record: Record, answer: StructuredAnswer, media: MediaReader) -> Masks:
        """What the answer's box and points prompt. Raises UserError: no service, or media that cannot be read."""
        with self._lock:
            if self._client is None:
                self._client = self._open_until_the_end.enter_context(connect(self._settings))
        return make_masks(self._client, record, answer, media)

    def close(self) -> None:
        """Ends the service, where it was started here."""
        self._open_until_the_end.close()
