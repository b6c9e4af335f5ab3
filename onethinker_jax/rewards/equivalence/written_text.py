r"""One way of writing for a short answer: Unicode, Markdown and LaTeX marks that change no meaning are taken off.

`tidy` is where options, numbers and mathematics of the paper variant begin. It keeps case, order and every sign
that means something: full-width characters become plain ones, a superscript `^{…}`, one half as a character
`\frac{1}{2}`, `\text{Friday}` its word, `**5**`, `$5$` and `\boxed{5}` what they hold, a leading "The answer
is" nothing.
"""

from __future__ import annotations

import re
import unicodedata

CURRENCY = "¤"
"""What stands for a dollar sign of money, `\\$5` or `$5`, once the dollar signs of mathematics are gone."""

_LAYERS = 8  # of marks around one answer; what is wrapped deeper stays

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱˣ", "0123456789+-=()nix", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+-", strict=True))
_SIGNS = {
    **dict.fromkeys("−﹣－‐‑", "-"),
    **dict.fromkeys("×⋅·∙•✕∗⨯", r"\times "),
    **dict.fromkeys("÷∕", "/"),
    **dict.fromkeys("∶︰", ":"),
    **dict.fromkeys("“”„«»″", '"'),
    **dict.fromkeys("‘’′`", "'"),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\u2061\u2062", ""),
    **dict.fromkeys("，、", ", "),
    **dict.fromkeys("。", "."),
    "π": r"\pi ",
    "∞": r"\infty ",
    **dict.fromkeys("≤⩽≦", r"\leq "),
    **dict.fromkeys("≥⩾≧", r"\geq "),
    "≠": r"\neq ",
    **dict.fromkeys("≈≃≅", r"\approx "),
    "±": r"\pm ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "∅": r"\emptyset ",
    "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}",
    "ℕ": r"\mathbb{N}",
    "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}",
    "∠": r"\angle ",
    "△": r"\triangle ",
    "∛": r"\sqrt[3]",
    "∜": r"\sqrt[4]",
    "√": r"\sqrt",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "º": "°",
    "˚": "°",
    "￥": "¥",
    **dict.fromkeys("【「『", "["),
    **dict.fromkeys("】」』", "]"),
}
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega phi"
)
_GREEK_LETTERS = "αβγδεζηθικλμνξρστυφχψωΓΔΘΛΞΠΣΦΨΩϕ"
_GREEK = {letter: f"\\{name} " for letter, name in zip(_GREEK_LETTERS, _GREEK_NAMES.split(), strict=True)}
_TABLE = str.maketrans({**_SIGNS, **_GREEK})
_MICRO_UNIT = re.compile(r"[µμ](?=[mgsLlAVFW]\b)")

_SCRIPT_RUN = re.compile(f"[{''.join(map(re.escape, _SUPERSCRIPTS))}]+")
_SUBSCRIPT_RUN = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")
_VULGAR = re.compile("[¼½¾⅐-⅞↉]")
_FRACTION_SLASH = re.compile(r"(\d+)⁄(\d+)")

