"""What compilers said, kept in a file of JSON lines so that a search goes on where it was stopped.

A line is a program of some settings: its key is a digest of the settings, the topology, the package's sources and the
compiler's version, its `text` one of the lowered program itself. Settings that lead to the same text share what was
compiled; a change of the sources that changes no program costs a trace and no compilation.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onethinker_jax.errors import UserError
from onethinker_jax.files import write_whole
from onethinker_jax.train.plans.report import Compiled


class ResultsError(UserError, ValueError):
    """A file of results that cannot be read; the message names the line."""


@dataclass(frozen=True)
class Outcome:
    """What came of a compilation; `error` where there is no result: a crash, too little memory of this machine."""

    compiled: Compiled | None = None
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {"error": self.error} if self.compiled is None else {"compiled": self.compiled.to_json()}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Outcome":
        """What `to_json` gave."""
        if "compiled" in saved:
            return cls(Compiled.from_json(saved["compiled"]))
        return cls(error=saved["error"])


class Results:
    """The outcomes in a file, which grows a line at a time."""

    def __init__(self, path: Path):
        """A last line that was cut off is left out, and said. Raises ResultsError naming another that is not ours."""
        self._path, self._texts, self._outcomes = path, dict[str, str](), dict[str, Outcome]()
        if not path.exists():
            return
        text = path.read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), 1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError):
                if number == text.count("\n") + 1:
                    sys.stderr.write(f"{path}: the last line was cut off, and is left out\n")
                    write_whole(path, "".join(text.splitlines(keepends=True)[:-1]))
                    return
                raise ResultsError(f"{path}, line {number}: it is no result of a search") from None

    def of(self, key: str) -> Outcome | None:
        """The outcome of a program of some settings, where it is known."""
        return self._outcomes.get(self._texts.get(key, ""))

    def of_text(self, text: str) -> Outcome | None:
        """The outcome of a lowered program."""
        return self._outcomes.get(text)

    def add(self, key: str, text: str, outcome: Outcome, about: Mapping[str, Any]) -> None:
        """Appends a line; `about` says for a reader what was compiled. An outcome that is known is not repeated."""
        row: dict[str, Any] = {"key": key, "text": text, **about}
        if text not in self._outcomes:
            row |= outcome.to_json()
        self._take({**row, **outcome.to_json()})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _take(self, row: Mapping[str, Any]) -> None:
        self._texts[row["key"]] = row["text"]
        if "compiled" in row or "error" in row:
            self._outcomes[row["text"]] = Outcome.from_json(row)


def digest(*parts: object) -> str:
    """A digest of what the parts print."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:24]


def digest_of_sources(root: Path) -> str:
    """A digest of every Python file below a folder, presets aside: these act by their values alone."""
    files = sorted(path for path in root.rglob("*.py") if not path.name.startswith("presets"))
    parts = (part for path in files for part in (path.relative_to(root), path.read_text(encoding="utf-8")))
    return digest(*parts)
