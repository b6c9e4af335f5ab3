"""A library of the Photos world out of anybody's own pictures.

    python -m onethinker_jax.data_pipeline.photos.own_folder FOLDER LIBRARY

    FOLDER/cutouts/zebra.png            PNG or WebP with alpha: one object each; its name is the file's, `_` a space
    FOLDER/cutouts/animals/zebra_2.png  a sub-folder is a group; a number at the end is no part of the name
    FOLDER/cutouts/zebra.txt            first line: the caption, "A zebra." where there is none
    FOLDER/photos/street.jpg            photographs to put objects on
    FOLDER/photos/animals/giraffe.jpg   in a sub-folder: photographs of what their name says; .txt: a description
    FOLDER/clips/harbour.mp4            films, cut into pieces of at most 10 s
    FOLDER/maps/france.kgm              maps as KGeography has them: XML and a PNG
    FOLDER/fonts/serif.ttf              TrueType or OpenType

Cut-outs and photographs must be there, the rest may. A `captions.json` in a folder maps file names to texts, as the
`.txt` files do. The name is the identity: pictures of one name are all in training or all held out.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take some time
    command_line.begin()

import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from PIL import Image, ImageFont, UnidentifiedImageError

from onethinker_jax.data_pipeline.photos.clip_cutting import Piece, cut, seconds_of
from onethinker_jax.data_pipeline.photos.library import Library, LibraryError
from onethinker_jax.data_pipeline.photos.library_writer import (
    LibraryWriter,
    Origin,
    refuse_other_folders,
    summary,
)
from onethinker_jax.data_pipeline.photos.packages.identities import words_of
from onethinker_jax.data_pipeline.photos.packages.kgeography import read_maps
from onethinker_jax.data_pipeline.photos.packages.licences import Licences
from onethinker_jax.data_pipeline.photos.packages.stamps import caption_of
from onethinker_jax.files import whole_folder

LICENCE = "its owner's"

PIECE_S, MOST_PIECES = 10, 12
"""Seconds of a clip, and how many are cut from the start of a film."""

_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
_ALPHA = {".png", ".webp"}
_FILMS = {".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v"}
_FONTS = {".ttf", ".otf"}


def library_of_folder(folder: Path, out: Path) -> Library:
    """Writes a library of the pictures in `folder` to `out`, which takes the place of an older one at the end.

    Raises LibraryError naming the file: a cut-out without alpha, a picture that cannot be opened, a film that cannot
    be decoded. Naming the folder: no cut-outs or photographs, or none of them in one of the two splits.
    """
    if not folder.is_dir():
        raise LibraryError(f"{folder} is no folder")
    refuse_other_folders(out)
    with whole_folder(out) as aside:
        writer = LibraryWriter(aside)
        _cutouts(folder / "cutouts", writer)
        _photos(folder / "photos", writer)
        _clips(folder / "clips", writer)
        _fonts(folder / "fonts", writer)
        maps = _files(folder / "maps", {".kgm", ".png"}, writer)
        read_maps([(str(path), path.read_bytes()) for path in maps], writer, Licences(LICENCE))
        library = writer.library()
        _check_splits(folder, library)
        library.write()
    return Library.read(out)


def _cutouts(folder: Path, writer: LibraryWriter) -> None:
    texts = _texts(folder)
    for path in _files(folder, _ALPHA, writer):
        picture = _picture(path)
        if "A" not in picture.convert("RGBA" if "transparency" in picture.info else picture.mode).getbands():
            raise LibraryError(f"{path} has no alpha: a cut-out is an object on nothing")
        name = words_of(path.stem)
        reason = writer.cutout(
            picture,
            _origin(name),
            name=name,
            caption=texts.get(path.stem) or caption_of(name),
            group=path.parent.name if path.parent != folder else "objects",
        )
        if reason:
            raise LibraryError(f"{path} is left out as {reason}")


def _photos(folder: Path, writer: LibraryWriter) -> None:
    texts = _texts(folder)
    for path in _files(folder, _PICTURES, writer):
        grouped = path.parent != folder
        name = words_of(path.stem)
        known = {"name": name, "group": path.parent.name, "ground": 1.0} if grouped else {}
        origin = _origin(name if grouped else path.stem)
        reason = writer.photo(_picture(path), origin, text=texts.get(path.stem), **known)
        if reason:
            raise LibraryError(f"{path} is left out: {reason}")


def _clips(folder: Path, writer: LibraryWriter) -> None:
    for path in _files(folder, _FILMS, writer):
        name, film = words_of(path.stem), path.read_bytes()
        seconds = min(seconds_of(film, name=str(path)), PIECE_S * MOST_PIECES)
        pieces = [
            (Piece(start, min(start + PIECE_S, seconds), name), writer.path_of("clips", name, "mp4"))
            for start in range(0, max(1, round(seconds)), PIECE_S)
        ]
        cut(film, [(piece, writer.folder / clip) for piece, clip in pieces], name=str(path))
        for _, clip in pieces:
            writer.clip(clip, _origin(path.stem), name=name)


def _fonts(folder: Path, writer: LibraryWriter) -> None:
    for path in _files(folder, _FONTS, writer):
        try:
            family, face = ImageFont.truetype(str(path)).getname()
        except OSError as error:
            raise LibraryError(f"{path} cannot be opened: {error}") from error
        family = family or path.stem
        writer.font(
            path.read_bytes(), _origin(family), name=f"{family} {face or ''}".strip(), suffix=path.suffix[1:]
        )


def _origin(identity: str) -> Origin:
    return Origin(identity.lower(), "own folder", LICENCE)


def _files(folder: Path, suffixes: set[str], writer: LibraryWriter) -> list[Path]:
    """The folder's files with these suffixes, sub-folders included; others but texts are counted."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix.lower() in suffixes:
            found.append(path)
        elif path.is_file() and path.suffix not in {".txt", ".json"}:
            writer.leave_out(f"a file of another kind in {folder.name}/")
    return found


