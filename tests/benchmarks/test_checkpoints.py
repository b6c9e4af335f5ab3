"""The measurement of checkpoints, at a tiny size."""

import re
from pathlib import Path

import pytest

from benchmarks import checkpoints
from tests.train import making


def test_every_line_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It asserts by itself that what is restored is what was saved."""
    monkeypatch.setattr(checkpoints, "family_member", lambda name: making.CONFIG)
    checkpoints.measure("tiny", tmp_path, moments=True)
    said = capsys.readouterr().out
    for what in ("pause", "written, with checksums", "verified", "restored", "exported"):
        assert re.search(rf"^{what} +\d+\.\d\d s, +\d+\.\d\d GiB beyond", said, re.MULTILINE), what
