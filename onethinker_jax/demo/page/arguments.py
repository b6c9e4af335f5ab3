"""The flags of the page. Imports no JAX: `--help` is instant."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from onethinker_jax.model_arguments import ModelArguments
from onethinker_jax.rewards.client.sidecar import SidecarSettings
from onethinker_jax.serve.arguments import Arguments


@dataclass(frozen=True, kw_only=True)
class PageArguments(Arguments):
    """MODEL --serve: a page where one drops an image or a video in, asks, and watches a Hugging Face directory think.

    It listens on this machine alone unless flags say otherwise.
    """

    port: int = 7860
    """Port to listen on; 0: any free one, which the first line names."""
    prompt_slots: int = 4
    """Answers decoded together; each has a place for a prompt and an answer of the greatest length in the KV cache."""
    drain_seconds: float = 2.0
    """Seconds that answers under way have to end after SIGTERM or Ctrl-C."""
    beside: Path | None = None
    """Hugging Face directory of a second model, whose answers stand beside the first one's."""
    examples: Path | None = None
    """Record file whose questions are offered; by default the held-out records of the run that MODEL is of."""
    media_root: Path | None = None
    """Folder that the examples' media paths are relative to; by default the file's own."""
    prompt_file: Path | None = None
    """JSON or TOML file of prompt templates by task; by default the directory's prompts.json, else the project's."""
    sidecar: SidecarSettings = field(default_factory=SidecarSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fetch or self.media_folder is not None:
            raise ValueError(
                "fetch and media_folder are of the API: the page takes files that are dropped on it"
            )

    @property
    def name(self) -> str:
        """The model's name on the page: of `runs/NAME/model` the last two parts, since all runs have such a folder."""
        path = self.model.resolve()
        own = f"{path.parent.name}/{path.name}" if path.name == "model" else path.name
        return self.served_model_name or own

    def of_model(self) -> ModelArguments:
        """What of these the model and its processor are read with."""
        return replace(super().of_model(), prompt_file=self.prompt_file)

    def models(self) -> list[Self]:
        """The same of each model."""
        if self.beside is None:
            return [self]
        return [self, replace(self, model=self.beside, served_model_name=None, beside=None)]
