"""Photographs out of GCompris: named animals, monuments with a paragraph each, things in groups, and seascapes.

They lie in Qt resource files, one an activity, as WebP. Titles and paragraphs stand in QML files beside them, licences
in `README` files. What the tables below say of names and of the ground was seen by looking at all photographs.
"""

import io
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from PIL import Image, UnidentifiedImageError

from onethinker_jax.data_pipeline.photos.library import LibraryError
from onethinker_jax.data_pipeline.photos.library_writer import LibraryWriter, Origin
from onethinker_jax.data_pipeline.photos.packages.identities import concept, proper, words_of
from onethinker_jax.data_pipeline.photos.packages.licences import Licences, readme_licences
from onethinker_jax.data_pipeline.photos.packages.rcc import rcc_files

ACTIVITIES = (
    "categorization",
    "clickgame",
    "details",
    "erase",
    "explore_farm_animals",
    "explore_monuments",
    "explore_world_animals",
)
WANTED = rf"usr/share/gcompris-qt/rcc/({'|'.join(ACTIVITIES)})\.rcc"

_GROUPS = {
    "erase": "animals",
    "explore_farm_animals": "animals",
    "explore_world_animals": "animals",
    "explore_monuments": "monuments",
    "details": "monuments",
    "clickgame": "seascapes",
}
_CATEGORIES = {
    "fishes": "animals",
    "monuments": "monuments",
    "others": "household",
    "renewable": "energy",
    "tools": "tools",
}
"""Groups by activity, and by folder of the activity `categorization`."""

_GROUND = {"monuments": 0.8, "seascapes": 0.5}
"""Where objects may stand on a photograph of a group: nowhere in the close-ups of the other groups."""

_GROUNDS = {
    "windmill": 0.85,
    "igloo": 0.75,
    **dict.fromkeys(
        (
            *("Ajanta Caves", "Bayterek", "Burj Khalifa", "Canyon de Chelly", "Castillo de San Marcos"),
            *("Cathedral of Santiago de Compostela", "Christ the Redeemer", "Egeskov Castle", "Eiffel Tower"),
            *(
                "Empire State Building",
                "Gateway of India",
                "Golden Temple",
                "Great Wall of China",
                "Hawa Mahal",
            ),
            *("Juche Tower", "Leaning Tower of Pisa", "Machu Picchu", "Mount Rushmore", "Navajo", "Cabrillo"),
            *(
                "Neuschwanstein Castle",
                "Notre-Dame de Paris",
                "Pont du Gard",
                "Qutub Minar",
                "Reims Cathedral",
            ),
            *(
                "Rocamadour",
                "Statue of Liberty",
                "The Great Wall of China",
                "Tower Bridge",
                "Schwerin Palace",
            ),
            *(
                "Château de Chenonceau",
                "Victoria Memorial in London",
                "Sydney Opera House",
                "Eilean Donan Castle",
            ),
        ),
        1.0,
    ),
}
"""Grounds by name where its group says it wrong: towers and cliffs fill some photographs, water others."""

_NAMES = {
    "details/Chenonceau": "Château de Chenonceau",
    "details/EgeskovSlotSpejling": "Egeskov Castle",
    "details/EilanDonanCastle": "Eilean Donan Castle",
    "details/FanoeWindmill": "windmill",
    "details/GizahPyramids": "Pyramids of Giza",
    "details/Louvre_2007_02_24_c": "Louvre",
    "details/NDP": "Notre-Dame de Paris",
    "details/Nagoya": "Nagoya Castle",
    "details/Neuschwanstein": "Neuschwanstein Castle",
    "details/OperaSidney": "Sydney Opera House",
    "details/TajMahal": "Taj Mahal",
    "details/TourEiffel": "Eiffel Tower",
    "details/TowerBridgeLondon": "Tower Bridge",
    "erase/camels": "camel",
    "erase/chamaeleon": "chameleon",
    "erase/long_nosed_monkey": "proboscis monkey",
    "erase/meerkats": "meerkat",
    "erase/nubian_ibex": "Nubian ibex",
    "erase/spoonbills": "spoonbill",
    "erase/swans": "swan",
    "explore_world_animals/dragon": "Komodo dragon",
    "monuments/IndiaGate": "India Gate",
    "monuments/arcDeTriomphe": "Arc de Triomphe du Carrousel",
    "monuments/bayterek": "Bayterek",
    "monuments/brandenburgGate": "Brandenburg Gate",
    "monuments/burj": "Burj Khalifa",
    "monuments/cathedral": "Cathedral of Santiago de Compostela",
    "monuments/christTheRedeemer": "Christ the Redeemer",
    "monuments/colosseum": "Colosseum",
    "monuments/eiffelTower": "Eiffel Tower",
    "monuments/empireState": "Empire State Building",
    "monuments/greatPyramid": "Great Pyramid of Giza",
    "monuments/greatWall": "Great Wall of China",
    "monuments/jucheTower": "Juche Tower",
    "monuments/kutubMinar": "Qutub Minar",
    "monuments/leMusee": "Louvre",
    "monuments/leaningTowerOfPisa": "Leaning Tower of Pisa",
    "monuments/monument1": "Dome of the Rock",
    "monuments/monument2": "Tetrapylon of Aphrodisias",
    "monuments/monument3": "Church of St. Francis of Assisi in Vienna",
    "monuments/mountRushmore": "Mount Rushmore",
    "monuments/operaHouse": "Sydney Opera House",
    "monuments/parthenon": "Parthenon",
    "monuments/statueOfLiberty": "Statue of Liberty",
    "monuments/tajMahal": "Taj Mahal",
    "monuments/usCapitol": "United States Capitol",
    "monuments/victoriaMemorial": "Victoria Memorial in London",
    "monuments/zimniPalace": "Winter Palace",
    "others/blackslate": "blackboard",
    "others/buffetset": "cup and saucer",
    "others/bulb": "light bulb",
    "others/cup": "cup and saucer",
    "others/erasers": "eraser",
    "others/knife": "set of cutlery",
    "others/spoons": "set of spoons",
    "others/pan": "frying pan",
    "others/weighingMachine": "weighing machine",
    "renewable/dam": "dam",
    "renewable/geothermal": "geothermal spring",
    "renewable/solar": "solar panel",
    "renewable/solar1": "solar cooker",
    "renewable/solar2": "solar cooker",
    "renewable/solar3": "solar cooker",
    "renewable/windmill6": "wind turbine",
    "tools/cuttingTool": "wire cutter",
    "tools/plier": "pair of pliers",
    "tools/scissors": "pair of scissors",
    "tools/screwDriver": "screwdriver",
    "tools/screwDriver3": "torque screwdriver",
    "tools/sideCutter": "wire cutter",
    "tools/spray": "spray bottle",
    "tools/tweezer": "pair of tweezers",
    "tools/nailCutter": "nail clipper",
    "fishes/fish": "fish",
}
"""Names by activity or folder and stem, with its number or without."""

