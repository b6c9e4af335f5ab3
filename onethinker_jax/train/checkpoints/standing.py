"""The checkpoints of a run that stands in a folder, found by what the folder says of itself."""

import json
from pathlib import Path

from onethinker_jax.train.checkpoints.checkpoints import CheckpointError, Checkpoints
from onethinker_jax.train.config.checkpoints import CheckpointSettings, KeepSettings
from onethinker_jax.train.run_folder import RunFolder


def checkpoints_of(run: Path) -> tuple[Checkpoints, CheckpointSettings]:
    """The checkpoints of the run in that folder, to be read, and how it keeps them.

    Raises CheckpointError where there are none, or its settings cannot be read.
    """
    folder, settings = RunFolder(run), CheckpointSettings()
    if folder.settings.is_file():
        try:
            saved = json.loads(folder.settings.read_text(encoding="utf-8")).get("checkpoints", {})
            settings = CheckpointSettings(**{**saved, "keep": KeepSettings(**saved.get("keep", {}))})
        except (ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{folder.settings}: cannot be read ({error})") from error
    checkpoints = Checkpoints(settings.directory or folder.checkpoints)
    if checkpoints.missing():
        raise CheckpointError(f"{run}: holds no checkpoints; is this the folder of a run?")
    return checkpoints, settings
