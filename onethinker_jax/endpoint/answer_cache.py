"""Answers that an endpoint has given, on disk, found again by all that they depend on."""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onethinker_jax.endpoint.settings import EndpointSettings
from onethinker_jax.errors import UserError


class CacheError(UserError):
    """The file of the cache cannot be used. One line naming it."""


class AnswerCache:
    """Texts by key in an SQLite file; safe for several threads and processes. Without a path in memory alone."""

    def __init__(self, path: Path | None = None):
        """Raises CacheError: the file is another one, damaged, or cannot be written."""
        self._path, self._turn = path, threading.Lock()
        with self._named():
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._table = sqlite3.connect(
                path or ":memory:", timeout=60.0, isolation_level=None, check_same_thread=False
            )
            self._table.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, text TEXT NOT NULL)"
            )

    def __len__(self) -> int:
        with self._named():
            return self._table.execute("SELECT COUNT(*) FROM answers").fetchone()[0]

    def get(self, key: str) -> str | None:
        """The answer, None if there is none. Raises CacheError."""
        with self._named():
            row = self._table.execute("SELECT text FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, key: str, text: str) -> None:
        """Keeps an answer in the place of an earlier one. Raises CacheError."""
        with self._named():
            self._table.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(text)))

    def close(self) -> None:
        """Closes the file."""
        self._table.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """One thread at a time; what SQLite raises names the file."""
        try:
            with self._turn:
                yield
        except (sqlite3.Error, OSError) as error:
            raise CacheError(f"{self._path}: cannot be used as a cache of answers ({error})") from None


def request_key(settings: EndpointSettings, messages: list[dict[str, Any]], **sampling: Any) -> str:
    """The SHA-256 of all that an answer depends on: model, messages and sampling. The address is not among it."""
    request = {
        "model": settings.model,
        "messages": messages,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
        "extra": settings.extra(),
        **sampling,
    }
    return digest(request)


def digest(value: Any) -> str:
    """The SHA-256 of a value's JSON, as hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