_BOLD = re.compile(r"(?<![\w)}\]*])(\*\*|__)(?=[^\s*_])([^*]{1,900}?)(?<=[^\s*_])\1(?![\w({*])")
_ITALIC = re.compile(r"(\*|_)([^*_]+)\1")
_TEXT_MARK = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|textnormal|emph|mathrm|mathbf|mathit|mathsf|mathtt|mathnormal|"
    r"boldsymbol|bm|mbox|hbox|operatorname\*?|underline|underbar)\s*\{((?:[^{}]|\{[^{}]*\})*+)\}"
)
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{")
_SWITCH = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|limits|bigl|bigr|Bigl|Bigr|big|Big|biggl|biggr|rm|bf|it|!)(?![A-Za-z])\.?"
)
_SPACE = re.compile(r"(?<!\\)\\(?:[,;:> ]|quad(?![A-Za-z])|qquad(?![A-Za-z])|hspace\{[^{}]*\})|~")
_COMMANDS = (
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\le(?:qslant|qq|q)?(?![a-zA-Z])|<=|=<"), r"\\leq "),
    (re.compile(r"\\ge(?:qslant|qq|q)?(?![a-zA-Z])|>="), r"\\geq "),
    (re.compile(r"\\lt(?![a-zA-Z])"), "<"),
    (re.compile(r"\\gt(?![a-zA-Z])"), ">"),
    (re.compile(r"\\neq?(?![a-zA-Z])|!="), r"\\neq "),
    (re.compile(r"\\(?:cdot|ast)(?![a-zA-Z])"), r"\\times "),
    (re.compile(r"\\div(?![a-zA-Z])"), "/"),
    (re.compile(r"\\(?:lbrace(?![a-zA-Z])|\{)"), "{"),
    (re.compile(r"\\(?:rbrace(?![a-zA-Z])|\})"), "}"),
    (re.compile(r"\\(?:lvert|rvert|vert)(?![a-zA-Z])"), "|"),
    (re.compile(r"\\(?:approx|simeq|thickapprox)(?![a-zA-Z])"), r"\\approx "),
    (re.compile(r"\\(?:varnothing|emptyset)(?![a-zA-Z])"), r"\\emptyset "),
    (re.compile(r"\\(?:R|reals)(?![a-zA-Z])"), r"\\mathbb{R}"),
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degree(?![a-zA-Z])"), "°"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\[#&_]"), " "),
)

_LEAD_IN = re.compile(
    r"(?:(?:so|thus|therefore|hence|and|then)\b[\s,:]*)?"
    r"(?:"
    r"(?:(?:the|my|our|your)\s+)?(?:(?:final|correct|right|best|true|numerical)\s+)*"
    r"(?:answer|result|solution|value)(?:\s+(?:here|to the question))?"
    r"\s*(?:is|would be|should be|must be|equals|[:=])\s*[:=]?\s*"
    r"|(?:final\s+)?answer\s*[:=]?\s*(?=[(\[{\\$\d*]|[A-Za-z]\b)"
    r"|(?:it|this|that)(?:\s+is|'s)\s+(?=\W*(?:[A-Z]\b|[\d$¤\\-]))"
    r"|(?:i\s+(?:think|believe|choose|pick|select)|choose|select|pick)\s+"
    r"(?=\W*(?:[A-Z]\b|[\d$¤\\-]|option|choice|(?:it|the|that|this|my)\b))"
    r"|(?:the\s+)?(?:(?:final|correct|right|best)\s+)*(?:option|choice)\s*(?:is|:)\s*"
    r"|答案\s*(?:是|为|:)?\s*|(?:故|应)?选\s*(?:择)?\s*:?\s*"
    r"|[=:](?!=)\s*"
    r")",
    re.IGNORECASE,
)
_BEFORE_DIGITS_DASH = re.compile(r"(?<![\w)\]}%])\s*[–—]\s*(?=[\d.\\(a-zA-Z¤$])")
_QUOTES = ("'", '"', "`")


def tidy(text: str) -> str:
    """`text` in the one way of writing; for texts of at most about a thousand characters."""
    text = _plain_characters(text)
    text = _plain_latex(text)
    for _ in range(_LAYERS):
        bare = _unwrapped(text)
        if bare == text:
            break
        text = bare
    return text


def words_key(text: str) -> str:
    """A tidy text for comparing words: no case, no closing punctuation, no quotes, single spaces."""
    return " ".join(re.sub(r"[\"'{}$]|[.,;:!]+(?=\s|\Z)", " ", text.casefold()).split())


def whole_bracket(text: str) -> str | None:
    """The outermost brackets of a text that they hold entirely, as two characters; None if there are none."""
    if len(text) < 2 or text[0] not in "([{]" or text[-1] not in ")]}[":
        return None
    if text[0] == "]" or text[-1] == "[":  # an open interval as French books write it
        return text[0] + text[-1] if not set(text[1:-1]) & set("()[]") else None
    depth = 0
    for position, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if depth == 0:
            return text[0] + text[-1] if position == len(text) - 1 else None
    return None


