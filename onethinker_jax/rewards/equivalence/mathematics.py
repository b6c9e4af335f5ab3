"""Whether two mathematical answers mean the same: the paper variant's rules.

Both are brought to one way of writing (`written_text`), taken apart into what they are (sets, tuples, intervals,
lists, relations, named values, quantities) and compared part by part. Numbers are exact; only an expression that
has to be computed goes to the caller's `same`, a worker process. docs/rewards.md lists what counts as equal.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from onethinker_jax.rewards.equivalence.latex import computable, latex
from onethinker_jax.rewards.equivalence.quantities import Quantity, read_quantity, readings
from onethinker_jax.rewards.equivalence.units import UNITS
from onethinker_jax.rewards.equivalence.written_text import tidy, whole_bracket, words_key

Same = Callable[[str, str, Fraction], bool | None]
"""(truth, answer, tolerance): whether two LaTeX expressions have one value, or two that differ by the tolerance at
most; None if that took too long."""

MAX_PARTS = 30
"""Sets and lists with more elements are equal only as text."""

MAX_TIDY_CHARS = 3_000
"""A text that grows beyond it when its signs are written out (a thousand times one half) is not compared."""

MAX_COMPUTED = 12
"""Comparisons of one answer that may go to the worker; the rest count as not equal."""

SHOWN_DIGITS = 6
"""Significant digits from which on a decimal stands for the number that it is the rounding of."""

_remembered = functools.lru_cache(maxsize=4096)  # the parts of two lists are read again and again

_NOISE = Fraction(1, 10**12)  # relative: what floats add, "0.30000000000000004"
_NOISE_DIGITS = 15

_NAME = (
    r"(?:[A-Za-z]|\\[A-Za-z]++)(?:[A-Za-z0-9]|\\[A-Za-z]++|[_'{} ])*+(?:\([A-Za-z](?:\s*,\s*[A-Za-z])*\))?"
)
_NAMED = re.compile(rf"({_NAME}|\([A-Za-z](?:\s*,\s*[A-Za-z])+\))\s*=\s*([^=]+(?:=[^=]+)*)")
_RELATION_SIGN = re.compile(r"\\leq|\\geq|\\neq|<|>")
_VARIABLE = re.compile(r"[A-Za-z]|\\(?!infty|pi)[a-z]+")
_MEMBER = re.compile(r"(?:[A-Za-z]|\\[a-z]+)\s*\\in(?![a-z])\s*")
_SUCH_THAT = re.compile(r"([A-Za-z])(?:\s*\\in\s*\\mathbb\{?R\}?)?\s*(?:\||\\mid|:)\s*(.+)")
_JOINING = re.compile(r"\s*(?:;|,?\s+and\s+|,?\s+or\s+|\\(?:quad|qquad|lor|vee)(?![a-z]))\s*", re.IGNORECASE)
_THOUSANDS = re.compile(r",(?=\d{3}(?!\d))")
_WORD_CHARS = re.compile(r"[^\W\d_]")
_DEGREE = UNITS["°"]
_FLIPPED = {"<": ">", ">": "<", r"\leq": r"\geq", r"\geq": r"\leq"}
_ALIASES = {
    "\\emptyset": "no solution",
    "empty set": "no solution",
    "no solutions": "no solution",
    "none": "no solution",
    "{}": "no solution",
    "{ }": "no solution",
    "dne": "does not exist",
    "\\mathbb{r}": "all real numbers",
    "all reals": "all real numbers",
    "all real number": "all real numbers",
    "(-\\infty,\\infty)": "all real numbers",
    "(-\\infty,+\\infty)": "all real numbers",
}


@dataclass(frozen=True)
class _Group:
    """Several parts in one answer: a "set", a "list" without brackets, a "union", or what `kind` brackets hold."""

    kind: str
    parts: tuple[str, ...]
    variable: str | None = None
    """The variable of an inequality that was read as the interval that it describes."""


class _Comparison:
    """One answer against one truth."""

    def __init__(self, same: Same) -> None:
        self._same, self._left = same, MAX_COMPUTED

    def alike(self, given: str, wanted: str, depth: int = 0) -> bool:
        """Whether two tidy texts mean the same; `wanted` is the truth's."""
        given, wanted = _bare(given), _bare(wanted)
        if not given or not wanted or depth > 6:
            return False
        if _key(given) == _key(wanted):
            return True
        named = self._named(given, wanted, depth)
        if named is not None:
            return named
        group, wanted_group = _group(given), _group(wanted)
        if group or wanted_group:
            return self._groups_alike(group, wanted_group, given, wanted, depth)
        one, other = read_quantity(given), read_quantity(wanted)
        if one or other:
            return self._quantities_alike(one or Quantity(given, None), other or Quantity(wanted, None))
        return self._computed(given, wanted)

    def _named(self, given: str, wanted: str, depth: int) -> bool | None:
        """`x = 5` against `5` or `x = 5`; None when neither is a named value."""
        one, other = _named_value(given), _named_value(wanted)
        if one is None and other is None:
            return None
        if one and other:
            if _key(one[0]) == _key(other[0]):
                return self.alike(one[1], other[1], depth + 1)
            return self._computed(given, wanted)
        (name, _), unnamed = (one, wanted) if one else (other or ("", ""), given)
        if _has_relation(unnamed):
            group = _group(unnamed)
            if group is None or group.variable:
                return self._computed(given, wanted)
            if not {_key(part[0]) for text in group.parts if (part := _named_value(text))} <= {_key(name)}:
                return False
        return self.alike(one[1] if one else given, other[1] if other else wanted, depth + 1)

    def _groups_alike(
        self, one: _Group | None, other: _Group | None, given: str, wanted: str, depth: int
    ) -> bool:
        if one is None or other is None:
            group, alone = (other, given) if one is None else (one, wanted)
            assert group is not None
            if group.kind == "set" and len(group.parts) == 1:
                pair = (alone, group.parts[0]) if one is None else (group.parts[0], alone)
                return self.alike(*pair, depth + 1)
            return False
        if one.variable and other.variable and one.variable != other.variable:
            return False
        kinds = {one.kind, other.kind}
        free = kinds <= {"set", "list"} or kinds == {"union"}
        if not free and kinds != {one.kind} and kinds != {"list", "()"}:
            return False
        if max(len(one.parts), len(other.parts)) > MAX_PARTS:
            return False
        if not free or _names(one) != _names(other):
            return len(one.parts) == len(other.parts) and all(
                self.alike(a, b, depth + 1) for a, b in zip(one.parts, other.parts, strict=True)
            )
        if kinds == {"list"} and len(one.parts) != len(other.parts):
            return False
        return self._matched(one.parts, other.parts, depth) and self._matched(
            other.parts, one.parts, depth, turned=True
        )

    def _matched(
        self, parts: Sequence[str], others: Sequence[str], depth: int, *, turned: bool = False
    ) -> bool:
        """Whether each part equals one of the others."""
        keys = {_key(other) for other in others}
        return all(
            _key(part) in keys
            or any(self.alike(*((other, part) if turned else (part, other)), depth + 1) for other in others)
            for part in parts
        )

    def _quantities_alike(self, one: Quantity, other: Quantity) -> bool:
        if one.value is not None and other.value is not None:
            return any(numbers_agree(one, a, other, b) for a, b in readings(one, other))
        if one.unit and other.unit and one.unit.ratio(other.unit) != 1:
            return False
        if one.percent != other.percent:
            return False
        decimal = max((one, other), key=lambda quantity: quantity.digits)
        tolerance = decimal.half_unit if decimal.digits >= SHOWN_DIGITS else Fraction(0)
        angles = one.value is None or other.value is None  # an expression: pi is 180 degrees
        return self._computed(_amount(one, angles), _amount(other, angles), tolerance)

    def _computed(self, given: str, wanted: str, tolerance: Fraction = Fraction(0)) -> bool:
        if not (computable(given) and computable(wanted)) or self._left <= 0:
            return False
        one, other = latex(given), latex(wanted)
        if one is None or other is None:
            return False
        self._left -= 1
        verdict = self._same(other, one, tolerance)
        if verdict is None:
            self._left = 0  # one part without end is enough
        return bool(verdict)


