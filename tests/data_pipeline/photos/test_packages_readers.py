"""Each reader on a tiny package that is written by hand; what is left out is counted by its reason."""

import gzip
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from onethinker_jax.data_pipeline.photos.library import Division, LibraryError
from onethinker_jax.data_pipeline.photos.library_writer import LibraryWriter
from onethinker_jax.data_pipeline.photos.packages import (
    digits,
    fonts,
    gcompris,
    kgeography,
    photographs,
    stamps,
)
from onethinker_jax.data_pipeline.photos.packages.identities import concept, proper, words_of
from onethinker_jax.data_pipeline.photos.packages.licences import Licences, debian_licences, readme_licences
from onethinker_jax.data_pipeline.photos.packages.rcc import rcc_files
from tests.data_pipeline.photos.making_packages import disc, encoded, photograph, rcc

NO_LICENCES = Licences("free")


@pytest.fixture
def writer(tmp_path: Path) -> LibraryWriter:
    return LibraryWriter(tmp_path, "pack")


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_qt_resource_file_gives_its_files_back(version: int, compressed: bool) -> None:
    files = {"a/b/é.txt": b"one" * 50, "a/c.webp": b"two", "d.qml": b"", "e/f/g/h": bytes(range(256))}
    assert dict(rcc_files(rcc(files, version, compressed), name="x.rcc")) == files


def test_a_damaged_qt_resource_file_is_one_error_that_names_it() -> None:
    whole = rcc({"a/b": b"content" * 30, "a/c": b"more"})
    with pytest.raises(LibraryError, match=r"x\.rcc is not a Qt"):
        list(rcc_files(b"PK" + whole, name="x.rcc"))
    for size in (4, 30, len(whole) - 15):
        with pytest.raises(LibraryError, match=r"x\.rcc is a damaged"):
            list(rcc_files(whole[:size], name="x.rcc"))
    zstandard = bytearray(rcc({"b": b"content"}, version=1, compressed=False))
    zstandard[-14 + 5] = 4  # the flags of the last node
    with pytest.raises(LibraryError, match=r"x\.rcc: b is compressed by Zstandard"):
        list(rcc_files(bytes(zstandard), name="x.rcc"))


@pytest.mark.parametrize(
    ("caption", "name"),
    [
        ("A zebra.", "zebra"),
        ("An owl.", "owl"),
        ("A peacock (a male peafowl).", "peacock"),
        ("A “Fuji” apple.", "Fuji apple"),
        ("The full moon.", "full moon"),
        ("A plumber’s wrench.", "plumber's wrench"),
        ("A pair of cherries.", "pair of cherries"),
        ("A dumper. It carries its load in the front.", "dumper"),
        ("Two wild boars.", None),
        ("Eat your broccoli!", None),
        ("This shell is hundreds of years old!", None),
        ("A hoverfly resembles a honeybee drone.", None),
        ("", None),
    ],
)
def test_names_come_from_plain_captions_alone(caption: str, name: str | None) -> None:
    assert stamps.plain_name(caption) == name


@pytest.mark.parametrize(
    ("caption", "country", "coin"),
    [
        ("A US 25 cent piece ($.25) called a quarter.", "US", (25, "cents", "US 25 cent coin")),
        (
            "A Canadian two dollar coin ($2.00) called a toonie.",
            "Canadian",
            (200, "cents", "Canadian 2 dollar coin"),
        ),
        ("A European coin of 5 cents (0.05 €).", "euro", (5, "cents", "5 cent coin")),
        ("A European coin of 2 euros (2 €).", "euro", (200, "cents", "2 euro coin")),
        ("50 Japanese yen.", "Japanese", (50, "yen", "50 yen coin")),
    ],
)
def test_coins_are_worth_what_their_caption_says(caption: str, country: str, coin: tuple) -> None:
    assert stamps.coin_of(caption, country, "x") == coin


def test_a_coin_without_value_is_an_error_that_names_it() -> None:
    with pytest.raises(LibraryError, match=r"us/x\.png: its caption names no value: 'A coin\.'"):
        stamps.coin_of("A coin.", "US", "us/x.png")


