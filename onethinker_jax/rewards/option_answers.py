r"""Which option a multiple-choice answer names: by its letter, or by its own text when no other option has it.

Read are "B", "b", "(B)", "**B**", `\boxed{B}`, "B Go", "(B) Go", "Option B", "The answer is B". An answer that
names several letters ("A or B") or denies one ("not B") names none, and no letter is taken out of a word. "A dog"
begins with an article: it is option A only if that option's text is "dog".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from onethinker_jax.rewards.equivalence.written_text import tidy, words_key

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MAX_CHARS = 1_000  # of an answer that is read: the rest is explanation
_LABELLED = re.compile(r"\s*\(?([A-Z])[.):]")
_OWN_LABEL = re.compile(r"\s*[(\[]?\s*[A-Z]\s*[.):\]]\s*(?=\S)")
_BEFORE = re.compile(
    r"(?:the\s+)?(?:(?:option|choice|answer|letter)\b[\s:]*+)++(?=[(\[\"'*]*[a-z]\b)", re.IGNORECASE
)
_ENCLOSED = re.compile(
    r"(?:\(\s*([A-Za-z])\s*[).:]|\[\s*([A-Za-z])\s*\]|\{\s*([A-Za-z])\s*\}|<\s*([A-Za-z])\s*>|[\"']([A-Za-z])[\"'])\s*[.:,;!]?"
)
_MARKED = re.compile(r"([A-Za-z])\s*(?:[).:\],;!](?!\w)|[):](?=\w)|\.(?=[A-Z]\w)|(?=\s[-–—(])|\s*\n)")
_ALONE = re.compile(r"\(?([A-Za-z])\s*\Z")
_SPACED = re.compile(r"([A-Za-z])\s+(?=\S)")
_LIST_MARK = re.compile(r"(?:[-*•>#]+\s+)+(?=\W?[A-Za-z]\b)")
_ARTICLES = "AI"  # letters that are words too
_ANOTHER = re.compile(
    r"(?:[\s,;&/+.|和或与及]|\b(?:and|or|nor|und|oder)\b)*+(?:option\s+|choice\s+|answer\s+)?"
    r"[(\[]?([A-Za-z])\s*(?:[)\].,:;/&+|]|\Z|\s(?:and|or)\b|\s+(?:are|both|together|is)\b)",
    re.IGNORECASE,
)
_JOINED = re.compile(r"\s*(?:,?\s*(?:and|or|nor)\b|&|/|\+|,\s*[(\[]?[A-Z][)\]]?(?:\W|\Z))", re.IGNORECASE)
_BOTH = re.compile(r"\b(?:and|or|nor)\s+(?:(?:option|choice)\s+)?(?:\([A-Za-z]\)|[A-Z]\b)(?!\s+[a-z])")
_LABEL_LATER = re.compile(r"\s\(?[A-Z]\)\s+\w")  # "Go C) Stop"
_OF_OPTIONS = re.compile(r"(?:both|all|none|neither|either|only)\b", re.IGNORECASE)
_AFFIRMED = re.compile(
    r"(?:is|would be|must be|should be)\s+(?:the\s+)?(?:(?:most|only)\s+)?"
    r"(?:correct|right|best|answer|true|likely|appropriate|accurate)\b|"
    r"(?:because|since|as|for|given)\b",
    re.IGNORECASE,
)
_STATEMENT = re.compile(
    r"(?:is|was|are|were|isn|wasn|be|not|no|never|cannot|can|could|would|seems?|looks?|has|have|does|doesn|nor|versus|vs|"
    r"wrong|incorrect|false|excluded|than|but|except)\b",
    re.IGNORECASE,
)


def option_letters(options: Sequence[str]) -> str:
    """The letter of each option: the ones they begin with, if all do; else A, B, C and so on."""
    found = [_LABELLED.match(option) for option in options]
    own = "".join(match.group(1) for match in found if match)
    return own if len(own) == len(options) else _LETTERS[: len(options)]


def option_letter(text: str, options: Sequence[str] = ()) -> str | None:
    """The letter, upper case, of the one option that an answer names; None if it names none or several.

    `options` are the record's options, with or without their letters; without them an answer is read by its
    letter alone.
    """
    first_lines = text.strip()[:_MAX_CHARS]
    answer = tidy(_LIST_MARK.sub("", first_lines, count=1) if _LIST_MARK.match(first_lines) else first_lines)
    if not answer:
        return None
    texts = _texts(options)
    by_text = [letter for letter, own in texts.items() if own == words_key(answer)]
    alone = _ALONE.fullmatch(answer)
    if len(by_text) == 1 and not (alone and alone.group(1).upper() in texts):
        return by_text[0]
    before = _BEFORE.match(answer)
    answer = answer[before.end() :] if before else answer
    found = _labelled(answer, first_lines, texts)
    return None if found is None or (texts and found not in texts) else found


def options_equivalent(answer: str, truth: str, options: Sequence[str] = ()) -> bool:
    """Whether two answers name the same option; by their text when the truth names none."""
    letter = option_letter(truth, options)
    if letter is None:
        wanted = words_key(tidy(truth[:_MAX_CHARS]))
        return bool(wanted) and words_key(tidy(answer[:_MAX_CHARS])) == wanted
    return option_letter(answer, options) == letter


def _texts(options: Sequence[str]) -> dict[str, str]:
    """Letter -> the option's text without its letter, for comparison."""
    letters = option_letters(options)
    labelled = bool(options) and all(_LABELLED.match(option) for option in options)
    return {
        letter: words_key(tidy(_OWN_LABEL.sub("", option, count=1) if labelled else option))
        for letter, option in zip(letters, options, strict=False)
    }


def _labelled(answer: str, lines: str, texts: dict[str, str]) -> str | None:
    """The letter at an answer's start, if what follows is nothing, its option's text, or an explanation."""
    alone = _ALONE.fullmatch(answer)
    if alone:
        return alone.group(1).upper()
    found = _ENCLOSED.match(answer) or _MARKED.match(answer)
    if found is None and "\n" in lines:
        first = _ALONE.fullmatch(tidy(lines.partition("\n")[0]))
        found = first if first and answer.startswith(first.group(1) + " ") else None
    if found:
        letter = next(part for part in found.groups() if part).upper()
        rest = answer[found.end() :].strip(" -–—:")
        return letter if _fits(letter, rest, texts, marked=True, sure=True) else None
    spaced = _SPACED.match(answer)
    if not spaced:
        return None
    sign, rest = spaced.group(1), answer[spaced.end() :].strip()
    sure = sign.isupper() and sign not in _ARTICLES
    return sign.upper() if _fits(sign.upper(), rest, texts, marked=False, sure=sure) else None


def _fits(letter: str, rest: str, texts: dict[str, str], *, marked: bool, sure: bool) -> bool:
    """Whether the text behind a letter leaves it the only option named; `sure` if the letter is no word itself.

    Behind a `marked` letter, "(D) Both A and B", options may be named by the option's text.
    """
    if not rest:
        return True
    own = [name for name, text in texts.items() if text and text == words_key(rest)]
    if own:
        return letter in own
    if _ANOTHER.match(rest) or _JOINED.match(rest) or _LABEL_LATER.search(rest):
        return False
    if _BOTH.search(rest) and not (marked and _OF_OPTIONS.match(rest)):
        return False
    if _AFFIRMED.match(rest):
        return True
    starts = texts.get(letter, "")
    if starts and words_key(rest).startswith(starts):
        return True
    return sure and not _STATEMENT.match(rest)
