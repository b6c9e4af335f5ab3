"""Cut-outs and coins out of Tux Paint's stamps: a PNG with alpha and a text beside it, first line its English caption.

A stamp is taken where its caption says in plain words what it is ("A zebra."). The tables below were made by looking
at all 796: what is drawn and not photographed goes, and some good pictures get a caption of our own.
"""

import io
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from PIL import Image, UnidentifiedImageError

from onethinker_jax.data_pipeline.photos.library import LibraryError
from onethinker_jax.data_pipeline.photos.library_writer import LibraryWriter, Origin
from onethinker_jax.data_pipeline.photos.packages.identities import concept, plain
from onethinker_jax.data_pipeline.photos.packages.licences import Licences

ROOT = "usr/share/tuxpaint/stamps/"
WANTED = rf"{ROOT}.*\.(png|svg|txt)"

_COINS = re.compile(r"symbols/money/(us|canadian|euro|japanese)/")
_COIN_NAMES = {"us": "US", "canadian": "Canadian", "euro": "euro", "japanese": "Japanese"}

_LEFT_OUT = {
    "a sign, letter or symbol": r"symbols/|town/flags/|town/roadsigns/(?!.*(give_way|stop\.|no_entry|cone|school_s))",
    "a drawing": (
        r".*/cartoon/|clothes/(?!clothespin)|animals/insects/(bee|fly)\.|animals/mammals/(hedgehog|echidna)\."
        r"|food/pizza|medical/tooth|seasonal/(halloween/(?!grave)|hanukkah|newyears|easter)|town/.*outline"
        r"|seasonal/christmas/(lamp|santahat|star|stocking|tree|bow|Santa|candy_cane|hard_candy|xmas_tp)"
        r"|people/body_parts|animals/fish/shrimp|animals/mammals/aquatic/whale|sports/rugby_goal"
    ),
    "the mirror image of another": r".*_mirror\.",
    "a weapon or its work": r"military/(ammunition|vehicles|final)|naturalforces/explosion",
    "a second picture of a gravestone": r"seasonal/halloween/grave-[bdeghij]\.",
    "a flower that nobody names": r"plants/flowers/(flower[1-9]\.|yellow-flower|plastic/)",
    "several things, or hard to tell": (
        r"animals/mammals/wildboar|animals/mammals/apes/tamarin|plants/trees/rambutan|vehicles/emergency/sedan_police|plants/trees/holly_leaves"
        r"|space/moon/moon_crescent|space/planets/(0_sun|1_mercury)|military/fireman240a|plants/mushrooms/cep-2"
        r"|seasonal/christmas/Candy_cane_photo_2|seasonal/christmas/German"
    ),
}

_OWN = {
    "animals/birds/heron_greatblue_flying": "flying great blue heron",
    "animals/fish/bluegroper": "blue groper",
    "animals/fish/lionfish": "lionfish",
    "animals/fish/lobster": "spiny lobster",
    "animals/fish/stripedfish": "stripey fish",
    "animals/insects/hoverfly": "hoverfly",
    "animals/insects/xanthia": "moth",
    "animals/mammals/bears/toys/edward_bear": "teddy bear",
    "animals/mammals/bovines/cow_white": "white cow",
    "animals/mammals/bovines/gnu-baby": "baby gnu",
    "animals/mammals/bovines/gnu-baby-stand": "standing baby gnu",
    "animals/mammals/bovines/mountaingoat": "mountain goat",
    "animals/mammals/bovines/sheep_lamb": "lamb",
    "animals/mammals/hippopotamus": "hippopotamus",
    "animals/shellfish/murray-mussel": "mussel",
    "food/fruit/cherimoya": "cherimoya",
    "food/fruit/avocado": "avocado",
    "food/fruit/orange_seville": "Seville orange",
    "food/nuts/walnut_shelled": "walnut in its shell",
    "food/spices/ginger": "ginger root",
    "food/vegetables/broccoli": "head of broccoli",
    "food/vegetables/corn": "ear of corn",
    "food/vegetables/pumpkin_small": "pumpkin",
    "food/vegetables/tomato": "tomato",
    "household/dishes/pitcher_small": "pitcher",
    "household/tools/measuring_tape": "measuring tape",
    "household/toilet": "toilet",
    "household/wheelie_bin": "wheelie bin",
    "medical/stethoscope": "stethoscope",
    "naturalforces/fire": "fire",
    "people/toys/grannysmith": "rag doll",
    "plants/eggplant": "eggplant plant",
    "plants/flowers/adeenia": "desert rose",
    "plants/flowers/anemone_red": "anemone flower",
    "plants/flowers/anthoorium": "anthurium",
    "plants/flowers/bolsom": "balsam",
    "plants/flowers/chemparathi": "hibiscus",
    "plants/lavender": "lavender plant",
    "seasonal/christmas/Candy_cane_photo_1": "candy cane",
    "seasonal/christmas/Christmas_pudding": "Christmas pudding",
    "seasonal/christmas/Mince_Pie": "mince pie",
    "seasonal/christmas/Roast_turkey": "roast turkey",
    "space/moon/moon_3qt": "half moon",
    "space/moon/moon_full": "full moon",
    "space/planets/2_venus": "Venus",
    "space/planets/3_earth": "Earth",
    "space/planets/4_mars": "Mars",
    "space/planets/5_jupiter": "Jupiter",
    "space/planets/6_saturn": "Saturn",
    "space/planets/7_uranus": "Uranus",
    "space/planets/8_neptune": "Neptune",
    "space/planets/9_pluto": "Pluto",
    "space/apollo_lander": "lunar lander",
    "space/spacewalk": "astronaut",
    "space/voyager2": "space probe",
    "sports/australian_rules_football": "Australian football",
    "sports/football": "American football",
    "town/monuments/inukshuk-photo": "inukshuk",
    "town/roadsigns/give_way_sign": "give way sign",
    "town/roadsigns/no_entry_sign": "no entry sign",
    "town/roadsigns/school_sign": "school sign",
    "town/roadsigns/stop": "stop sign",
    "town/uk_post_box": "post box",
    "vehicles/7spoke256": "car wheel",
    "vehicles/construction/dumper": "dumper",
}
"""Names of good pictures whose caption is no plain one."""

