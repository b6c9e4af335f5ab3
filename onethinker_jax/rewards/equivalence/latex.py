r"""An expression as LaTeX that a parser reads: `2pi`, `sqrt(3)/2`, `x^10`, `\frac12` written out.

Works on tidy texts (`written_text`). `computable` keeps prose, primes and numbers to a base from being computed:
a parser reads letters that follow each other as a product, and a word is none.
"""

from __future__ import annotations

import re

from onethinker_jax.rewards.equivalence.written_text import braces_end

_FUNCTIONS = (
    *("arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "sin", "cos", "tan", "cot", "sec", "csc"),
    *("ln", "log", "exp", "max", "min", "gcd", "lcm"),
)
_SYMBOLS = (
    *(
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "theta",
        "lambda",
        "mu",
        "nu",
        "rho",
        "sigma",
        "tau",
        "phi",
    ),
    *("psi", "omega", "pi"),
)
_NAMES = {
    **{name: name for name in (*_FUNCTIONS, *_SYMBOLS)},
    "infinity": "infty",
    "inf": "infty",
    "oo": "infty",
}
_RUN = re.compile(r"(?<![\\A-Za-z])[A-Za-z]+")
_COMMAND = re.compile(r"\\(?:begin|end)\{[a-z]+\}|\\[A-Za-z]+")
_LETTERS = re.compile(r"[A-Za-z]{2,}")
_PRODUCT = re.compile(r"[b-df-hj-np-tv-z]{2,3}")
_SHORT = (
    "an and any are as at be but by can cm do for go had has he her him his how if in is it its km left low "
    "me mm my no not of off on one or our out red she so the to too top two up us was we who why yes you"
)
_SHORT_WORDS = frozenset(_SHORT.split())
_BASE = re.compile(r"\d_|(?<![A-Za-z\\])[A-Za-z]\d")  # 1011_2 and x2: to a base, and any of three things
_NO_CONSTANT = re.compile(  # several numbers, a range, half of an expression, a division by 0
    r"[,;=<>:?']|\d\s+\d|\d\s*[-–—]\s*\d+\Z|\d\.\d*\.|[-+*/]\s*[-+*/]|[-+*/^]\s*\Z|/\s*0+(?![.\d])"
)
_ROOT = re.compile(r"(?<![\\A-Za-z])sqrt(?![A-Za-z])\s*|(\\sqrt\s*(?:\[[^\[\]]*\])?\s*)(?=[^\s{\[])")
_ROOT_OF = re.compile(r"\d+(?:\.\d+)?|[A-Za-z]|\\[A-Za-z]+")
_SHORT_FRACTION = re.compile(r"\\frac\s*(\{[^{}]*\}|\d|[A-Za-z])\s*(\{[^{}]*\}|\d|[A-Za-z])")
_POWER = re.compile(r"\^\s*(?:\(([^()]*)\)|([+-]?\d+(?:\.\d+)?)|([+-][A-Za-z]))")
_SUBSCRIPT = re.compile(r"_\s*(\d+|[A-Za-z])(?![}\w])")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*°")


def computable(text: str) -> bool:
    """Whether a tidy text may be an expression: no prose, no prime, no number to a base, no open end."""
    if not text or "'" in text or '"' in text or _BASE.search(text) or "..." in text or "?" in text:
        return False
    if not text.replace("°", "").isascii():
        return False
    runs = [
        run for run in _RUN.findall(_COMMAND.sub(" ", text)) if run.lower() not in _NAMES and run != "sqrt"
    ]
    if any(len(run) > 3 or run.lower() in _SHORT_WORDS for run in runs):
        return False
    if _LETTERS.fullmatch(text) and text.lower() not in _NAMES and not _PRODUCT.fullmatch(text):
        return False  # "xy" is a product, "AB" a segment, "no" a word
    return any(sign.isdigit() or sign.isalpha() for sign in text) and text.count("=") <= 1


def is_constant(text: str) -> bool:
    """Whether a tidy text is an expression of numbers alone: digits, operators, roots, powers, pi."""
    if not re.search(r"\d|pi", text) or _NO_CONSTANT.search(text.replace("**", "^")):
        return False
    left = re.sub(r"\\?(?:sqrt|pi)(?![a-zA-Z])|\\(?:frac|times)(?![a-zA-Z])", "", text)
    return bool(re.fullmatch(r"[\d.+\-*/^!()\[\]{} ]*", left))


def latex(text: str) -> str | None:
    """A computable text in LaTeX; None where a root's end is not to be found."""
    text = re.sub(r"\*\*", "^", text)
    text = _RUN.sub(lambda run: f"\\{_NAMES[run[0].lower()]} " if run[0].lower() in _NAMES else run[0], text)
    text = re.sub(r"\\frac\s+", r"\\frac", _SHORT_FRACTION.sub(_whole_fraction, text))
    rooted = _with_roots(text)
    if rooted is None:
        return None
    text = rooted.replace("*", r"\cdot ").replace(r"\times", r"\cdot ")
    text = _DEGREES.sub(r"(\1\\cdot\\pi/180)", text)
    text = _POWER.sub(lambda power: "^{" + next(filter(None, power.groups()), "") + "}", text)
    text = _SUBSCRIPT.sub(r"_{\1}", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    return " ".join(text.split())


def _whole_fraction(fraction: re.Match[str]) -> str:
    above, below = (part.strip("{}") if part.startswith("{") else part for part in fraction.groups())
    return f"\\frac{{{above}}}{{{below}}}"


def _with_roots(text: str) -> str | None:
    r"""`sqrt(3)`, `\sqrt 3` and `\sqrt(x+1)` as `\sqrt{…}`."""
    done, start = "", 0
    for _ in range(40):
        found = _ROOT.search(text, start)
        if not found:
            return done + text[start:]
        done += text[start : found.start()] + (found.group(1) or "\\sqrt").rstrip()
        start = found.end()
        if text[start : start + 1] in ("(", "{"):
            end = braces_end(text, start)
            if end is None:
                return None
            inside, start = text[start + 1 : end - 1], end
        else:
            alone = _ROOT_OF.match(text, start)
            if not alone:
                return None
            inside, start = alone[0], alone.end()
        within = _with_roots(inside)
        if within is None:
            return None
        done += "{" + within + "}"
    return None