def equivalent(answer: str, truth: str, same: Same) -> bool:
    """Whether two texts of at most about a thousand characters mean the same; an empty truth equals nothing."""
    given, wanted = tidy(answer), tidy(truth)
    if not given or not wanted or max(len(given), len(wanted)) > MAX_TIDY_CHARS:
        return False
    return _Comparison(same).alike(given, wanted)


def numbers_agree(one: Quantity, a: Fraction, other: Quantity, b: Fraction) -> bool:
    """Whether two numbers, of values `a` and `b` in one unit, are the same number.

    Exactly; or up to a float's noise in a decimal of 15 digits and more; or one is a decimal of at least six
    significant digits and the correct rounding of the other, which shows more: 0.333333 is 1/3, 0.333 is not.
    """
    if a == b:
        return True
    for quantity, own, exact, shown in ((one, a, b, other), (other, b, a, one)):
        if quantity.value is None or quantity.digits < SHOWN_DIGITS:
            continue
        if quantity.digits >= _NOISE_DIGITS and abs(own - exact) <= _NOISE * abs(exact):
            return True
        scale = abs(own / quantity.value) if quantity.value else Fraction(1)
        finer = shown.places is None or quantity.places is None or shown.digits > quantity.digits
        if finer and abs(own - exact) <= quantity.half_unit * scale:
            return True
    return False


