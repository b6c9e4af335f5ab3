"""What results were made with: everything that another run needs for the same numbers."""

import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

from onethinker_jax import __version__

LIBRARIES = (
    *(
        "av",
        "flax",
        "jax",
        "jiwer",
        "latex2sympy2-extended",
        "math-verify",
        "nltk",
        "numpy",
        "openai",
        "pillow",
    ),
    *("pycocotools", "rouge-score", "scipy", "tokenizers"),
)
"""The libraries that answers and numbers depend on."""


def provenance(
    *,
    seed: int,
    model: str = "",
    answers: Mapping[str, Mapping[str, Any]] | None = None,
    judge: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The settings of results.json, to which the file, its md5 and its rows stand beside each benchmark.

    Args:
        seed: of the intervals.
        model: the directory or URL, where one answered.
        answers: benchmark -> what its answers depend on: protocol, sampling, sizes of media, the prompts' digest.
        judge: `AnswerJudge.settings()`.
    """
    made: dict[str, Any] = {"seed": seed}
    if model:
        made |= {
            "model": model,
            "answers": {name: dict(settings) for name, settings in (answers or {}).items()},
        }
    return made if judge is None else {**made, "judge": dict(judge)}


def versions() -> dict[str, str]:
    """Python's, ours and those of the libraries that are installed."""
    found = {"python": platform.python_version(), "onethinker_jax": __version__}
    installed = {name.lower().replace("_", "-") for name in _installed()}
    return found | {name: importlib.metadata.version(name) for name in LIBRARIES if name in installed}


def _installed() -> list[str]:
    return [name for found in importlib.metadata.distributions() if (name := found.metadata["Name"])]
