"""Annotates as a command does, with the flags that all tests share."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.annotate.__main__ import main

RECORDS, CONCURRENCY = 24, 4


class Run:
    """Annotates with the flags that all tests share."""

    def __init__(self, sidecar: str, out: Path):
        self.sidecar, self.out = sidecar, out

    def arguments(self, file: Path, url: str, *more: str) -> list[str]:
        common = {
            "--base-url": url,
            "--model": "big",
            "--out": str(self.out),
            "--sidecar.addresses": self.sidecar,
            "--media-workers": "0",
            "--concurrency": str(CONCURRENCY),
            "--backoff": "0.01",
            "--candidates": "2",
        }
        return [str(file), *(part for pair in common.items() for part in pair), *more]

    def __call__(self, file: Path, url: str, *more: str) -> int:
        return main(self.arguments(file, url, *more))

    def start(self, file: Path, url: str, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "onethinker_jax.data_pipeline.annotate"]
        return subprocess.Popen(
            [*command, *self.arguments(file, url, *more)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def answers(self) -> int:
        """Whole lines of the file of candidates, which may be written to right now."""
        path = self.out / "candidates.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.out.glob("sft_*.json"))}

    def report(self) -> dict[str, Any]:
        return json.loads((self.out / "report.json").read_text())