def test_stamps(writer: LibraryWriter) -> None:
    def stamp(path: str, caption: str | None, picture: Image.Image) -> list[tuple[str, bytes]]:
        text = [] if caption is None else [(f"{stamps.ROOT}{path}.txt", f"{caption}\nfr.utf8=Un.\n".encode())]
        return [*text, (f"{stamps.ROOT}{path}.png", encoded(picture))]

    files = [
        *stamp("animals/mammals/zebra", "A zebra.", disc()),
        *stamp("vehicles/auto", "Wroom!", disc()),
        *stamp("animals/none", None, disc()),
        *stamp("symbols/chess/king", "A king.", disc()),
        *stamp("household/plate", "A plate.", disc(30, 30)),
        *stamp("household/board", "A board.", Image.new("RGBA", (80, 80), (9, 9, 9, 255))),
        *stamp("household/veil", "A veil.", Image.new("RGBA", (80, 80), (9, 9, 9, 60))),
        *stamp("symbols/money/us/coins/010dime", "A US 10 cent piece ($.10) called a dime.", disc(54, 54)),
        (f"{stamps.ROOT}food/pear.svg", b"<svg/>"),
    ]
    stamps.read_stamps(files, writer, NO_LICENCES)
    library = writer.library()
    (zebra,) = library.cutouts
    assert (zebra.name, zebra.caption, zebra.group, zebra.identity) == (
        "zebra",
        "A zebra.",
        "animals",
        "zebra",
    )
    assert (zebra.source, zebra.licence) == ("pack", "free")
    with Image.open(library.folder / zebra.path) as picture:
        assert picture.size == (76, 56)  # cropped to what is visible
        assert picture.mode == "RGBA"
    (dime,) = library.coins
    assert (dime.value, dime.unit, dime.name) == (10, "cents", "US 10 cent coin")
    assert library.left_out == {
        "a sign, letter or symbol": 1,
        "a drawing (SVG)": 1,
        "its caption does not say in plain words what it is": 2,
        "a cut-out: its longest side is under 40 px": 1,
        "a cut-out: it is opaque all over": 1,
        "a cut-out: it is see-through": 1,
    }


def test_a_stamp_that_cannot_be_opened_is_named(writer: LibraryWriter) -> None:
    files = [(f"{stamps.ROOT}a/b.txt", b"A b."), (f"{stamps.ROOT}a/b.png", b"no picture")]
    with pytest.raises(LibraryError, match=r"pack: a/b\.png cannot be opened"):
        stamps.read_stamps(files, writer, NO_LICENCES)


def test_gcompris(writer: LibraryWriter) -> None:
    base = "gcompris/src/activities"
    webp = encoded(photograph(), "WEBP")
    board = (
        '{ "image": "key.svg", "title": qsTr("The Colosseum, Rome"), "text": qsTr("It is \\"old\\"."),\n'
        f'  "image2": "qrc:/{base}/explore_monuments/resource/w/colosseum.webp", "x": 1 }}'
    )
    monuments = rcc(
        {
            f"{base}/explore_monuments/resource/w/colosseum.webp": webp,
            f"{base}/explore_monuments/resource/board/board1.qml": board.encode(),
            f"{base}/explore_monuments/resource/README": (
                b"Copyright: A\nLicense: CC-BY-SA 4.0\nFiles:\nw/colosseum.webp\n"
            ),
        }
    )
    animals = rcc(
        {
            f"{base}/erase/resource/polar_bear.webp": webp,
            f"{base}/erase/resource/tiny.webp": encoded(photograph(100, 90), "WEBP"),
        }
    )
    things = rcc(
        {
            f"{base}/categorization/resource/images/tools/hammer3.webp": webp,
            f"{base}/categorization/resource/images/renewable/windmill4.webp": webp,
            f"{base}/categorization/resource/images/renewable/windmill5.webp": webp,
            f"{base}/categorization/resource/images/numbers/numbers.webp": webp,
        }
    )
    folder = "usr/share/gcompris-qt/rcc"
    names = {"explore_monuments": monuments, "erase": animals, "categorization": things}
    licences = debian_licences("Files: *\nLicense: GPL-3+\n", "GPL-3+")
    gcompris.read_gcompris([(f"{folder}/{name}.rcc", data) for name, data in names.items()], writer, licences)
    by_name = {photo.path.split("/")[-1]: photo for photo in writer.library().photos}
    colosseum = by_name["colosseum.jpg"]
    assert (colosseum.name, colosseum.identity, colosseum.group) == ("Colosseum", "colosseum", "monuments")
    assert (colosseum.text, colosseum.licence) == ('It is "old".', "CC-BY-SA-4.0")
    assert colosseum.ground < 1
    bear = by_name["polar_bear.jpg"]
    assert (bear.name, bear.identity, bear.group, bear.ground) == ("polar bear", "bear", "animals", 1)
    assert (bear.text, bear.licence) == (None, "GPL-3+")
    assert (by_name["hammer.jpg"].name, by_name["hammer.jpg"].group) == ("hammer", "tools")
    windmills = [by_name["windmill.jpg"], by_name["windmill_2.jpg"]]
    assert [photo.name for photo in windmills] == ["windmill", "windmill"]
    assert len({photo.identity for photo in windmills}) == 2  # each is a mill of its own
    assert writer.left_out == {"a photograph's side is shorter than 160 px": 1, "a drawing, or letters": 1}


