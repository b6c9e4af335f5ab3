"""Text equality as mathruler's `grade_answer` decides it, for the released variant.

Two texts are equal when either of two normal forms is: that of the MATH data set (LaTeX tidied up, units and
per cent signs gone) or a plain one that SymPy could read (no LaTeX, no case, no units). Else bracketed
tuples are compared element by element: fractions must be written alike, a whole number equals only a whole
number, and what is left is equal if SymPy simplifies the difference to 0. LaTeX beyond fractions, roots,
text marks and common signs is left as it stands, where mathruler converts it with pylatexenc.
"""

from __future__ import annotations

import functools
import re

from onethinker_jax.rewards.equivalence.equivalence import MAX_EXPRESSION_CHARS, shared_grader

_UNITS = (
    *("degree", "cm", "centimeter", "meter", "mile", "second", "minute", "hour", "day", "week"),
    *("month", "year", "foot", "feet", "inch", "yard"),
)
_UNIT_PATTERNS = [re.compile(unit + r"(?:es)?s? *(?:\^[0-9]+)?") for unit in _UNITS]
_TEXT_ALONE = re.compile(r"\\text\{(.+?)\}$")
_THOUSANDS_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
_FRACTION = re.compile(r"-?[0-9]+.?/0*[1-9][0-9]*.?$")
_COSTLY_POWER = re.compile(r"\^[{(]|\^[0-9]+\^|\^[0-9]{2}")
_EVALUABLE = re.compile(r"[0-9a-z+\-*/^(),.! ]*")
_BRACKETS = "()[]"

_LATEX_SIGNS = {
    r"\pi": "pi",
    r"\infty": "inf",
    r"\cup": "U",
    r"\cdot": "*",
    r"\times": "*",
    r"\left": "",
    r"\right": "",
    r"\circ": "∘",
    r"\,": " ",
    r"\;": " ",
    r"\ ": " ",
}
_LATEX_WORD = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mbox|boxed)\s*\{([^{}]*)\}")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*(\{[^{}]*\}|[^{}\s\\])\s*(\{[^{}]*\}|[^{}\s\\])")
_LATEX_ROOT = re.compile(r"\\sqrt\s*(\{[^{}]*\}|[^{}\s\\\[])")


def grade_answer(answer: str, truth: str) -> bool:
    """Whether two texts are equal as described above; texts beyond 1,000 characters are not."""
    if len(answer) > MAX_EXPRESSION_CHARS or len(truth) > MAX_EXPRESSION_CHARS:
        return False
    if _math_form(answer) == _math_form(truth):
        return True
    given, wanted = _plain_form(answer), _plain_form(truth)
    if given == wanted:
        return True
    if not given:
        return False
    parts, wanted_parts = _elements(given), _elements(wanted)
    if len(parts) != len(wanted_parts):
        return False
    if len(wanted_parts) > 1 and (given[0] != wanted[0] or given[-1] != wanted[-1]):
        return False
    return all(_element_equal(part, other) for part, other in zip(parts, wanted_parts, strict=True))


def evaluable(expression: str) -> bool:
    """Whether SymPy's parser may see an expression: cheap powers, and letters that cannot form a call.

    At most two different ones beside the words `sqrt` and `frac`, as in mathruler; and no sign beyond
    operators, brackets, comma and point, which is ours: the parser evaluates what it reads.
    """
    letters = {sign for sign in expression.replace("sqrt", "").replace("frac", "") if sign.isalpha()}
    return (
        len(letters) <= 2 and not _COSTLY_POWER.search(expression) and bool(_EVALUABLE.fullmatch(expression))
    )


@functools.lru_cache(maxsize=16_384)
def _vanishes(expression: str) -> bool:
    return shared_grader().vanishes(expression)


def _element_equal(given: str, wanted: str) -> bool:
    if _FRACTION.match(given) and _FRACTION.match(wanted):
        return given == wanted
    if _is_whole(given) != _is_whole(wanted):
        return False
    difference = f"({wanted})-({given})"
    return evaluable(difference) and _vanishes(difference)


def _elements(text: str) -> list[str]:
    text = _without_thousands(text)
    inside = text[1:-1]
    if len(text) > 2 and text[0] in _BRACKETS and text[-1] in _BRACKETS and not set(inside) & set(_BRACKETS):
        return [element.strip() for element in inside.split(",")]
    return [text] if text else []


