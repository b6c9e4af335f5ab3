"""The command that looks at a failed update, on the folder of a small run that no command made."""

import json
from pathlib import Path

import pytest

from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.train import replay
from onethinker_jax.train.claim import claim_directory
from onethinker_jax.train.config.run import TrainConfig


def replayed(
    config: TrainConfig, sizes: Qwen3VLConfig, capsys: pytest.CaptureFixture[str], folder: Path | None = None
) -> str:
    """What the command prints of the run of `config`, or of a `folder` in it, once settings and base are there too."""
    claim_directory(config, [])
    config.folder.base.mkdir(exist_ok=True)
    (config.folder.base / "config.json").write_text(json.dumps(sizes.to_hf()))
    capsys.readouterr()
    assert replay.main([str(folder or config.directory)]) == 0
    return capsys.readouterr().out
