"""Numbers as people write them, with their units: what the paper variant reads in an answer or a truth.

`read_quantity` reads "12", "1,200", "1.2e3", "3/4", "2 1/2", "12%", "12 cm", "$12", "about 12"; it refuses what
names no single number ("12 to 15", "12 or 13", "12 of 15", "not 12"). The record check, the numerical and the
regression reward read by it, and mathematics begins with it. Values are exact fractions, so nothing is rounded.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from fractions import Fraction

from onethinker_jax.rewards.equivalence.latex import is_constant
from onethinker_jax.rewards.equivalence.units import UNITS, Unit
from onethinker_jax.rewards.equivalence.written_text import CURRENCY, tidy
from onethinker_jax.tasks import TABLE

MAX_NUMBER_CHARS = 400
"""A longer text is no number."""

_MAX_EXPONENT = 400  # of ten: beyond it Python's integers would only get slow

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d{1,2}(?:,\d{2})+,\d{3}|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d*)?|\.\d+)"
_TIMES_TEN = r"\s*(?:\\times|\*|[xX])\s*10\s*(?:\^|\*\*)\s*"
_EXPONENT = r"(?:\{\s*([+-]?\d{1,6})\s*\}|\(\s*([+-]?\d{1,6})\s*\)|([+-]?\d{1,6}))"
_POWER = rf"(?:[eE]([+-]?\d{{1,6}})|{_TIMES_TEN}{_EXPONENT})"
_PLAIN = re.compile(rf"([+-]?)\s*({_DECIMAL}){_POWER}?", re.ASCII)
_POWER_OF_TEN = re.compile(
    r"([+-]?)\s*10\s*(?:\^|\*\*)\s*(?:\{\s*([+-]?\d{1,6})\s*\}|([+-]?\d{1,6}))", re.ASCII
)
_FRACTION = re.compile(
    rf"([+-]?)\s*(?:({_DIGITS})\s*(?:\s|and\s+|\+\s*|(?=\\)))?(?:(\d+)\s*/\s*(\d+)|"
    r"([+-]?)\\frac\s*(?:\{\s*([+-]?\d+)\s*\}|(\d))\s*(?:\{\s*([+-]?\d+)\s*\}|(\d)))",
    re.ASCII,
)
_REPEATING = re.compile(
    r"([+-]?)\s*(\d*)\.(\d*?)(?:\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))|(\d{1,6}?)\6{2,}(?:\.{3}|\\[lc]?dots\s*))",
    re.ASCII,
)
_HEDGE = re.compile(
    r"(?:(?:approximately|approx\.?|about|around|roughly|circa|ca\.|nearly|almost)\s+|(?:\\approx|\\sim|~)\s*)+",
    re.IGNORECASE,
)
_MINUS_WORD = re.compile(r"(?:minus|negative)\s+(?=[\d.\\a-z])", re.IGNORECASE)
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = re.compile(rf"\s*({'|'.join(_SCALES)})s?(?:\s+|\Z)", re.IGNORECASE)
_CURRENCIES = {
    CURRENCY: "dollar",
    "$": "dollar",
    "€": "euro",
    "£": "pound sterling",
    "¥": "yen",
    "₹": "rupee",
}
_CURRENCIES |= {
    "₩": "won",
    "₽": "rouble",
    "USD": "dollar",
    "US¤": "dollar",
    "EUR": "euro",
    "GBP": "pound sterling",
}
_MONEY_FIRST = re.compile(
    rf"([+-]?)\s*({'|'.join(map(re.escape, sorted(_CURRENCIES, key=len, reverse=True)))})\s*(?=[-+\d.\\(])"
)
_MONEY_LAST = re.compile(rf"\s*({'|'.join(map(re.escape, _CURRENCIES))})\Z")
_PERCENT = re.compile(r"\s*(?:%|percent|per cent|percentage points?|pct)\.?\Z", re.IGNORECASE)
_NOUN = re.compile(r"[A-Za-z]{3,20}(?: [A-Za-z]{2,20}){0,2}")
_NOT_COUNTED = (
    "a an and or to of from in on at by per than not no non minus plus times divided over under above below between "
    "through until till up down more less most least fewer either neither nor but if is are was be equals equal "
    "squared cubed factorial half halves third thirds quarter quarters fourth fifth sixth seventh eighth ninth tenth "
    "dozen dozens pair pairs hundred thousand million billion trillion hundreds thousands millions billions percent "
    "percents pi sqrt root sin cos tan cot sec csc log ln exp infinity inf mod modulo remainder base power out with "
    "without except maybe perhaps possibly etc unknown undefined wrong incorrect false one two three four five six "
    "seven eight nine ten eleven twelve am pm noon midnight th st nd rd ratio versus vs alpha beta gamma theta "
    "lambda sigma omega phi delta max min lim det deg"
)
_NO_NOUN = frozenset(_NOT_COUNTED.split())
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_ONES = {word: value for value, word in enumerate(_SMALL.split())}
_ROUND = "twenty thirty forty fifty sixty seventy eighty ninety"
_TENS = {word: 10 * value for value, word in enumerate(_ROUND.split(), 2)}
_NUMBER_WORD = re.compile(
    rf"(?:({'|'.join(_TENS)})(?:[- ]({'|'.join(list(_ONES)[1:10])}))?|({'|'.join(_ONES)}))(?=\s|\Z|%)",
    re.IGNORECASE,
)
_NAME_FIRST = re.compile(r"[A-Za-z]{1,12}(?: [A-Za-z]{1,12})?\s*[=:]\s*(?=[-+\d.¤])")  # "x = 12", "Total: 12"
_GLUED_UNIT = re.compile(r"(?<=\d)(?=[A-Za-z]\Z)")  # "5m": metres where the answer is a number


@dataclass(frozen=True)
class Quantity:
    """A number, or an expression, and what stands beside it."""

    core: str
    """The tidy text without unit, currency, per cent sign and hedge."""
    value: Fraction | None
    """The number that the core is; None where it is an expression."""
    places: int | None = None
    """Decimals that a decimal shows (negative powers of ten shift them); None for whole numbers and fractions."""
    digits: int = 0
    """Significant digits that a decimal shows."""
    unit: Unit | None = None
    percent: bool = False

    @property
    def half_unit(self) -> Fraction:
        """Half a unit of a decimal's last place: 0.005 of 3.14; 0 of a whole number or a fraction."""
        return Fraction(0) if self.places is None else Fraction(1, 2) / Fraction(10) ** self.places