def _without_thousands(text: str) -> str:
    return _THOUSANDS_COMMA.sub("", text)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _is_whole(text: str) -> bool:
    value = _number(_without_thousands(text))
    return value is not None and abs(value) < float("inf") and abs(value - round(value)) <= 1e-7


def _math_form(text: str) -> str:
    """The MATH data set's normal form; a text that it cannot treat stays as it is."""
    text = text.strip()
    alone = _TEXT_ALONE.match(text)
    if alone:
        text = alone.group(1).strip()
    form = text.replace("\n", "").replace("\\!", "").replace("\\\\", "\\")
    for old, new in (("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""), ("\\right", "")):
        form = form.replace(old, new)
    for old in ("^{\\circ}", "^\\circ", "\\$"):
        form = form.replace(old, "")
    value, *units = form.split("\\text{ ")
    if len(units) > 1:
        return text
    form = value.replace("\\%", "").replace("%", "").replace(" .", " 0.").replace("{.", "{0.")
    if not form:
        return form
    form = "0" + form if form.startswith(".") else form
    name, *rest = form.split("=")
    if len(rest) == 1 and len(name) <= 2:
        form = rest[0]
    if form.endswith("\\sqrt") or "\\sqrt\\sqrt" in form:
        return text
    form = re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", form, flags=re.DOTALL).replace(" ", "")
    if form.endswith("\\frac") or "\\frac\\frac" in form:
        return text
    form = _braced_fractions(form)
    if form == "0.5":
        return "\\frac{1}{2}"
    whole = re.fullmatch(r"(0|-?[1-9][0-9]*)/(0|-?[1-9][0-9]*)", form)
    return f"\\frac{{{whole.group(1)}}}{{{whole.group(2)}}}" if whole else form


def _braced_fractions(form: str) -> str:
    r"""`\frac12` and `\frac1{2}` as `\frac{1}{2}`; nothing is changed if a fraction ends too early."""
    head, *fractions = form.split("\\frac")
    if any(len(fraction) < 2 and not fraction.startswith("{") for fraction in fractions):
        return form
    tidied = [head]
    for fraction in fractions:
        if fraction.startswith("{"):
            tidied.append(fraction)
        elif fraction[1] == "{":
            tidied.append(f"{{{fraction[0]}}}{fraction[1:]}")
        else:
            tidied.append(f"{{{fraction[0]}}}{{{fraction[1]}}}{fraction[2:]}")
    return "\\frac".join(tidied)


def _plain_form(text: str) -> str:
    """Lower case, no spaces, no LaTeX, no units, whole numbers as such."""
    alone = _TEXT_ALONE.match(text)
    form = alone.group(1) if alone else text
    form = form.replace("\\%", "").replace("%", "").replace("\\$", "").replace("$", "")
    form = form.replace(" or ", " , ").replace(" and ", " , ")
    for word, power in (("million", 6), ("billion", 9), ("trillion", 12)):
        form = form.replace(word, f"*10^{power}")
    for unit in _UNIT_PATTERNS:
        form = unit.sub("", form)
    form = re.sub(r"\^ *\\circ", "", form)
    if form.startswith("{") and form.endswith("}"):
        form = form[1:-1]
    form = re.sub(r",\\! *", "", form)
    value = _number(form)
    if value is not None and abs(value) < float("inf") and abs(value - round(value)) <= 1e-7:
        form = str(round(value))
    if "\\" in form:
        form = _without_latex(form)
    form = re.sub(r"([0-9]) +([0-9])", r"\1+\2", re.sub("- *", "-", form))
    form = form.replace(" ", "").replace("{", "").replace("}", "").lower()
    return str(int(float(form.replace(",", "")))) if _is_whole(form) else form


def _without_latex(form: str) -> str:
    r"""LaTeX as text: `\frac{a}{b}` as a/b, `\sqrt{a}` as sqrt(a), text marks and boxes as what they hold."""
    previous = None
    while previous != form:
        previous = form
        form = _LATEX_WORD.sub(r"\1", form)
        form = _LATEX_ROOT.sub(lambda found: f"sqrt({found.group(1).strip('{}')})", form)
        form = _LATEX_FRACTION.sub(
            lambda found: f" {found.group(1)}/{found.group(2)}".replace("{", "").replace("}", ""), form
        )
    for sign, plain in _LATEX_SIGNS.items():
        form = form.replace(sign, plain)
    return form.strip()