_PLAIN = re.compile(r"(?:An?|The) ((?:[\w'\"-]+ ?(?:of )?){1,4})[.!]?", re.UNICODE)


def read_stamps(files: Iterable[tuple[str, bytes]], writer: LibraryWriter, licences: Licences) -> None:
    """Fills `writer` with the stamps among a package's files.

    Raises LibraryError naming a picture that cannot be opened.
    """
    texts: dict[str, bytes] = {}
    pictures: list[tuple[str, bytes]] = []
    for path, content in files:
        name = path.removeprefix(ROOT)
        if name.endswith(".txt"):
            texts[name.removesuffix(".txt")] = content
        elif name.endswith(".svg"):
            writer.leave_out("a drawing (SVG)")
        else:
            pictures.append((name, content))
    for name, content in sorted(pictures):
        stem = name.removesuffix(".png")
        caption = texts.get(stem, b"").decode("utf-8", "replace").split("\n")[0].strip()
        _read(name, content, caption, writer, licences.of(ROOT + name))


def _read(name: str, content: bytes, caption: str, writer: LibraryWriter, licence: str) -> None:
    coin = _COINS.match(name)
    reason = None if coin else why_left_out(name)
    if reason:
        writer.leave_out(reason)
        return
    try:
        picture = Image.open(io.BytesIO(content)).convert("RGBA")
    except (UnidentifiedImageError, OSError) as error:
        raise LibraryError(f"{writer.place}: {name} cannot be opened: {error}") from error
    if coin:
        value, unit, called = coin_of(caption, _COIN_NAMES[coin[1]], name)
        origin = Origin(f"{coin[1]} coin of {value} {unit}", writer.place, licence)
        writer.coin(picture, origin, name=called, value=value, unit=unit)
        return
    said = _OWN.get(name.removesuffix(".png")) or plain_name(caption)
    if said is None:
        writer.leave_out("its caption does not say in plain words what it is")
        return
    group = PurePosixPath(name).parts[0]
    origin = Origin(concept(said), writer.place, licence)
    writer.cutout(picture, origin, name=said, caption=caption_of(said), group=group)


def why_left_out(name: str) -> str | None:
    """The reason that the tables above give for leaving a stamp out."""
    return next((reason for reason, pattern in _LEFT_OUT.items() if re.match(pattern, name)), None)


def plain_name(caption: str) -> str | None:
    """The noun of a caption such as "A zebra." or "An “electric” guitar!"; None for any other."""
    first = re.split(r"(?<=[.!]) ", re.sub(r"\s*\(.*?\)", "", caption))[0]
    found = _PLAIN.fullmatch(plain(first).replace('"', ""))
    return found[1].strip() if found else None


def caption_of(name: str) -> str:
    """A sentence that shows the name: "A zebra.", "An owl.", "Venus."."""
    first = name.split()[0]
    if first[0].isupper() and " " not in name:
        return f"{name}."
    return f"{'An' if first[0].lower() in 'aeio' else 'A'} {name}."


def coin_of(caption: str, country: str, name: str) -> tuple[int, str, str]:
    """Value, unit and name of a coin whose caption names a number, `.25` or `1.00` of dollars or euros included.

    Raises LibraryError naming the file where it names none.
    """
    if country == "Japanese":
        if yen := re.match(r"(\d+) Japanese yen", caption):
            return int(yen[1]), "yen", f"{yen[1]} yen coin"
    elif amount := re.search(r"\(\$?(\d*\.?\d+)(?: €)?\)", caption):
        cents = round(100 * float(amount[1]))
        said = (
            f"{cents} cent" if cents < 100 else f"{cents // 100} {'euro' if country == 'euro' else 'dollar'}"
        )
        return cents, "cents", f"{said} coin" if country == "euro" else f"{country} {said} coin"
    raise LibraryError(f"{name}: its caption names no value: {caption!r}")