def _texts(folder: Path) -> dict[str, str]:
    """Texts by the stem of the file that they are about."""
    texts = {path.stem: path.read_text().strip().split("\n")[0] for path in sorted(folder.rglob("*.txt"))}
    for path in sorted(folder.rglob("captions.json")):
        try:
            read = json.loads(path.read_text())
            texts |= {Path(name).stem: text.strip() for name, text in read.items()}
        except (ValueError, AttributeError) as error:
            raise LibraryError(f"{path} does not map file names to texts: {error}") from error
    return texts


def _picture(path: Path) -> Image.Image:
    try:
        picture = Image.open(path)
        picture.load()
    except (UnidentifiedImageError, OSError) as error:
        raise LibraryError(f"{path} cannot be opened: {error}") from error
    return picture


def _check_splits(folder: Path, library: Library) -> None:
    for kind in ("cutouts", "photos"):
        items = getattr(library, kind)
        if not items:
            raise LibraryError(f"{folder} has no {kind}: it needs some in {folder / kind}")
        splits = {item.split for item in items}
        if len(splits) < 2:
            what = "held out" if splits == {"train"} else "to train on"
            raise LibraryError(
                f"{folder}: none of the {len(items)} {kind} is {what}, which their names decide; "
                f"add {kind} of other names"
            )


@dataclass(frozen=True)
class Arguments:
    """Makes a library of the Photos world of one's own pictures."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder with `cutouts/` and `photos/`, and any of `clips/`, `maps/`, `fonts/`."""

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LIBRARY")]
    """Folder of the library; an older library there is replaced at the end."""


def run(arguments: Arguments) -> None:
    """Makes the library and prints what is in it."""
    for line in summary(library_of_folder(arguments.folder, arguments.out)):
        sys.stdout.write(f"{line}\n")


main = partial(
    command_line.main, Arguments, run, prog="python -m onethinker_jax.data_pipeline.photos.own_folder"
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