def read_number(text: str) -> Quantity | None:
    """The single number that an answer to a numerical or regression question is; None for anything else.

    Number words up to ninety-nine are read too: "twelve", "twenty-one people".
    """
    if len(text) > MAX_NUMBER_CHARS:
        return None
    text = _HEDGE.sub("", _NAME_FIRST.sub("", tidy(text), count=1), count=1)
    word = _NUMBER_WORD.match(text)
    if word:
        tens, ones, small = (part and part.lower() for part in word.groups())
        value = _ONES[small] if small else _TENS[tens or ""] + _ONES.get(ones or "zero", 0)
        text = f"{value}{text[word.end() :]}"
    quantity = read_quantity(_GLUED_UNIT.sub(" ", text))
    return None if quantity is None or quantity.value is None else quantity


def number_value(text: str) -> float | None:
    """`read_number` as a float, a per cent sign and a unit dropped; None for what is no number."""
    quantity = read_number(text)
    return None if quantity is None or quantity.value is None else as_float(quantity.value)


def as_float(value: Fraction) -> float:
    """The nearest float, infinite beyond them."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def number_error(text: str, problem_type: str) -> str | None:
    r"""What is wrong with a true answer to a numerical or regression question; None if nothing.

    A numerical truth may also be an expression of numbers alone, `2\sqrt{3}` or `\frac{\pi}{4}`, which is
    compared as mathematics.
    """
    value = number_value(text)
    if value is not None and math.isfinite(value):
        return None
    if value is None and TABLE[problem_type].answer == "number" and len(text) <= MAX_NUMBER_CHARS:
        quantity = read_quantity(tidy(text))
        if is_constant(quantity.core if quantity else tidy(text)):
            return None
    return f"{problem_type} needs a number, has {text!r:.60}"


@functools.lru_cache(maxsize=4096)
def read_quantity(text: str) -> Quantity | None:
    """What a tidy text says of one thing: a number or an expression, its unit, a per cent sign."""
    text = _HEDGE.sub("", text, count=1).strip()
    if re.match(r"(?:-|\+)\s*(?:-|\+)", text):
        return None
    text = _MINUS_WORD.sub("-", text, count=1)
    inside = re.fullmatch(r"\(([^()]*)\)", text)
    text = inside.group(1).strip() if inside else text
    whole = _number(text)
    if whole:
        return whole
    unit: Unit | None = None
    money = _MONEY_FIRST.match(text)
    if money:
        unit, text = Unit.of_money(_CURRENCIES[money.group(2)]), money.group(1) + text[money.end() :]
    text, percent = _cut(_PERCENT, text)
    if not percent and not money:
        last = _MONEY_LAST.search(text)
        if last:
            unit, text = Unit.of_money(_CURRENCIES[last.group(1)]), text[: last.start()]
    number = _number(text)
    if number is None:
        core, scale, found = _split_unit(text)
        if found is not None and (unit or percent) and found != unit:
            return None  # "5% cm"
        unit = found or unit
        number = _number(core)
        if number is not None and number.value is not None and scale:
            number = Quantity(
                core, number.value * 10**scale, number.places and number.places - scale, number.digits
            )
        if number is None and re.search(r"[,;](?!\d{3}(?!\d))|\s(?:and|or)\s", core):
            return None  # "3 cm, 4 cm"
        if number is None:
            return Quantity(core, None, unit=unit, percent=percent) if core and (unit or percent) else None
    return Quantity(number.core, number.value, number.places, number.digits, unit, percent)


def readings(given: Quantity, wanted: Quantity) -> list[tuple[Fraction, Fraction]]:
    """The pairs of values by which two numbers may be compared, in the unit of `wanted`.

    None when their units differ; lengths, times, masses … of one kind are converted, and a missing unit is any.
    A per cent sign on one side alone may be dropped or computed: 12% is compared with a bare number as 12 and as
    0.12.
    """
    if given.value is None or wanted.value is None:
        return []
    factor = Fraction(1)
    if given.unit and wanted.unit:
        ratio = given.unit.ratio(wanted.unit)
        if ratio is None:
            return []
        factor = ratio
    pair = (given.value * factor, wanted.value)
    if given.percent == wanted.percent:
        return [pair]
    if given.unit or wanted.unit:
        return []
    if given.percent:
        return [pair, (pair[0] / 100, pair[1])]
    return [pair, (pair[0] * 100, pair[1])]


def _cut(pattern: re.Pattern[str], text: str) -> tuple[str, bool]:
    found = pattern.search(text)
    return (text[: found.start()].rstrip(), True) if found else (text, False)


def _split_unit(text: str) -> tuple[str, int, Unit | None]:
    """(the text before its unit, a scale's power of ten, the unit); no unit where the words are none."""
    for border in re.finditer(r"(?<=[\d.)}\]])(?=\s*[°A-Za-z\"'µ\\])|(?<=\s)(?=[°A-Za-z\"'])", text):
        core, words = text[: border.start()].rstrip(), text[border.start() :].strip()
        number = _number(core)
        scaled = _SCALE.match(words) if number else None
        scale = _SCALES[scaled.group(1).lower()] if scaled else 0
        words = words[scaled.end() :].strip() if scaled else words
        if scaled and not words:
            return core, scale, None
        apart = (
            text[border.start() - 1 : border.start() + 1].isspace()
            or text[border.start() : border.start() + 1] == " "
        )
        unit = _unit(words, number is not None, apart)
        if unit is not None and core:
            return core, scale, unit
    return text, 0, None


def _unit(words: str, after_number: bool, apart: bool) -> Unit | None:
    """The unit that words name; after a number also a noun for what is counted."""
    key = re.sub(r"[{}]", "", words.replace("\\times", " "))
    key = " ".join(re.sub(r"\s*\^\s*", "^", key).split()).removesuffix(".")
    known = UNITS.get(key) or UNITS.get(key.lower() if len(key) > 2 else key)
    if known is not None:
        if len(key) == 1 and key.isalpha() and not (after_number and apart):
            return None  # 5m is a product
        return known
    if after_number and _NOUN.fullmatch(key) and not set(key.lower().split()) & _NO_NOUN:
        return Unit.of_noun(key)
    return None


def _number(text: str) -> Quantity | None:
    """A number without anything beside it."""
    text = text.strip()
    if not text or len(text) > MAX_NUMBER_CHARS or not any(sign.isdigit() for sign in text):
        return None
    found = _PLAIN.fullmatch(text)
    if found:
        return _decimal(text, *found.groups())
    found = _POWER_OF_TEN.fullmatch(text)
    if found:
        exponent = int(found.group(2) or found.group(3))
        return _decimal(text, found.group(1), "1", str(exponent), None, None, None)
    return _fraction(text) or _repeating(text)


def _decimal(text: str, sign: str, digits: str, *exponents: str | None) -> Quantity | None:
    exponent = int(next(filter(None, exponents), "0"))
    if abs(exponent) > _MAX_EXPONENT:
        return None
    digits = digits.replace(",", "").replace(" ", "")
    whole, point, decimals = digits.partition(".")
    value = Fraction(int((whole or "0") + decimals), 10 ** len(decimals)) * Fraction(10) ** exponent
    is_decimal = bool(decimals) or (exponent != 0 and bool(point))
    significant = len((whole + decimals).lstrip("0"))
    return Quantity(
        text,
        -value if sign == "-" else value,
        len(decimals) - exponent if is_decimal else None,
        significant if is_decimal else 0,
    )


def _fraction(text: str) -> Quantity | None:
    found = _FRACTION.fullmatch(text)
    if not found:
        return None
    sign, whole, above, below, inner_sign, top, top_digit, bottom, bottom_digit = found.groups()
    numerator, denominator = int(above or top or top_digit), int(below or bottom or bottom_digit)
    if denominator == 0 or (inner_sign and (whole or sign)):
        return None
    value = Fraction(numerator, denominator)
    if whole:
        if not 0 <= value < 1:
            return None  # "2 3/2" is no mixed number
        value += int(whole.replace(",", "").replace(" ", ""))
    return Quantity(text, -value if "-" in (sign, inner_sign) else value)


def _repeating(text: str) -> Quantity | None:
    r"""`0.\overline{3}` and `0.333...`, whose last digits stand three times at least."""
    found = _REPEATING.fullmatch(text)
    if not found:
        return None
    sign, whole, first, *repeated = found.groups()
    period = next(filter(None, repeated))
    value = Fraction(int((whole or "0") + first), 10 ** len(first))
    value += Fraction(int(period), 10 ** len(first) * (10 ** len(period) - 1))
    return Quantity(text, -value if sign == "-" else value)