@_remembered
def _bare(text: str) -> str:
    r"""Without grouping parentheses and braces around everything, and without a leading `x \in`."""
    text = _MEMBER.sub("", text.strip(), count=1) if _MEMBER.match(text.strip()) else text.strip()
    while whole_bracket(text) == "()" and len(_split(text[1:-1], ",;")) == 1:
        text = text[1:-1].strip()
    return text.rstrip(" .") if not text.endswith("...") else text


@_remembered
def _key(text: str) -> str:
    """A text for comparison as it stands: spaces that mean nothing gone; words without case."""
    if not re.search(r"[\d\\^_=+*/<>()\[\]{}|]", text) and re.search(r"[^\W\d_]{2}", text):
        words = words_key(text)
        return _ALIASES.get(words, words)
    text = re.sub(r"(?<=[A-Za-z0-9])\s+(?=[A-Za-z0-9])", "\0", text)  # "1 0" is not "10"
    text = re.sub(r"(?<=\d),\s+(?=\d{3}(?!\d))", "\0", text)  # "1, 200" is not "1,200"
    text = re.sub(r"(\\[A-Za-z]+)\0", r"\1 ", text)
    text = re.sub(r"\s+", "", re.sub(r"(\\[A-Za-z]+)\s+(?=[A-Za-z])", "\\1\0", text))
    return _ALIASES.get(text.lower(), text)


def _split(text: str, separators: str) -> list[str]:
    """The parts of a text between separators that stand in no bracket."""
    parts, depth, start = [], 0, 0
    for position, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if depth == 0 and sign in separators:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]


@_remembered
def _group(text: str) -> _Group | None:
    """What a text of several parts is; None for a single thing."""
    interval = _inequality(text)
    if interval:
        return interval
    bracket = whole_bracket(text)
    if bracket:
        parts = tuple(part.strip() for part in _split(text[1:-1], ",;"))
        if bracket == "{}":
            described = _SUCH_THAT.fullmatch(text[1:-1].strip())
            return _group(described.group(2)) if described else _Group("set", _deduced(parts))
        turned = {"]": "(", "[": "["}.get(bracket[0], bracket[0]) + {"[": ")", "]": "]"}.get(
            bracket[1], bracket[1]
        )
        return _Group(turned, parts) if len(parts) > 1 or bracket == "[]" else None
    parts = tuple(part.strip() for part in re.split(r"\\cup(?![a-z])", text))
    if len(parts) > 1:
        return _Group("union", parts)
    if read_quantity(text) is not None:
        return _plus_minus(text)
    parts = tuple(
        part.strip()
        for joined in _JOINING.split(text)
        for part in _split(_THOUSANDS.sub("\0", joined), ",")
        if part.strip()
    )
    parts = tuple(part.replace("\0", ",") for part in parts)
    if len(parts) > 1:
        if all(_inequality(part) for part in parts) and re.search(r"\bor\b|\\lor|\\vee", text, re.IGNORECASE):
            return _Group("union", parts)
        return _Group("list", _deduced(parts))
    return _plus_minus(text)


