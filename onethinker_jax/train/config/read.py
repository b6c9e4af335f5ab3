"""The settings of a run out of its `config.json`."""

import dataclasses
import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.run import TrainConfig

T = TypeVar("T")


def read_config(file: Path) -> TrainConfig:
    """The settings that a run's `config.json` holds; one that it does not name has its default.

    Raises SettingError naming the file, and a setting that this version does not know.
    """
    try:
        return _made(TrainConfig, json.loads(file.read_text()), "")
    except (OSError, ValueError) as error:
        raise SettingError(f"{file}: {error}") from error


def _made(kind: type[T], values: Mapping[str, Any], prefix: str) -> T:
    types_of = get_type_hints(kind)
    fields = {field.name for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise SettingError(f"a setting {prefix}{name} that this version does not know")
    return kind(**{name: _value(types_of[name], value, f"{prefix}{name}.") for name, value in values.items()})


def _value(kind: Any, value: Any, prefix: str) -> Any:
    """A value of JSON as the type of its field has it: paths, tuples and sections."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (kind,) = [one for one in arguments if one is not types.NoneType]
        return _value(kind, value, prefix)
    if dataclasses.is_dataclass(kind):
        return _made(kind, value, prefix)  # type: ignore[arg-type]
    if origin is tuple:
        return tuple(value)
    return Path(value) if kind is Path else value