def kgm(*divisions: str) -> bytes:
    return f"<map><mapFile>x.png</mapFile><name>Utopia (Regions)</name>{''.join(divisions)}</map>".encode()


def division(name: str, colour: tuple[int, int, int], more: str = "") -> str:
    r, g, b = colour
    paint = f"<color><red>{r}</red><green>{g}</green><blue>{b}</blue></color>"
    return f"<division><name>{name}</name>{more}{paint}</division>"


def coloured_map() -> Image.Image:
    picture = np.zeros((60, 60, 3), np.uint8)
    for number, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)]):
        picture[:, number * 15 : number * 15 + 15] = colour
    picture[0, :3] = (1, 2, 3)
    return Image.fromarray(picture)


THREE = (
    division("Red", (255, 0, 0), "<capital>Rubin</capital>"),
    division("Green", (0, 255, 0), "<ignore>allowClickMode</ignore>"),
    division("Blue", (0, 0, 255), "<ignore>no</ignore>"),
    division("Water", (9, 9, 9), "<ignore>yes</ignore>"),
)


def test_maps(writer: LibraryWriter) -> None:
    gone = (division("Small", (1, 2, 3)), division("Absent", (7, 7, 7)), division("Void", (7, 7, 7)))
    files = [
        ("usr/share/kgeography/x.kgm", kgm(*THREE, *gone)),
        ("usr/share/kgeography/x.png", encoded(coloured_map().quantize())),
        ("usr/share/kgeography/y.kgm", kgm(*THREE[:2])),
    ]
    kgeography.read_maps(files, writer, NO_LICENCES)
    library = writer.library()
    (shown,) = library.maps
    assert (shown.title, shown.identity) == ("Utopia (Regions)", "map of Utopia")
    assert shown.divisions == (
        Division("Red", (255, 0, 0), "Rubin"),
        Division("Green", (0, 255, 0)),
        Division("Blue", (0, 0, 255)),
    )
    with Image.open(library.folder / shown.path) as picture:
        pixels = np.asarray(picture)
    for part in shown.divisions:  # the mask is exact
        assert (pixels == part.colour).all(-1).sum() == 60 * 15 - 3 * (part.name == "Red")
    assert library.left_out == {
        "a division of a map: under 100 px, or its colour is another's too": 3,
        "a map of fewer than 3 divisions": 1,
    }


@pytest.mark.parametrize(
    ("title", "country"),
    [
        ("France", "map of France"),
        ("Denmark (Counties) (1970-2006)", "map of Denmark"),
        ("Sweden by Counties", "map of Sweden"),
        ("Portugal Provinces (traditional)", "map of Portugal"),
        ("Republic Of Ireland", "map of Ireland"),
        ("The Netherlands", "map of Netherlands"),
    ],
)
def test_two_maps_of_a_country_share_an_identity(title: str, country: str) -> None:
    assert kgeography.country_of(title) == country


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<map>", "cannot be read"),
        (kgm("<division><color/></division>"), "a division without name or colour"),
        (kgm(division("A", (1, 2, 3)).replace("<red>1", "<red>one")), "cannot be read"),
        (kgm(*THREE).replace(b"x.png", b"z.png"), r"names the picture 'z\.png', which is not there"),
    ],
)
def test_a_broken_map_is_named(writer: LibraryWriter, content: bytes, said: str) -> None:
    with pytest.raises(LibraryError, match=rf"pack: x\.kgm .*{said}"):
        kgeography.read_maps([("x.kgm", content), ("x.png", encoded(coloured_map()))], writer, NO_LICENCES)


def test_digits(writer: LibraryWriter) -> None:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.integers(0, 256, (220, 784)), (np.arange(220) % 2)[:, None]], 1)
    table = "\n".join(",".join(map(str, row)) for row in rows)
    digits.read_digits([("m.csv.gz", gzip.compress(table.encode()))], writer, NO_LICENCES)
    library = writer.library()
    assert Counter(digit.value for digit in library.digits) == {0: 100, 1: 100}
    assert len({digit.identity for digit in library.digits}) == 200
    first = next(digit for digit in library.digits if digit.value == 1)
    with Image.open(library.folder / first.path) as picture:
        assert np.array_equal(np.asarray(picture), rows[1, :784].reshape(28, 28))
    assert library.left_out == {"a digit beyond the first 100 of its value": 20}


