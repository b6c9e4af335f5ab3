"""Annotation files that are read at once: a JSON value, a text, its lines. Errors name the file."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.sources.sample import SourceError


def json_value(path: Path, kind: type | tuple[type, ...]) -> Any:
    """The value of a JSON file. Raises SourceError: it cannot be read, is not JSON, or not of that type."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: is not JSON ({error})") from None
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join({dict: "an object", list: "a list"}[one] for one in kinds)
        raise SourceError(f"{path}: must be {names}, is {type(value).__name__}")
    return value


def whole_text(path: Path) -> str:
    """A file's text, without a byte order mark. Raises SourceError: it cannot be read, or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: is not UTF-8 (byte {error.start})") from None
    except ValueError as error:  # a name that holds NUL
        raise SourceError(f"{path}: cannot be read ({error})") from None


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that hold anything, numbered from 1. Raises SourceError as `whole_text`."""
    lines = enumerate(whole_text(path).split("\n"), start=1)
    yield from ((number, line) for number, line in lines if line.strip())
