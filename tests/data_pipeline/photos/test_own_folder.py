"""A library of one's own pictures: names, captions, groups, and errors that name the file."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onethinker_jax.data_pipeline.photos import own_folder
from onethinker_jax.data_pipeline.photos.library import Item, Library, LibraryError
from onethinker_jax.data_pipeline.photos.own_folder import library_of_folder
from tests.data_pipeline.photos.making_packages import disc, encoded, photograph
from tests.data_pipeline.photos.test_library_writer import film_of_greys
from tests.data_pipeline.photos.test_packages_readers import THREE, coloured_map, kgm

# Names of either split, as their hash has it.
ALL = [f"thing {letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
TRAIN = [name for name in ALL if Item("", name, "", "").split == "train"]
HELDOUT = [name for name in ALL if Item("", name, "", "").split == "heldout"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    for place in ("cutouts/toys", "photos/rooms"):
        (folder / place).mkdir(parents=True)
    for name in (TRAIN[0], HELDOUT[0]):
        stem = name.replace(" ", "_")
        disc().save(folder / "cutouts" / f"{stem}_2.png")
        photograph().save(folder / "photos" / f"{name}.jpg")
    car = Image.fromarray(np.asarray(disc().getchannel("A")) // 255)  # its alpha is a colour of its palette
    car.putpalette([0, 0, 0, 200, 30, 30])
    car.save(folder / "cutouts" / "toys" / "red_car.png", transparency=0)
    photograph().save(folder / "photos" / "rooms" / "kitchen.webp")
    return folder


def test_what_a_folder_holds(folder: Path, tmp_path: Path) -> None:
    (folder / "cutouts" / "captions.json").write_text('{"red_car.png": "A red toy car."}')
    (folder / "photos" / "rooms" / "kitchen.txt").write_text("A kitchen with a stove.\n")
    (folder / "photos" / "notes.docx").write_bytes(b"")
    (folder / "clips").mkdir()
    film_of_greys(folder / "clips" / "fog_at_sea.mp4", frames=230)
    (folder / "maps").mkdir()
    (folder / "maps" / "utopia.kgm").write_bytes(kgm(*THREE))
    (folder / "maps" / "x.png").write_bytes(encoded(coloured_map()))
    library = library_of_folder(folder, tmp_path / "library")
    assert library == Library.read(tmp_path / "library")
    by_name = {item.name: item for item in library.cutouts}
    assert set(by_name) == {TRAIN[0], HELDOUT[0], "red car"}
    assert (by_name["red car"].caption, by_name["red car"].group) == ("A red toy car.", "toys")
    assert (by_name[TRAIN[0]].caption, by_name[TRAIN[0]].group) == (f"A {TRAIN[0]}.", "objects")
    assert (by_name[TRAIN[0]].split, by_name[HELDOUT[0]].split) == ("train", "heldout")
    kitchen = next(photo for photo in library.photos if photo.name)
    assert (kitchen.name, kitchen.group, kitchen.text) == ("kitchen", "rooms", "A kitchen with a stove.")
    assert [photo.ground < 1 for photo in library.photos if photo.name is None] == [True, True]
    assert [clip.name for clip in library.clips] == ["fog at sea"] * 3
    assert len({clip.identity for clip in library.clips}) == 1
    assert len(library.maps[0].divisions) == 3
    assert library.left_out == {"a file of another kind in photos/": 1}


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert own_folder.main([str(folder), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("cutout: ")
    assert own_folder.main([str(tmp_path / "none"), str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'none'} is no folder\n"


def broken(folder: Path, what: str) -> None:
    cutouts, photos = folder / "cutouts", folder / "photos"
    if what == "no alpha":
        photograph(80, 60).save(cutouts / "dog.png")
    elif what == "opaque":
        Image.new("RGBA", (80, 80), (1, 2, 3, 255)).save(cutouts / "dog.png")
    elif what == "unreadable":
        (photos / "rome.jpg").write_bytes(encoded(photograph(), "JPEG")[:900])
    elif what == "small":
        photograph(100, 100).save(photos / "rome.jpg")
    elif what == "captions":
        (cutouts / "captions.json").write_text("[1]")
    elif what == "film":
        (folder / "clips").mkdir()
        (folder / "clips" / "sea.mp4").write_bytes(b"no film")
    elif what == "font":
        (folder / "fonts").mkdir()
        (folder / "fonts" / "a.ttf").write_bytes(b"no font")
    elif what == "no photos":
        for path in photos.rglob("*.*"):
            path.unlink()
    elif what == "one split":
        (cutouts / f"{HELDOUT[0].replace(' ', '_')}_2.png").unlink()
        (cutouts / "toys" / "red_car.png").unlink()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no alpha", r"cutouts/dog\.png has no alpha"),
        ("opaque", r"cutouts/dog\.png is left out as a cut-out: it is opaque all over"),
        ("unreadable", r"photos/rome\.jpg cannot be opened"),
        ("small", r"photos/rome\.jpg is left out: a photograph's side is shorter"),
        ("captions", r"captions\.json does not map file names to texts"),
        ("film", r"clips/sea\.mp4 cannot be decoded"),
        ("font", r"fonts/a\.ttf cannot be opened"),
        ("no photos", r"mine has no photos: it needs some in .*mine/photos$"),
        ("one split", r"mine: none of the 1 cutouts is held out"),
    ],
)
def test_errors_name_the_file(folder: Path, tmp_path: Path, what: str, said: str) -> None:
    broken(folder, what)
    with pytest.raises(LibraryError, match=said) as caught:
        library_of_folder(folder, tmp_path / "library")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "library").exists()


def test_colours_are_kept(folder: Path, tmp_path: Path) -> None:
    library = library_of_folder(folder, tmp_path / "library")
    car = next(item for item in library.cutouts if item.name == "red car")
    with Image.open(library.folder / car.path) as picture:
        pixels = np.asarray(picture)
    assert tuple(pixels[pixels.shape[0] // 2, pixels.shape[1] // 2]) == (200, 30, 30, 255)