@pytest.mark.parametrize(
    "content", [b"1,2,3", *(gzip.compress(text, mtime=0) for text in (b"1,2,3", b"a,b", b""))]
)
def test_a_broken_table_of_digits_is_named(writer: LibraryWriter, content: bytes) -> None:
    with pytest.raises(LibraryError, match=r"pack: m\.csv\.gz is no table of digits"):
        digits.read_digits([("m.csv.gz", content)], writer, NO_LICENCES)


def test_fonts(writer: LibraryWriter) -> None:
    font = ImageFont.load_default(20)
    assert isinstance(font, ImageFont.FreeTypeFont)
    assert isinstance(font.path, io.BytesIO)
    content = font.path.getvalue()
    files = [
        (f"usr/share/fonts/truetype/{name}.ttf", content) for name in ("A-Regular", "A-Bold", "A-Italic")
    ]
    fonts.read_fonts(files, writer, NO_LICENCES)
    family = font.getname()[0]
    library = writer.library()
    assert {item.name for item in library.fonts} == {family, f"{family} Bold"}
    assert {item.identity for item in library.fonts} == {family}
    for item in library.fonts:
        assert ImageFont.truetype(str(library.folder / item.path), 10).getname()[0] == family
    assert library.left_out == {"a slanted, light or other face of a font": 1}
    with pytest.raises(LibraryError, match=r"pack: B\.ttf cannot be opened"):
        fonts.read_fonts([("B.ttf", b"no font")], writer, NO_LICENCES)


def test_only_photographs_of_the_table_are_taken(writer: LibraryWriter) -> None:
    table = {"a.png": photographs.Seen(0.5, scene="a field"), "b.png": photographs.Seen(1.0, "red apple")}
    files = [(f"{name}.png", encoded(photograph().convert("L"))) for name in "abc"]
    photographs.read_photographs(files, writer, NO_LICENCES, table)
    field, apple = writer.library().photos
    assert (field.name, field.identity, field.ground) == (None, "a field", 0.5)
    assert (apple.name, apple.identity, apple.ground) == ("red apple", "apple", 1.0)
    assert writer.left_out == {"a picture that is no photograph of use": 1}


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("zebra", "zebra"),
        ("Fuji apple", "apple"),
        ("pair of cherries", "cherry"),
        ("pair of scissors", "scissors"),
        ("brown hen", "chicken"),
        ("silver garbage can", "bin"),
        ("sea lion", "sea lion"),
        ("measuring tape", "measuring tape"),
        ("camels", "camel"),
        ("iris", "iris"),
        ("hibiscus flower", "hibiscus"),
        ("hibiscus", "hibiscus"),
        ("male black rhino", "rhinoceros"),
        ("rhinoceros", "rhinoceros"),
        ("glass", "glass"),
        ("Mars", "mars"),
        ("brushes", "brush"),
    ],
)
def test_names_of_one_kind_of_thing_share_an_identity(name: str, identity: str) -> None:
    assert concept(name) == identity


def test_proper_names_and_file_names() -> None:
    assert proper("The Great Wall of China") == proper("Great Wall of China")
    assert proper("Taj Mahal, India") == proper("Taj Mahal")
    assert proper("Chichén Itzá") == "chichen itza"
    assert words_of("polarBear2") == words_of("polar_bear") == "polar bear"


def test_licences_of_a_debian_package() -> None:
    text = (
        "Format: x\n\nFiles: *\nCopyright: A\nLicense: GPL-2+\nComment: see\n\nFiles: nature/Dune.jpg\n"
        "       nature/Storm.jpg\nCopyright: B\nLicense: CC-BY-4.0\n\nFiles: src/activities/x/*\nLicense: CC0-1.0\n\n"
        "License: GPL-2+\n The text.\n .\n Files: a.png\n"
    )
    licences = debian_licences(text, "none")
    assert (
        licences.of("usr/share/backgrounds/mate/Dune.jpg") == "CC-BY-4.0"
    )  # another folder than in the source
    assert licences.of("src/activities/x/y/z.png") == "CC0-1.0"
    assert licences.of("other.jpg") == "GPL-2+"
    assert debian_licences("Upstream: nobody's format", "none").of("a") == "none"


def test_licences_of_a_readme() -> None:
    text = "Copyright: A\nSource: b\nLicense: CC-BY-SA 4.0\nFiles:\na.webp\nb/c.svg\n\nLicense: GPLv2+\nFiles: d.webp\n"
    licences = readme_licences(text, "none")
    assert [licences.of(name) for name in ("x/a.webp", "c.svg", "d.webp", "e.webp")] == [
        *("CC-BY-SA-4.0", "CC-BY-SA-4.0", "GPL-2+", "none"),
    ]
