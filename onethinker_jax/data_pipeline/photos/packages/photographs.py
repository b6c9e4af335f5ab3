"""Photographs out of packages that hold other pictures too: the ones of use, chosen by looking at all of them.

Left aside are calibration boards, drawings, paintings, plots, text, and press photographs of people.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from onethinker_jax.data_pipeline.photos.library import LibraryError
from onethinker_jax.data_pipeline.photos.library_writer import LibraryWriter, Origin
from onethinker_jax.data_pipeline.photos.packages.identities import concept
from onethinker_jax.data_pipeline.photos.packages.licences import Licences


@dataclass(frozen=True)
class Seen:
    """What was seen on a photograph; `scene` is its identity where it has no name."""

    ground: float
    name: str | None = None
    scene: str | None = None
    group: str | None = None


_ANYWHERE, _NOWHERE = 0.0, 1.0

OPENCV_EXAMPLES = {
    "alphamat/input_images/plant.jpg": Seen(_NOWHERE, "potted plant"),
    "data/aero1.jpg": Seen(_NOWHERE, scene="a town from the air"),
    "data/aloeL.jpg": Seen(_NOWHERE, "aloe plant"),
    "data/baboon.jpg": Seen(_NOWHERE, "mandrill", group="animals"),
    "data/building.jpg": Seen(0.85, scene="an office building"),
    "data/butterfly.jpg": Seen(_NOWHERE, "butterfly", group="animals"),
    "data/chicky_512.png": Seen(_NOWHERE, "dog", group="animals"),
    "data/fruits.jpg": Seen(_NOWHERE, scene="cut fruits"),
    "data/graf1.png": Seen(_NOWHERE, scene="a painted wall"),
    "data/home.jpg": Seen(_NOWHERE, scene="a tower with birds"),
    "data/left.jpg": Seen(0.65, scene="books on a floor"),
    "data/leuvenA.jpg": Seen(0.7, scene="an old street"),
    "data/leuvenB.jpg": Seen(0.7, scene="an old street"),
    "data/stuff.jpg": Seen(_ANYWHERE, scene="a desk from above"),
    "hfs/data/000.jpg": Seen(_NOWHERE, "robin", group="animals"),
    "hfs/data/001.jpg": Seen(0.55, "lake"),
    "hfs/data/002.jpg": Seen(0.75, scene="a tree on a meadow"),
    "text/scenetext01.jpg": Seen(0.85, scene="a parking sign in a street"),
    "text/scenetext04.jpg": Seen(0.85, scene="a yard with a generator"),
    "text/scenetext05.jpg": Seen(0.4, scene="a barrier on a pavement"),
    "text/scenetext06.jpg": Seen(0.85, scene="a shop at a corner"),
}
OPENCV = {f"usr/share/doc/opencv-doc/examples/{path}": seen for path, seen in OPENCV_EXAMPLES.items()}

MATE = {
    f"usr/share/backgrounds/mate/nature/{path}.jpg": seen
    for path, seen in {
        "Aqua": Seen(_NOWHERE, "drop of water"),
        "Blinds": Seen(_ANYWHERE, scene="a striped leaf"),
        "Dune": Seen(0.5, scene="a dune"),
        "FreshFlower": Seen(_NOWHERE, scene="a red flower"),
        "Garden": Seen(_NOWHERE, "marigold"),
        "GreenMeadow": Seen(0.3, scene="long grass"),
        "LadyBird": Seen(_NOWHERE, "ladybird", group="animals"),
        "RainDrops": Seen(_ANYWHERE, scene="leaves with drops"),
        "Storm": Seen(0.75, scene="a road under a storm"),
        "Wood": Seen(_ANYWHERE, scene="pale wood"),
        "YellowFlower": Seen(_NOWHERE, scene="a yellow flower"),
    }.items()
}

LOMIRI = {
    f"usr/share/backgrounds/{path}.jpg": seen
    for path, seen in {
        "Bridge_by_Sander_Klootwijk": Seen(0.85, scene="a beach behind cables"),
        "Dragonfly_by_Bolly": Seen(_NOWHERE, scene="a bush with a dragonfly"),
        "Picture_0B_by_freespace": Seen(_NOWHERE, "fig"),
        "Picture_1A_by_freespace": Seen(_NOWHERE, "paintbrush"),
        "Wine_by_Jakkub_Mede": Seen(0.85, scene="a room with wine and a drum"),
        "aitzgorri_by_Aitzol_Berasategi": Seen(0.65, scene="a meadow below mountains"),
        "friends_by_Aitzol_Berasategi": Seen(_NOWHERE, "dog", group="animals"),
        "greentock_by_Peter_Nerlich": Seen(_NOWHERE, "clock"),
        "life_by_Aitzol_Berasategi": Seen(0.6, scene="a stream in a wood"),
        "picosdeeuropa_by_Aitzol_Berasategi": Seen(0.65, scene="a path below rocks"),
        "seeding_by_Clements_Engelhardt": Seen(_NOWHERE, "dandelion"),
        "sunset_by_Aitzol_Berasategi": Seen(0.7, scene="hills at sunset"),
    }.items()
}

SCIKIT_IMAGE = {
    f"skimage/data/{path}": seen
    for path, seen in {
        "astronaut.png": Seen(_NOWHERE, "astronaut"),
        "brick.png": Seen(_ANYWHERE, scene="bricks"),
        "camera.png": Seen(0.75, scene="a photographer on a lawn"),
        "chelsea.png": Seen(_NOWHERE, "cat", group="animals"),
        "coffee.png": Seen(_NOWHERE, "cup of coffee"),
        "grass.png": Seen(_ANYWHERE, scene="grass from above"),
        "gravel.png": Seen(_ANYWHERE, scene="gravel"),
        "motorcycle_left.png": Seen(0.85, "motorcycle"),
        "rocket.jpg": Seen(0.85, "rocket"),
    }.items()
}


def read_photographs(
    files: Iterable[tuple[str, bytes]],
    writer: LibraryWriter,
    licences: Licences,
    table: dict[str, Seen],
) -> None:
    """Fills `writer` with the photographs of a table among a package's files.

    Raises LibraryError naming a picture that cannot be opened.
    """
    for path, content in sorted(files):
        seen = table.get(path)
        if seen is None:
            writer.leave_out("a picture that is no photograph of use")
            continue
        try:
            picture = Image.open(io.BytesIO(content))
            picture.load()
        except (UnidentifiedImageError, OSError) as error:
            raise LibraryError(f"{writer.place}: {path} cannot be opened: {error}") from error
        identity = concept(seen.name) if seen.name else str(seen.scene)
        origin = Origin(identity, writer.place, licences.of(path))
        writer.photo(picture, origin, name=seen.name, group=seen.group, ground=seen.ground)
