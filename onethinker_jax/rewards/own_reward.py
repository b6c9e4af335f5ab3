"""A reward of one's own: a function that is named by a setting and scores in place of the tasks' formulas.

    def reward(record: dict, response: str) -> float | Score

`record` holds `problem_id`, `problem`, `problem_type`, `data_type`, `options` and `answer` (the true one, without
tags) as the record's file has them, `images` and `videos` as lists of paths, `data_source` and `origin`, which says
where the record stands. `response` is all that the model wrote. A float in [0, 1] is reward and accuracy; a `Score`
tells them apart, its `overall` at most 1 and its parts in [0, 1].
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from onethinker_jax.errors import UserError
from onethinker_jax.rewards.answers import extract_answer, has_strict_format
from onethinker_jax.rewards.score import Score

RewardFunction = Callable[[dict[str, Any], str], object]
"""What it gives is checked by `as_score`."""


class RewardFunctionError(UserError, ValueError):
    """A reward of one's own that cannot be used, or what it gave or raised; one line that names it and the record."""


@functools.lru_cache(maxsize=8)
def load_reward(name: str) -> RewardFunction:
    """The function `module:function` or `path/to/file.py:function`; a file is imported once, as it stands then.

    Raises RewardFunctionError: no such module, file or function, what importing it raises, or a function that does not
    take a record and a response.
    """
    module_name, _, function_name = name.rpartition(":")
    if not module_name or not function_name.isidentifier():
        raise RewardFunctionError(
            f"reward.module {name!r} is not MODULE:FUNCTION, such as my_rewards.py:exact_match"
        )
    module = _import(name, module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        what = "holds no function" if function is None else "does not hold a function, but a value,"
        raise RewardFunctionError(f"reward.module {name}: {module_name} {what} {function_name}")
    try:
        inspect.signature(function).bind({}, "")
    except TypeError as error:
        raise RewardFunctionError(
            f"reward.module {name}: {function_name} must take a record and a response ({error})"
        ) from None
    except ValueError:
        pass  # a builtin that does not tell its parameters: its first call will
    return function


def own_score(name: str, record: Mapping[str, Any], response: str) -> Score:
    """What the function `name` gives a response; raises RewardFunctionError naming it and the record."""
    function = load_reward(name)
    try:
        given = function(dict(record), response)
    except Exception as error:
        raise RewardFunctionError(
            f"reward.module {name}: {record['origin']}: raised {_said(error)}"
        ) from error
    try:
        return as_score(given, response)
    except ValueError as error:
        raise RewardFunctionError(f"reward.module {name}: {record['origin']}: {error}") from None


def as_score(given: object, response: str) -> Score:
    """A function's result as a Score; raises ValueError saying what is wrong with it.

    A number says nothing of the form of the response, which is measured here so that tables show it: it is no part of
    the reward.
    """
    if isinstance(given, Score):
        parts = {field.name: _number(getattr(given, field.name), field.name) for field in fields(Score)}
        for part, value in parts.items():
            if value > 1 or (value < 0 and part != "overall"):
                bounds = "at most 1" if part == "overall" else "in [0, 1]"
                raise ValueError(f"returned a Score whose {part} {value:g} is not {bounds}")
        return Score(**parts)
    value = _number(given, "")
    if not 0 <= value <= 1:
        raise ValueError(f"returned {value:g}, which is not in [0, 1]; a Score's overall may be negative")
    return Score(value, value, float(has_strict_format(response)), float(bool(extract_answer(response))))


def _number(value: object, part: str) -> float:
    name = f"a Score whose {part} is " if part else ""
    if not isinstance(value, Real):
        raise ValueError(
            f"returned {name}{type(value).__name__}, not a number{'' if part else ' or a Score'}"
        )
    if not math.isfinite(value):
        raise ValueError(f"returned {name}{float(value):g}")
    return float(value)


def _import(name: str, module_name: str) -> ModuleType:
    """The module, or the file; what running it raises is one line."""
    path = Path(module_name)
    if path.suffix == ".py" and not path.is_file():
        raise RewardFunctionError(f"reward.module {name}: there is no file {path}")
    try:
        if path.suffix != ".py":
            return importlib.import_module(module_name)
        spec = importlib.util.spec_from_file_location(f"own reward {path.resolve()}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look up the annotations of theirs
        spec.loader.exec_module(module)
    except Exception as error:
        raise RewardFunctionError(
            f"reward.module {name}: {module_name} cannot be imported ({_said(error)})"
        ) from error
    return module


def _said(error: Exception) -> str:
    """An error in one line: its class and the first line of what it says."""
    line = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