_INDIVIDUALS = {"dam", "fish", "multimeter", "solar panel", "windmill"}
"""Names of many photographs that show different ones and of no cut-out: each is an identity of its own."""

_SAME = {"Pyramids of Giza": "great pyramid of giza"}

_PAINTINGS = re.compile(r"details/.*(Gogh|Eglise|PereTanguy)")
_PARTS = re.compile(r"details/.*_\d+\.webp")
_DRAWINGS = re.compile(r"categorization/.*/(alphabets|numbers|others/baseball)")
_FISHES_IN_FRAMES = re.compile(r"clickgame/(?!.*sea\d)")

_ENTRY = re.compile(
    r'"title":\s*qsTr\("((?:[^"\\]|\\.)*)"\).*?"text":\s*qsTr\("((?:[^"\\]|\\.)*)"\).*?"image2":\s*"([^"]*)"',
    re.DOTALL,
)


def read_gcompris(files: Iterable[tuple[str, bytes]], writer: LibraryWriter, licences: Licences) -> None:
    """Fills `writer` with the photographs of the activities among a package's files.

    Raises LibraryError naming a resource file or a picture that cannot be read.
    """
    for path, content in sorted(files):
        activity = PurePosixPath(path).stem
        parts = {
            inner: data
            for inner, data in rcc_files(content, name=f"{writer.place}: {path}")
            if inner.endswith((".webp", ".qml", "README"))
        }
        published = {
            entry[2].removeprefix("qrc:/"): (entry[0], entry[1])
            for inner, data in parts.items()
            if inner.endswith(".qml")
            for entry in _ENTRY.findall(data.decode())
        }
        readmes = {
            str(PurePosixPath(inner).parent): readme_licences(data.decode(), licences.default)
            for inner, data in parts.items()
            if inner.endswith("README")
        }
        for inner in sorted(parts):
            if inner.endswith(".webp"):
                licence = _licence(inner, readmes, licences)
                _read(f"{activity}/{inner}", parts[inner], published.get(inner), licence, writer)


def _licence(inner: str, readmes: dict[str, Licences], licences: Licences) -> str:
    """That of the nearest README which names the file; else what the package says of all its files."""
    for folder in PurePosixPath(inner).parents:
        readme = readmes.get(str(folder))
        if readme:
            found = readme.of(str(PurePosixPath(inner).relative_to(folder)))
            if found != readme.default:
                return found
    return licences.of(inner.removeprefix("gcompris/"))


def _read(
    name: str, content: bytes, published: tuple[str, str] | None, licence: str, writer: LibraryWriter
) -> None:
    for reason, pattern in {
        "a painting": _PAINTINGS,
        "a piece of a photograph": _PARTS,
        "a drawing, or letters": _DRAWINGS,
        "a fish of several frames": _FISHES_IN_FRAMES,
    }.items():
        if pattern.match(name):
            writer.leave_out(reason)
            return
    try:
        picture = Image.open(io.BytesIO(content)).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise LibraryError(f"{writer.place}: {name} cannot be opened: {error}") from error
    path = PurePosixPath(name)
    activity, folder, stem = path.parts[0], path.parts[-2], path.stem.removesuffix("_background")
    group = _CATEGORIES.get(folder) if activity == "categorization" else _GROUPS[activity]
    called = _name(folder if activity == "categorization" else activity, stem, published)
    writer.photo(
        picture,
        Origin(_identity(called, stem, group), writer.place, licence),
        name=called or None,
        group=group,
        text=published[1].replace('\\"', '"') if published else None,
        ground=_GROUNDS.get(called, _GROUND.get(group or "", 1.0)),
    )


def _name(place: str, stem: str, published: tuple[str, str] | None) -> str:
    if place == "clickgame":
        return ""
    for key in (f"{place}/{stem}", f"{place}/{re.sub(r'[0-9]+$', '', stem)}"):
        if key in _NAMES:
            return _NAMES[key]
    if published and place == "explore_monuments":
        return re.sub(r"^The |,.*", "", published[0])
    return words_of(stem)


def _identity(called: str, stem: str, group: str | None) -> str:
    if not called or called in _INDIVIDUALS:
        return f"{called or group} {stem}"
    if group == "monuments":
        return _SAME.get(called, proper(called))
    return concept(called)
