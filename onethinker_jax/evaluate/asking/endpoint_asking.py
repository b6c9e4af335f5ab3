"""A benchmark's questions put to a model behind a URL."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from onethinker_jax.command_line import UsageError
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.processor.prompts import Prompts
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.evaluate.answers.endpoint_model import EndpointModel
from onethinker_jax.evaluate.answers.failures import Tries
from onethinker_jax.evaluate.arguments import Arguments
from onethinker_jax.processes import Processes


class EndpointAsking:
    """Gives the `Answerer` of a URL, with the flags that count for a benchmark."""

    def __init__(
        self, url: str, arguments: Arguments, prompts: Prompts, media: MediaReader, processes: Processes
    ):
        """Raises UsageError: a flag that cannot work. EndpointError: nobody says which model is served."""
        if processes.count > 1:
            raise UsageError(f"{url} is asked by one process: leave out --hosts")
        self._arguments, self.prompts = arguments, prompts
        self.tries = Tries(arguments.tries - 1, end=arguments.on_bad_record == "raise")
        self._model = EndpointModel(url, arguments, arguments.endpoint, prompts, self.tries, media)
        self.starts = f"asking {self._model.endpoint.model} at {url}"

    @property
    def media(self) -> MediaReader:
        """Reads the media of questions."""
        return self._model.media

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """What the answers depend on, by the names of the flags."""
        own = ("samples", "limit")
        return {**self._model.settings, **{name: getattr(self._arguments, name) for name in own}}

    def answerer(self, all_records: Sequence[Record], folder: Path) -> EndpointModel:
        """The model, whatever the records are."""
        return self._model
