"""Splits by identity; boxes without specks; sizes; and films cut at exact frames."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from onethinker_jax.data_pipeline.photos import library_sheet
from onethinker_jax.data_pipeline.photos.clip_cutting import Piece, cut, seconds_of
from onethinker_jax.data_pipeline.photos.library import Clip, Cutout, Item, Library, LibraryError, Photo
from onethinker_jax.data_pipeline.photos.library_writer import (
    CUTOUT_SIDE,
    PHOTO_SIDE,
    LibraryWriter,
    Origin,
    summary,
    together,
    without_specks,
)
from tests.data_pipeline.making import write_video
from tests.data_pipeline.photos.making_packages import disc, photograph

ZEBRA = Origin("zebra", "pack", "free")


def zebra(writer: LibraryWriter, picture: Image.Image) -> str | None:
    return writer.cutout(picture, ZEBRA, name="zebra", caption="A zebra.", group="animals")


def test_a_fifth_of_the_identities_is_held_out() -> None:
    splits = [Item("", f"thing {number}", "", "").split for number in range(5000)]
    assert abs(splits.count("heldout") / 5000 - 0.2) < 0.02  # 3.5 standard errors


def test_the_identity_alone_decides_the_split() -> None:
    for identity in map(str, range(50)):
        cutout = Cutout("a", identity, "x", "y", name="n", caption="c", group="g")
        assert cutout.split == Photo("b", identity, "z", "w").split


def test_a_speck_does_not_widen_the_box(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (200, 200))
    picture.paste(disc(80, 60), (50, 70))
    picture.putpixel((199, 199), (0, 0, 0, 255))
    picture.putpixel((0, 100), (0, 0, 0, 9))
    assert without_specks(picture).getchannel("A").getbbox() == (52, 72, 128, 128)
    picture.paste(disc(20, 20), (150, 90))  # large enough to belong to it
    assert without_specks(picture).getchannel("A").getbbox() == (52, 72, 168, 128)


def test_pictures_are_shrunk_and_kept_in_shape(tmp_path: Path) -> None:
    writer = LibraryWriter(tmp_path)
    assert zebra(writer, disc(1608, 804)) is None
    turned = photograph(1280, 960)
    turned.getexif()[0x112] = 6  # a phone held upright
    turned.save(tmp_path / "phone.jpg", exif=turned.getexif())
    assert writer.photo(Image.open(tmp_path / "phone.jpg"), ZEBRA, ground=0.7) is None
    cutout, photo = writer.library().items
    assert Image.open(tmp_path / cutout.path).size == (CUTOUT_SIDE, CUTOUT_SIDE // 2 - 1)
    assert Image.open(tmp_path / photo.path).size == (PHOTO_SIDE * 3 // 4, PHOTO_SIDE)


def test_a_written_library_is_read_back(tmp_path: Path) -> None:
    one, two = LibraryWriter(tmp_path, "one"), LibraryWriter(tmp_path, "two")
    assert zebra(one, disc()) is None
    assert zebra(one, disc()) is None
    assert zebra(two, Image.new("RGBA", (80, 80))) == "a cut-out: nothing is visible"
    library = together(tmp_path, [one, two])
    library.write()
    read = Library.read(tmp_path)
    assert read == library
    assert [item.path for item in read.items] == ["one/cutouts/zebra.png", "one/cutouts/zebra_2.png"]
    assert summary(read)[-1] == "left out: two: a cut-out: nothing is visible: 1"


def film_of_greys(path: Path, frames: int = 40) -> bytes:
    """10 frames a second, each lighter than the one before."""
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=10, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(frames):
            picture = np.full((64, 96, 3), (20 + 5 * number) % 256, np.uint8)
            film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        film.mux(stream.encode())
    return path.read_bytes()


def test_films_are_cut_at_exact_frames(tmp_path: Path) -> None:
    film = film_of_greys(tmp_path / "film.mp4")
    assert seconds_of(film, name="film") == pytest.approx(4)
    pieces = [(Piece(0, 1, "a"), tmp_path / "a.mp4"), (Piece(1.5, 4, "b"), tmp_path / "b.mp4")]
    cut(film, pieces, name="film")
    for (piece, path), first, count in zip(pieces, (0, 15), (10, 25), strict=True):
        with av.open(str(path)) as clip:
            stream = clip.streams.video[0]
            assert (stream.codec_context.name, stream.average_rate, len(clip.streams)) == ("h264", 10, 1)
            greys = [frame.to_ndarray(format="gray").mean() for frame in clip.decode(video=0)]
        expected = [20 + 5 * (first + number) for number in range(count)]
        assert len(greys) == count, piece
        assert np.abs(np.diff(greys) - np.diff(expected)).max() < 2


def test_films_that_cannot_be_cut_are_named(tmp_path: Path) -> None:
    film = film_of_greys(tmp_path / "film.mp4")
    with pytest.raises(LibraryError, match=r"^film has no frame from 9 to 10 s"):
        cut(film, [(Piece(9, 10, "a"), tmp_path / "a.mp4")], name="film")
    for broken in (b"no film", film[:200]):
        with pytest.raises(LibraryError, match=r"^film cannot be decoded"):
            cut(broken, [(Piece(0, 1, "a"), tmp_path / "a.mp4")], name="film")
        with pytest.raises(LibraryError, match=r"^film cannot be decoded"):
            seconds_of(broken, name="film")


def test_sheets_show_every_item(tmp_path: Path) -> None:
    writer = LibraryWriter(tmp_path)
    for _ in range(library_sheet.COLUMNS * library_sheet.ROWS + 1):
        assert zebra(writer, disc(60, 60, (255, 0, 0))) is None
    write_video(tmp_path / "clip.mp4", [number * 40.0 for number in range(5)])
    writer.items["clips"] = [Clip("clip.mp4", "film", "pack", "free", name="noise")]
    paths = library_sheet.write_sheets(writer.library(), tmp_path / "sheets")
    assert [path.name for path in paths] == ["cutouts_1.png", "cutouts_2.png", "clips_1.png"]
    with Image.open(paths[0]) as page:
        red = (np.asarray(page) == (255, 0, 0)).all(-1)
    cells = red.reshape(library_sheet.ROWS, -1, library_sheet.COLUMNS, library_sheet.CELL).any((1, 3))
    assert cells.all()
