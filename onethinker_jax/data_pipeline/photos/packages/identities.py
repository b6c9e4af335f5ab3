"""What a thing is called, and what it is: names that mean one kind of thing share an identity.

The identity decides the split, so a name counts as the more general one: "red apple" and "apple" are apples, and a hen
is a chicken. Two cut-outs of one identity may both answer to one name; two of different identities do not.
"""

import re
import unicodedata

_SAME = {
    "anemone flower": "anemone",
    "albino peahen": "peafowl",
    "aloe plant": "aloe",
    "bull": "cow",
    "calf": "cow",
    "caribou": "deer",
    "cep": "mushroom",
    "chamaeleon": "chameleon",
    "chick": "chicken",
    "christmas tree": "christmas tree",
    "cup and saucer": "cup",
    "cup of coffee": "cup",
    "cutlery": "spoon",
    "desert rose": "desert rose",
    "dingo": "dog",
    "doe": "deer",
    "drake": "duck",
    "dromedary": "camel",
    "drop of water": "drop of water",
    "drum kit": "drum",
    "eggplant plant": "eggplant",
    "flying fox": "flying fox",
    "gander": "goose",
    "garbage can": "bin",
    "garlic bulb": "garlic",
    "ginger root": "ginger",
    "gosling": "goose",
    "grave marker": "gravestone",
    "hen": "chicken",
    "hibiscus flower": "hibiscus",
    "highlighting pen": "pen",
    "dry erase marker": "pen",
    "ibex": "goat",
    "kitten": "cat",
    "kiwifruit": "kiwi",
    "lamb": "sheep",
    "lavender plant": "lavender",
    "light bulb": "lightbulb",
    "lorikeet": "parrot",
    "macaque": "monkey",
    "macaw": "parrot",
    "mailbox": "post box",
    "mallet": "hammer",
    "measuring tape": "measuring tape",
    "monument stone": "gravestone",
    "narwhal": "whale",
    "peacock": "peafowl",
    "pigface flower": "pigface",
    "pili nut tree": "pili nut tree",
    "post box": "post box",
    "potted plant": "potted plant",
    "ram": "sheep",
    "red panda": "red panda",
    "rhino": "rhinoceros",
    "roast turkey": "roast turkey",
    "rooster": "chicken",
    "rosella": "parrot",
    "rubber duck": "rubber duck",
    "sailboat": "ship",
    "sea lion": "sea lion",
    "seagull": "gull",
    "sedan": "car",
    "silver garbage can": "bin",
    "tamarin": "monkey",
    "thyme plant": "thyme",
    "trophy cup": "trophy",
    "vw beetle": "car",
    "wapiti": "deer",
    "wild boar": "pig",
    "zebu": "cow",
}
"""Identities of whole names, and of last words."""

_LEADING = re.compile(r"^(pair|set|bunch|head|string|quarter|ear) of ", re.IGNORECASE)
_SINGULAR = {"binoculars", "mars", "pliers", "scissors", "tweezers"}


def concept(name: str) -> str:
    """The identity of a thing that a common noun names: its last word, in the singular, without its synonyms."""
    whole = re.sub(r"[\s_]+", " ", _LEADING.sub("", plain(name))).lower()
    last = whole.split()[-1]
    if last not in _SINGULAR and re.search(r"[^suio]s$", last):  # not the hibiscus, iris, rhinoceros or grass
        last = (
            re.sub(r"(?<=[a-z])ies$", "y", last)
            if last.endswith("ies")
            else re.sub(r"(?<=sh|ch)es$|s$", "", last)
        )
    return _SAME.get(whole, _SAME.get(" ".join(whole.split()[-2:]), _SAME.get(last, last)))


def proper(name: str) -> str:
    """The identity of a proper name: in lower case, without a leading article, accents and what follows a comma."""
    return re.sub(r"^the |,.*", "", plain(name).lower())


def plain(text: str) -> str:
    """The text without accents and typographic quotes."""
    text = text.translate(str.maketrans("’‘“”", "''\"\""))
    return "".join(
        letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter)
    )


def words_of(stem: str) -> str:
    """A file's stem as words: `polar_bear` and `polarBear2` are both "polar bear"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", stem)
    return re.sub(r"[\s_-]+", " ", re.sub(r"\d+$", "", spaced)).strip().lower()