def braces_end(text: str, start: int) -> int | None:
    """The position after the `}` or `)` that closes the bracket at `start`; None if nothing does."""
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] in "({[") - (text[position] in ")}]")
        if depth == 0:
            return position + 1
    return None


def _plain_characters(text: str) -> str:
    if text.isascii():
        return " ".join(text.split())
    text = _MICRO_UNIT.sub("u", text)
    text = _SCRIPT_RUN.sub(lambda run: "^{" + "".join(_SUPERSCRIPTS[sign] for sign in run[0]) + "}", text)
    text = _SUBSCRIPT_RUN.sub(lambda run: "_{" + "".join(_SUBSCRIPTS[sign] for sign in run[0]) + "}", text)
    text = _VULGAR.sub(_fraction_sign, text)
    text = _FRACTION_SLASH.sub(r"\\frac{\1}{\2}", text).replace("⁄", "/")
    text = unicodedata.normalize("NFKC", text.translate(_TABLE)).translate(_TABLE)
    return " ".join(text.split())


def _fraction_sign(sign: re.Match[str]) -> str:
    above, _, below = unicodedata.normalize("NFKC", sign[0]).partition("⁄")
    return f"\\frac{{{above}}}{{{below}}}"


def _plain_latex(text: str) -> str:
    text = _BOLD.sub(r"\2", text)
    if "\\" in text or "$" in text or "{" in text or "<" in text or ">" in text or "!" in text:
        text = text.replace("\\$", CURRENCY).replace("\\(", "$").replace("\\)", "$")
        text = text.replace("\\[", "$").replace("\\]", "$").replace("$$", "$")
        text = _SPACE.sub(" ", _SWITCH.sub("", text))
        for _ in range(_LAYERS):
            marked, text = text, _TEXT_MARK.sub(_marked_text, text)
            if marked == text:
                break
        for pattern, plain in _COMMANDS:
            text = pattern.sub(plain, text)
        text = _only_box(_without_math_dollars(text))
    text = _BEFORE_DIGITS_DASH.sub(" -", text)
    return " ".join(text.split())


def _marked_text(mark: re.Match[str]) -> str:
    r"""What a text mark holds; apart from a number before it, since `5\text{m}` are metres and `5m` is a product."""
    before = mark.string[mark.start() - 1 : mark.start()]
    return " " + mark[1] if before.isdigit() or before in (")", "}") else mark[1]


def _without_math_dollars(text: str) -> str:
    """Pairs of dollar signs are mathematics; a single one before a number is money."""
    if "$" not in text:
        return text
    if text.count("$") % 2 == 0:
        return text.replace("$", " ")
    return re.sub(r"\$(?=\s*[-+]?[\d.])", CURRENCY, text, count=1).replace("$", " ")


def _only_box(text: str) -> str:
    """What a text's only box holds: prose around it says no other answer."""
    boxes = list(_BOX.finditer(text))
    if len(boxes) != 1:
        return text
    end = braces_end(text, boxes[0].end() - 1)
    return text if end is None else text[boxes[0].end() : end - 1]


def _unwrapped(text: str) -> str:
    """One layer less: quotes, emphasis, a lead-in, a closing full stop."""
    text = text.strip()
    if len(text) >= 2 and text[0] in _QUOTES and text[0] == text[-1] and text[0] not in text[1:-1]:
        text = text[1:-1]
    if len(text) > 4 and (text[:2], text[-2:]) in (("**", "**"), ("__", "__")):
        text = text[2:-2]
    emphasised = _ITALIC.fullmatch(text)
    if emphasised:
        text = emphasised.group(2)
    lead_in = _LEAD_IN.match(text)
    if lead_in:
        text = text[lead_in.end() :]
    if text.endswith((".", ",", ";", "!")) and not re.search(r"(?:\.\.|\d!|[A-Za-z)]!)\Z", text):
        text = text[:-1]
    return text.strip()
