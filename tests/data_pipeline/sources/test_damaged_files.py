"""Whatever stands in an annotation file, a reader gives samples or one line that names a file: never a traceback."""

import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest

from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.records.json_rows import RecordError
from onethinker_jax.data_pipeline.sources.sample import Source
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from tests.data_pipeline.sources import making_grounding as making

JUNK = [
    None,
    "",
    "x",
    "7",
    -1,
    0,
    2.5,
    1e300,
    1e14,
    1e-9,
    True,
    [],
    {},
    [1],
    {"a": 1},
    [None] * 4,
    "<image>",
    10**30,
]
CHANGES = 120


def changed(value: Any, rng: random.Random) -> Any:
    """The value with one part of it, at any depth, replaced by junk, or left out."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = rng.choice(list(keys))
        copy = dict(value) if isinstance(value, dict) else list(value)
        if rng.random() < 0.15:
            del copy[key]
        else:
            copy[key] = changed(value[key], rng)
        return copy
    return rng.choice(JUNK)


def changed_text(text: str, rng: random.Random) -> str:
    """The text with one piece of it replaced, doubled or left out."""
    begin = rng.randrange(len(text))
    end = min(len(text), begin + rng.randint(1, 8))
    return (
        text[:begin]
        + rng.choice(["", ",", "\n", "x", "-1", "#", "##", text[begin:end] * 2, "\0"])
        + text[end:]
    )


def change(file: Path, content: bytes, rng: random.Random) -> None:
    if file.suffix == ".json":
        file.write_text(json.dumps(changed(json.loads(content), rng)))
    elif file.suffix == ".p":
        file.write_bytes(pickle.dumps(changed(pickle.loads(content), rng), protocol=2))
    else:
        file.write_text(changed_text(content.decode(), rng))


@pytest.mark.parametrize("layout", making.WRITERS)
def test_any_change_is_read_or_said_in_one_line(layout: str, tmp_path: Path) -> None:
    making.write_coco(tmp_path / "data" / "train2014")
    path = making.WRITERS[layout](tmp_path / "data")
    endings = (".json", ".p", ".txt", ".label", ".ini")
    files = sorted(file for file in (tmp_path / "data").rglob("*") if file.suffix in endings)
    contents = {file: file.read_bytes() for file in files}
    rng, errors = random.Random(layout), 0
    for _ in range(CHANGES):
        file = rng.choice(files)
        change(file, contents[file], rng)
        try:
            list(LAYOUTS[layout](Source(path, bad=BadRecords(rng.choice(["raise", "skip"])))))
        except RecordError as error:
            errors += 1
            message = str(error)
        else:
            message = f"{tmp_path}"
        assert "\n" not in message and str(tmp_path) in message
        file.write_bytes(contents[file])
    assert errors > CHANGES / 10
    assert list(LAYOUTS[layout](Source(path)))