def _deduced(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Parts in which `±` stands for two, and `x = 1, 2` for two values of x."""
    found: list[str] = []
    for part in parts:
        pair = _plus_minus(part)
        found += pair.parts if pair else [part]
    return tuple(found)


def _plus_minus(text: str) -> _Group | None:
    before, sign, after = text.partition(r"\pm")
    if not sign or r"\pm" in after:
        return None
    return _Group(
        "list",
        (f"{before.strip()}+{after.strip()}" if before.strip() else after.strip(), f"{before}-{after}"),
    )


def _inequality(text: str) -> _Group | None:
    r"""`x > 2`, `1 < x \leq 2` as the interval that they describe, over its variable."""
    signs = _RELATION_SIGN.findall(text)
    if not signs or len(signs) > 2 or r"\neq" in signs or "," in text:
        return None
    sides = [side.strip() for side in _RELATION_SIGN.split(text)]
    if not all(sides):
        return None
    if len(signs) == 1:
        if not _VARIABLE.fullmatch(sides[0]):
            sides, signs = sides[::-1], [_FLIPPED[signs[0]]]
        if not _VARIABLE.fullmatch(sides[0]) or _VARIABLE.search(_without_commands(sides[1])):
            return None
        closed = signs[0] in (r"\leq", r"\geq")
        if signs[0] in (">", r"\geq"):
            return _Group("[)" if closed else "()", (sides[1], r"\infty"), sides[0])
        return _Group("(]" if closed else "()", (r"-\infty", sides[1]), sides[0])
    if not _VARIABLE.fullmatch(sides[1]):
        return None
    if all(sign in (">", r"\geq") for sign in signs):
        sides, signs = sides[::-1], [_FLIPPED[sign] for sign in signs[::-1]]
    if not all(sign in ("<", r"\leq") for sign in signs):
        return None
    kind = ("[" if signs[0] == r"\leq" else "(") + ("]" if signs[1] == r"\leq" else ")")
    return _Group(kind, (sides[0], sides[2]), sides[1])


def _without_commands(text: str) -> str:
    return re.sub(r"\\[A-Za-z]+", "", text)


@_remembered
def _named_value(text: str) -> tuple[str, str] | None:
    """(name, value) of `x = 5`, `f(x) = 2x`, `AB = 2 + 3 = 5` (the last one); None for anything else."""
    if _RELATION_SIGN.search(text) or len(_split(text, ",;")) > 1 or _JOINING.search(text):
        return None
    found = _NAMED.fullmatch(text)
    if found:
        return found.group(1), found.group(2).rpartition("=")[2].strip()
    sides = text.split("=")
    if (
        len(sides) > 1
        and all(side.strip() for side in sides)
        and not _WORD_CHARS.search(_without_commands(text))
    ):
        return "", sides[-1].strip()  # "2 + 3 = 5"
    return None


def _names(group: _Group) -> int:
    """How many values of different names a list gives: "x = 1, y = 2" is 2, "x = 1, x = 3" is 1 like "1, 3"."""
    names = {_key(named[0]) for part in group.parts if (named := _named_value(part))}
    return max(len(names), 1)


def _has_relation(text: str) -> bool:
    return "=" in text or bool(_RELATION_SIGN.search(text))


def _amount(quantity: Quantity, degrees: bool) -> str:
    """A quantity as an expression, without its unit; with `degrees` an angle keeps its sign for the parser."""
    sign = "°" if degrees and quantity.unit == _DEGREE else ""
    if quantity.value is None:
        return quantity.core
    above, below = abs(quantity.value.numerator), quantity.value.denominator
    minus = "-" if quantity.value < 0 else ""
    return f"{minus}{above}{sign}/{below}" if sign else f"{minus}\\frac{{{above}}}{{{below}}}"
