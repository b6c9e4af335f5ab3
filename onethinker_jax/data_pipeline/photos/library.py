"""What the Photos world is composed from: a folder of real pictures with an index, `library.json`.

`packages` fills such a folder from packages of ordinary registries; `own_folder` makes one of anybody's cut-outs and
photographs. Whoever composes scenes reads `Library` alone. Every item has an identity (the zebra, not the file), and
the identity alone decides its split: what is held out is never seen in training, in any scene.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from onethinker_jax.errors import UserError
from onethinker_jax.files import write_whole

Split = Literal["train", "heldout"]

HELDOUT_SHARE = 0.2
"""Share of the identities that are held out."""

INDEX = "library.json"


class LibraryError(UserError):
    """A library's folder or index cannot be used. One line naming what."""


def split_of(identity: str) -> Split:
    """The split of an identity: the first 8 bytes of its SHA-256, as a share of their range."""
    draw = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") / 2**64
    return "heldout" if draw < HELDOUT_SHARE else "train"


@dataclass(frozen=True)
class Item:
    """A file of the library.

    `path` is relative to the library's folder, `identity` is what two pictures of one thing share, `source` names the
    package or folder that the file is out of, `licence` is that of the file as its source states it.
    """

    path: str
    identity: str
    source: str
    licence: str

    @property
    def split(self) -> Split:
        """By the identity alone."""
        return split_of(self.identity)


@dataclass(frozen=True)
class Cutout(Item):
    """A PNG with alpha: one object.

    `name` is a plain noun ("zebra"), `caption` a sentence, `group` such as "animals".
    """

    name: str
    caption: str
    group: str


@dataclass(frozen=True)
class Coin(Item):
    """A PNG with alpha of a coin that is worth `value` of `unit` ("cents")."""

    name: str
    value: int
    unit: str


@dataclass(frozen=True)
class Photo(Item):
    """A photograph. `name` says what it shows, where that is known; `text` is its published description.

    `ground` is the share of the height below which objects may stand: 1 where nothing can.
    """

    name: str | None = None
    group: str | None = None
    text: str | None = None
    ground: float = 0.6


@dataclass(frozen=True)
class Clip(Item):
    """A real or animated video. `name` says what it shows ("a street with pedestrians")."""

    name: str


@dataclass(frozen=True)
class Division:
    """A part of a map: all pixels of `colour` (r, g, b)."""

    name: str
    colour: tuple[int, int, int]
    capital: str | None = None


@dataclass(frozen=True)
class Map(Item):
    """A PNG map whose divisions are told apart by their colour."""

    title: str
    divisions: tuple[Division, ...]


@dataclass(frozen=True)
class Digit(Item):
    """A PNG of a handwritten digit, white on black."""

    value: int


@dataclass(frozen=True)
class Font(Item):
    """A TrueType or OpenType file."""

    name: str


_KINDS = {
    "cutouts": Cutout,
    "coins": Coin,
    "photos": Photo,
    "clips": Clip,
    "maps": Map,
    "digits": Digit,
    "fonts": Font,
}


@dataclass(frozen=True)
class Library:
    """All items under `folder`; a kind may be empty where a library does not have it."""

    folder: Path
    cutouts: tuple[Cutout, ...] = ()
    coins: tuple[Coin, ...] = ()
    photos: tuple[Photo, ...] = ()
    clips: tuple[Clip, ...] = ()
    maps: tuple[Map, ...] = ()
    digits: tuple[Digit, ...] = ()
    fonts: tuple[Font, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    """Why files of the sources are not in the library, and how many for each reason."""

    def write(self) -> None:
        """Writes the index into the folder."""
        index: dict[str, Any] = {kind: [asdict(item) for item in getattr(self, kind)] for kind in _KINDS}
        write_whole(self.folder / INDEX, json.dumps({**index, "left_out": self.left_out}, indent=1) + "\n")

    @classmethod
    def read(cls, folder: str | Path) -> "Library":
        """The library in `folder`; raises LibraryError naming what is missing or malformed in it."""
        folder = Path(folder)
        try:
            index = json.loads((folder / INDEX).read_text())
            kinds = {kind: tuple(_items(made, index.get(kind, ()))) for kind, made in _KINDS.items()}
        except FileNotFoundError:
            raise LibraryError(f"{folder} has no {INDEX}: it is not a library of the Photos world") from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise LibraryError(f"{folder / INDEX} is malformed: {error}") from error
        library = cls(folder, **kinds, left_out=index.get("left_out", {}))
        for item in library.items:
            if not (folder / item.path).is_file():
                raise LibraryError(f"{folder / INDEX} names {item.path}, which is not there")
        return library

    @property
    def items(self) -> tuple[Item, ...]:
        """Items of all kinds."""
        return tuple(item for kind in _KINDS for item in getattr(self, kind))


def _items(kind: type, rows: Iterable[dict[str, Any]]) -> Iterable[Any]:
    names = {entry.name for entry in fields(kind)}
    for row in rows:
        if unknown := set(row) - names:
            raise ValueError(f"unknown {', '.join(sorted(unknown))} of {row.get('path')}")
        if kind is Map:
            parts = tuple(Division(p["name"], tuple(p["colour"]), p.get("capital")) for p in row["divisions"])
            row = {**row, "divisions": parts}
        yield kind(**row)
