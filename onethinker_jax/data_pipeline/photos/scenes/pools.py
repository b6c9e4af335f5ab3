"""The items of one split of a library, by what scenes need of them."""

import itertools
import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from onethinker_jax.data_pipeline.photos.library import (
    Clip,
    Coin,
    Cutout,
    Digit,
    Font,
    Item,
    Library,
    Map,
    Photo,
    Split,
)
from onethinker_jax.data_pipeline.photos.scenes.words import words_of
from onethinker_jax.data_pipeline.worlds.english import with_article

LEAST_NAMES = 6
"""Names of cut-outs that scenes of objects need: those shown and those that are wrong options."""
LEAST_VIEWS = 4
"""Named photographs, or photographs and clips together, that are told apart."""
_STANDS_BELOW = 0.9  # of the height: a photograph whose ground begins lower has no room for objects
_ARTICLES = ("a ", "an ", "some ", "the ")


@dataclass(frozen=True)
class Pools:
    """What scenes of one split are made of: items of that split alone, and words of it."""

    library: Library
    split: Split

    def _own(self, items: Iterable) -> tuple:
        return tuple(item for item in items if item.split == self.split)

    @cached_property
    def cutouts(self) -> dict[str, tuple[Cutout, ...]]:
        """The pictures of each name."""
        named: dict[str, list[Cutout]] = {}
        for item in self._own(self.library.cutouts):
            named.setdefault(item.name, []).append(item)
        return {name: tuple(items) for name, items in named.items()}

    @cached_property
    def backdrops(self) -> tuple[Photo, ...]:
        """All photographs."""
        return self._own(self.library.photos)

    @cached_property
    def grounds(self) -> tuple[Photo, ...]:
        """Photographs in which objects can stand."""
        return tuple(photo for photo in self.backdrops if photo.ground < _STANDS_BELOW)

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        """All clips."""
        return self._own(self.library.clips)

    @cached_property
    def views(self) -> dict[str, tuple[Photo, ...]]:
        """The photographs of each name, where that is known."""
        named: dict[str, list[Photo]] = {}
        for photo in self.backdrops:
            if photo.name:
                named.setdefault(photo.name, []).append(photo)
        return {name: tuple(photos) for name, photos in named.items()}

    @cached_property
    def films(self) -> dict[str, tuple[Clip, ...]]:
        """The clips of each name."""
        named: dict[str, list[Clip]] = {}
        for clip in self.clips:
            named.setdefault(clip.name, []).append(clip)
        return {name: tuple(clips) for name, clips in named.items()}

    @cached_property
    def maps(self) -> tuple[Map, ...]:
        """All maps."""
        return self._own(self.library.maps)

    @cached_property
    def coins(self) -> dict[tuple[str, str], tuple[Coin, ...]]:
        """The coins of each unit and currency: what stands in their names before the number ("US")."""
        kinds: dict[tuple[str, str], list[Coin]] = {}
        for coin in self._own(self.library.coins):
            currency = "".join(itertools.takewhile(lambda c: not c.isdigit(), coin.name)).strip()
            kinds.setdefault((coin.unit, currency), []).append(coin)
        return {kind: tuple(items) for kind, items in kinds.items()}

    @cached_property
    def digits(self) -> tuple[Digit, ...]:
        """All handwritten digits."""
        return self._own(self.library.digits)

    @cached_property
    def fonts(self) -> tuple[Font | None, ...]:
        """All fonts; Pillow's own, None, where there are none."""
        return self._own(self.library.fonts) or (None,)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words of the split."""
        return words_of(self.split)

    def path(self, item: Item) -> Path:
        """Where an item's file lies."""
        return self.library.folder / item.path

    @cached_property
    def lacks(self) -> dict[str, str]:
        """Kind of scene -> what there is too little of for it; none of a kind that can be made."""
        names, grounds, views = len(self.cutouts), len(self.grounds), len(self.views)
        shown = len({*self.views, *self.films})
        needs: dict[str, Iterable[tuple[bool, str]]] = {
            "objects": (
                (names >= LEAST_NAMES, f"{names} names of cut-outs of {LEAST_NAMES}"),
                (grounds >= 1, "no photograph with ground"),
            ),
            "view": ((views >= LEAST_VIEWS, f"{views} named photographs of {LEAST_VIEWS}"),),
            "shots": ((shown >= LEAST_VIEWS, f"{shown} names of photographs and clips of {LEAST_VIEWS}"),),
            "map": ((bool(self.maps), "no map"),),
            "digits": ((len(self.digits) >= 10, f"{len(self.digits)} digits of 10"),),
            "coins": ((bool(self.coins), "no coin"),),
            "words": ((bool(self.backdrops), "no photograph"),),
        }
        needs["herd"] = needs["objects"]
        missing = {
            kind: [said for there, said in conditions if not there] for kind, conditions in needs.items()
        }
        return {kind: ", ".join(said) for kind, said in missing.items() if said}

    def draw_cutouts(self, rng: random.Random, count: int, avoid: set[str]) -> list[Cutout]:
        """`count` cut-outs, fewer where there are not as many, no two of which could be taken for one another.

        None has a word of `avoid` (see `words_in`) in its name.
        """
        found: list[Cutout] = []
        taken = set(avoid)
        for name in rng.sample(sorted(self.cutouts), len(self.cutouts)):
            if len(found) == count:
                break
            item = rng.choice(self.cutouts[name])
            if not words_of_item(item) & taken:
                found.append(item)
                taken |= words_of_item(item)
        return found

    def other_names(self, rng: random.Random, near: Iterable[Cutout], avoid: set[str]) -> list[str]:
        """Names of objects that are not there, those of the groups of `near` first."""
        groups = {item.group for item in near}
        taken = avoid.union(*(words_of_item(item) for item in near))
        names = [name for name in sorted(self.cutouts) if not words_of_item(self.cutouts[name][0]) & taken]
        rng.shuffle(names)
        return sorted(names, key=lambda name: self.cutouts[name][0].group not in groups)


@lru_cache(maxsize=4096)
def words_in(text: str | None) -> frozenset[str]:
    """The words of a name by which it could be taken for another: small, singular, without the shortest."""
    words = "".join(c if c.isalpha() else " " for c in (text or "").lower()).split()
    kept = (word for word in words if len(word) > 2 and word not in ("the", "with", "and"))
    return frozenset(word.removesuffix("s") for word in kept)


def words_of_item(item: Item) -> frozenset[str]:
    """The words of an item's name and identity."""
    return words_in(item.identity) | words_in(getattr(item, "name", None))


def told_apart(one: str, other: str) -> bool:
    """Whether two names of whole pictures cannot both be right: "Taj Mahal" and "Taj Mahal, India" can."""
    a, b = words_in(one), words_in(other)
    return not (a <= b or b <= a)


def phrase_of(item: Cutout) -> str:
    """The name after its article, as the caption has it where it is of that plain form: "a zebra", "some grapes"."""
    said = item.caption.rstrip(". ")
    said = said[:1].lower() + said[1:]
    if said.lower() in (article + item.name.lower() for article in _ARTICLES):
        return said
    return item.name if said.lower() == item.name.lower() else with_article(item.name)


def phrase_of_coin(coin: Coin) -> str:
    """The coin's name after its article."""
    return with_article(coin.name)


def phrase_of_view(name: str) -> str:
    """What a photograph shows, after its article where it has one: "an owl", "scissors", "Petra"."""
    bare = not name[0].islower() or (name.endswith("s") and not name.endswith("ss"))
    return name if bare else with_article(name)
