"""What the answers in a folder depend on, beside them: whoever goes on with them under other settings is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onethinker_jax.evaluate.answers.journal import JournalError
from onethinker_jax.files import write_whole
from onethinker_jax.text_output import json_text, one_line

NAME = "settings.json"
DIGESTS = {
    "MODEL": "another model",
    "BENCHMARK": "other records",
    "prompt-file": "other prompts",
    "processor": "another processor",
}
"""What it means that a setting differs which stands there as a digest."""
RESTART = "give what it was, another --out, or --restart to begin anew"


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Compares the settings with those of the answers in the folder. Raises JournalError naming what differs first."""
    path = folder / NAME
    if not path.is_file():
        raise JournalError(f"{folder}: has answers without {NAME}, nobody knows of what: {RESTART}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise JournalError(f"{path}: is no JSON object; --restart begins anew")
    now = json.loads(json_text(dict(settings)))
    for name in [*now, *(name for name in found if name not in now)]:
        if found.get(name) != now.get(name):
            if name in DIGESTS:
                raise JournalError(f"{folder}: was begun with {DIGESTS[name]}: {RESTART}")
            old, new = (one_line(str(values.get(name)))[:100] for values in (found, now))
            raise JournalError(f"{folder}: was begun with {name} {old}, not {new}: {RESTART}")


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Writes the settings, for whoever goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / NAME, json_text(dict(settings), indent=2) + "\n")
