"""What becomes of a bad record: an error at once, or a line in a quarantine file, a count and a warning.

One policy for every stage: reading the file, decoding its media, packing, sampling.
"""

import logging
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from onethinker_jax.text_output import json_text, visible

logger = logging.getLogger(__name__)

OnBadRecord = Literal["raise", "skip"]
# The first skips have a line each on the console; all are in the quarantine file and in the count.
SAID_ONE_BY_ONE = 5


class BadRecords:
    """Raises a bad record's error, or writes it to the quarantine file and counts it. Thread-safe."""

    def __init__(self, on_bad_record: OnBadRecord = "raise", quarantine: str | Path | None = None):
        """No record is bad so far.

        Args:
            on_bad_record: "raise" or "skip".
            quarantine: JSON lines file that skips are appended to, made at the first; default: none.

        Raises ValueError: another `on_bad_record`.
        """
        if on_bad_record not in ("raise", "skip"):
            raise ValueError(f'on_bad_record must be "raise" or "skip", got {on_bad_record!r}')
        self.skips = on_bad_record == "skip"
        self.quarantine = Path(quarantine) if quarantine else None
        self.count = 0
        self.left_out: Counter[str] = Counter()
        """Why rows give no record, and how many: bad records by the kind of their error, and what `omit` was told."""
        self.doubtful: Counter[str] = Counter()
        """What looks wrong in good records, and in how many."""
        self._lock = threading.Lock()

    def report(self, error: Exception, *, kind: str = "malformed", **about: Any) -> None:
        """Takes a bad record: `error` is why, `about` what the quarantine line says beside the reason.

        `kind` is what this error is counted under, without what is the row's alone.

        Raises the error itself where `on_bad_record` is "raise". OSError: the quarantine file cannot be written.
        """
        if not self.skips:
            raise error
        with self._lock:
            self.count += 1
            self.left_out[kind] += 1
            if self.quarantine is not None:
                self.quarantine.parent.mkdir(parents=True, exist_ok=True)
                with self.quarantine.open("a", encoding="utf-8") as file:
                    file.write(json_text({"reason": str(error), **about}) + "\n")
            if self.count <= SAID_ONE_BY_ONE:
                logger.warning("skipped: %s", visible(str(error)))
            elif self.count & (self.count - 1) == 0:  # 8, 16, 32 ...: thousands of lines would help nobody
                logger.warning("skipped %d records so far", self.count)

    def omit(self, why: str) -> None:
        """Counts a row that is not bad and that its data set's own rules leave out."""
        with self._lock:
            self.left_out[why] += 1

    @property
    def doubts(self) -> int:
        """How many good records look wrong."""
        return self.doubtful.total()

    def doubts_text(self) -> str:
        """What looks wrong, and in how many records, in one line."""
        return "; ".join(f"{text} ({count})" for text, count in self.doubtful.most_common())

    def doubt(self, text: str, origin: str) -> None:
        """Takes a good record that looks wrong: `text` is why, `origin` names it."""
        with self._lock:
            self.doubtful[text] += 1
            if self.doubts <= SAID_ONE_BY_ONE:
                logger.warning("%s: %s", origin, text)
