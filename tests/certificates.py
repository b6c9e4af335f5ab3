"""Certificates of their own authority, for servers of tests."""

import subprocess
from pathlib import Path


def make_certificate(folder: Path, name: str, alternative: str) -> tuple[Path, Path]:
    """A certificate of `name` and its key; `alternative` as in "DNS:reward.test" or "IP:127.0.0.1"."""
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative}"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "certificate.pem", folder / "key.pem"
