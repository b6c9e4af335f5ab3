"""What the text alone tells about a teacher's answer: rule checks, and whether reasoning and answer agree.

Every check is a function of texts that returns what is wrong in a few words, or None. A check that cannot tell
says None: a filter of good data should rather miss an error than drop what is right.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import get_args

from onethinker_jax.data_pipeline.records.ground_truth import answer_error
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.data_pipeline.records.text_errors import text_error
from onethinker_jax.rewards.answers import (
    StructuredAnswer,
    extract_answer,
    extract_thinking,
    has_strict_format,
    parse_structured,
    unwrap_answer,
)
from onethinker_jax.rewards.equivalence.equivalence import plain_number
from onethinker_jax.rewards.equivalence.quantities import read_number, readings
from onethinker_jax.rewards.option_answers import option_letters
from onethinker_jax.tasks import TABLE, AnswerKind, complete

_RUN = 8  # words that count as a repetition
_LONG_ANSWER = 12  # characters without white space; a shorter one may stand in a question by chance
_SHORT_ANSWER = 60  # characters of one that may be called the answer
_WORD = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]|[^\W\u3040-\u30ff\u4e00-\u9fff]+")
_STUCK = re.compile(r"([^\s\-=_.*#])\1{39}")
_RESERVED = re.compile(r"<\|[^|<>\s]{1,40}\|>|<image>|<video>")
_GIVEN_ANSWER = re.compile(
    r"ground[- ]truth"
    r"|\b(?:provided|given|supplied|reference|expected|annotated|labell?ed|gold(?:en)?) "
    r"(?:answer|solution|label|annotation)\b"
    r"|\b(?:answer|solution)s? (?:key|sheet)\b"
    r"|\b(?:answer|solution) (?:that |which )?(?:is|was|has been) (?:given|provided|supplied)\b"
    r"|\b(?:answer|solution) (?:provided|supplied|given) (?:to me|above|below|in the (?:prompt|question|data))"
    r"|\b(?:was|am|were|been) (?:told|given) (?:that )?the (?:correct |right |true )?(?:answer|solution)\b",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\bI(?:'m| am)? (?:can ?not|can't|could not|couldn't|unable to|not able to|do not|don't) "
    r"(?:actually )?(?:see|view|watch|access|open|have access to|process|receive) "
    r"(?:the |an |any |this |your )?(?:image|picture|photo|video|frame|media|attachment)"
    r"|\bno (?:image|picture|photo|video) (?:was|is|has been) (?:provided|attached|given|included|shared)"
    r"|\bas an AI\b|\bI(?:'m| am) (?:sorry|just a language model|an AI)\b",
    re.IGNORECASE,
)
_ANSWER_SAID = r"\b(?:answer|solution|result)\s*(?:is|was|are|:|=)\s*[\"'(]*"

# Frequent words of languages in Latin script; none of English stands in another list (below).
_FREQUENT = {
    "English": "the of and to is it that this with for are be from by which there i as but not has have they or so "
    "if then see at on in a an its was we can both each one two left right first second frame image video",
    "German": "der das und ist nicht ein eine einen mit auf für von zu sich auch als wir sind wird oder aber bei nach",
    "French": "le les des est une dans pour qui que avec sur nous pas ce cette il elle sont aux du je donc mais",
    "Spanish": "el los las y es una por para con del lo como su al más pero muy esta este hay son está entonces",
    "Portuguese": "o os não uma com dos das na no em ao mais foi são está então também pela pelo isso esse essa",
    "Italian": "il gli di che è una per con della nel sono questo questa più anche non alla dal perché quindi si",
    "Dutch": "het een en van dat niet zijn voor met op aan er maar ook dus deze wordt naar bij we ik je",
}
_LANGUAGES = {name: frozenset(words.split()) for name, words in _FREQUENT.items()}
_ENGLISH = _LANGUAGES.pop("English")
_FOREIGN_WORDS = 5  # fewer are a quotation
_FOREIGN_LETTERS = 0.05  # of all letters: more are another language
_LATIN = re.compile(r"[A-Za-zÀ-ÖØ-öø-ɏ]")


def held_answer(record: Record) -> str | None:
    """How a question gives its own answer away.

    A long answer by standing in it; a short one, which may stand there by chance, by being called the answer.
    """
    question, truth = record.problem, unwrap_answer(record.answer)
    if "<answer>" in question or "</answer>" in question:
        return "holds <answer> tags"
    flat, wanted = (re.sub(r"\s+", "", text).lower() for text in (question, truth))
    if len(wanted) >= _LONG_ANSWER and wanted in flat and TABLE[record.problem_type].answer != "letter":
        return "holds the answer"
    if not 0 < len(truth) <= _SHORT_ANSWER:
        return None
    said = re.search(_ANSWER_SAID + re.escape(truth) + r"(?![\w.]*\w)", question, re.IGNORECASE)
    return f"says {said.group(0)!r:.60}" if said else None


def tag_error(text: str) -> str | None:
    """`<think>…</think><answer>…</answer>`, each tag once, nothing outside them, both with something inside."""
    if not has_strict_format(text):
        return "not <think>…</think><answer>…</answer>"
    if not extract_thinking(text):
        return "no reasoning"
    return None if extract_answer(text) else "no answer"


def reserved_error(text: str) -> str | None:
    """Text that the student's processor would take for a medium or for a turn's end, or that is no Unicode."""
    found = _RESERVED.search(text)
    return f"holds {found.group(0)}" if found else text_error(text)


def form_error(record: Record, answer: str) -> str | None:
    """What `records` would refuse in a true answer: such as another letter, no number, a box outside 0-1000."""
    error = answer_error(answer, record.problem_type, record.data_type, record.options)
    return error and error[:120]


def length_error(reasoning: str, least: int, most: int) -> str | None:
    """Characters of the reasoning."""
    if least <= len(reasoning) <= most:
        return None
    return f"{len(reasoning):,} characters, {least:,} to {most:,} are wanted"


def language_error(record: Record, reasoning: str) -> str | None:
    """Whether the reasoning is in English, letters and words of question and answer aside.

    By its letters, and by frequent words: more of another language's than of English.
    """
    known = record.problem + record.answer + "".join(record.options)
    letters = [letter for letter in reasoning if letter.isalpha()]
    foreign = [letter for letter in letters if not _LATIN.match(letter) and letter not in known]
    greek = sum("Ͱ" <= letter <= "Ͽ" for letter in foreign)  # of formulas
    if len(foreign) - greek > _FOREIGN_LETTERS * len(letters):
        return f"{(len(foreign) - greek) / len(letters):.0%} of the letters are of another script"
    words = Counter(word.lower() for word in _WORD.findall(reasoning))
    english = sum(words[word] for word in _ENGLISH)
    for name, vocabulary in _LANGUAGES.items():
        count = sum(words[word] for word in vocabulary - _ENGLISH)
        if count >= _FOREIGN_WORDS and count > english:
            return f"reads like {name}"
    return None


def repetition_error(text: str, most: float) -> str | None:
    """The share of eight-word runs that stood before, and characters that never end."""
    if _STUCK.search(text):
        return "one character, over and over"
    words = [word.lower() for word in _WORD.findall(text)]
    runs = [tuple(words[i : i + _RUN]) for i in range(len(words) - _RUN + 1)]
    if len(runs) < 2 * _RUN:
        return None
    share = 1 - len(set(runs)) / len(runs)
    return f"{share:.0%} of it stood before" if share > most else None


def given_answer_error(reasoning: str) -> str | None:
    """Reasoning that speaks of an answer it was given instead of finding one."""
    found = _GIVEN_ANSWER.search(reasoning)
    return f"says {found.group(0)!r}" if found else None


def refusal_error(text: str) -> str | None:
    """A teacher that says it sees nothing, or speaks of itself."""
    found = _REFUSAL.search(text)
    return f"says {found.group(0)!r}" if found else None


# ---------------------------------------------------------------- does the answer say what the reasoning found?

_FINALLY = r"\b(?:answer|so|therefore|thus|hence|finally|conclusion)\b"
_LETTER = re.compile(
    r"\b(?i:answer|(?:correct|right|best) (?:option|choice|letter|one))\s*(?i:is|must be|should be|would be|:|=)\s*"
    r"(?i:option |choice )?[\"'(*]*([A-Z])(?=\s*(?:[.,;:)\"'*]|$|because\b|since\b))"
    r"|\b(?i:that|this|which) is (?:option )?[\"'(*]*([A-Z])[\"')*]*[.]?\s*$"
    r"|\\boxed\{\s*(?:\\text\{)?\(?([A-Z])\)?\}?\s*\}"
)
_NUMBER = r"(-?\d[\d,]*(?:\.\d+)?)"
_NUMBER_SAID = re.compile(
    rf"\b(?:answer|result)\b\s*(?:is|must be|should be|would be|:|=)\s*[\"'$*]*{_NUMBER}(?!\s*[-+*/^×÷])"
    rf"|\\boxed\{{\s*{_NUMBER}\s*\}}",
    re.IGNORECASE,
)
_BOX_SAID = re.compile(
    rf"{_FINALLY}[^\[\]\n]{{0,60}}\[\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\]",
    re.IGNORECASE,
)
_SPAN_SAID = re.compile(
    rf"{_FINALLY}[^\[\]\n\d]{{0,60}}{_NUMBER}\s*(?:s|sec|seconds)?\s*(?:to|until|till|and|–|-|,)\s*{_NUMBER}\s*"
    r"(?:s\b|sec|seconds|\])",
    re.IGNORECASE,
)
_SPAN_SLACK_S, _BOX_SLACK = 0.5, 10.0  # rounding
_JSON_TRIED = 40


def contradiction(record: Record, reasoning: str, answer: str) -> str | None:
    """How the answer differs from the conclusion that the reasoning draws; None where it draws none."""
    return _CONTRADICTIONS[TABLE[record.problem_type].answer](record, reasoning, answer)


def _other_letter(record: Record, reasoning: str, answer: str) -> str | None:
    said = [next(filter(None, found)) for found in _LETTER.findall(reasoning)]
    said = [letter for letter in said if letter in (option_letters(record.options) or letter)]
    return f"concludes {said[-1]}, answers {answer}" if said and said[-1] != answer else None


def _other_number(record: Record, reasoning: str, answer: str) -> str | None:
    said = [next(filter(None, found)) for found in _NUMBER_SAID.findall(reasoning)]
    given, found = read_number(answer), read_number(said[-1]) if said else None
    if given is None or found is None:
        return None
    if any(abs(a - b) <= max(abs(a), abs(b)) / 200 for a, b in readings(given, found)):
        return None
    return f"concludes {said[-1]}, answers {answer}"


def _other_json(record: Record, reasoning: str, answer: str) -> str | None:
    annotations = parse_structured(answer, record.problem_type, record.data_type)
    if annotations is None:
        return None
    stated = _last_json(record, reasoning)
    if stated is not None:
        return None if _alike(stated, annotations) else "the reasoning ends with other JSON"
    if annotations.box is not None and (boxes := _BOX_SAID.findall(reasoning)):
        box = tuple(map(plain_number, boxes[-1]))
        if any(abs((a or 0.0) - b) > _BOX_SLACK for a, b in zip(box, annotations.box, strict=True)):
            return f"concludes the box {list(boxes[-1])}"
    if annotations.span is not None and (spans := _SPAN_SAID.findall(reasoning)):
        span = tuple(map(plain_number, spans[-1]))
        if any(abs((a or 0.0) - b) > _SPAN_SLACK_S for a, b in zip(span, annotations.span, strict=True)):
            return f"concludes {spans[-1][0]} to {spans[-1][1]} s"
    return None


def _last_json(record: Record, reasoning: str) -> StructuredAnswer | None:
    """The last object of the task's schema that the reasoning writes out."""
    decoder, found, end = json.JSONDecoder(), None, 0
    for start in [match.start() for match in re.finditer(r"\{", reasoning)][-_JSON_TRIED:]:
        if start < end:
            continue  # inside the last one
        try:
            value, end = decoder.raw_decode(reasoning, start)
        except (ValueError, RecursionError):
            continue
        found = parse_structured(json.dumps(value), record.problem_type, record.data_type) or found
    return found


def _alike(a: StructuredAnswer, b: StructuredAnswer) -> bool:
    """Equal up to rounding."""
    first, second = list(_numbers(a)), list(_numbers(b))
    return len(first) == len(second) and all(
        name == other and abs(x - y) <= (_SPAN_SLACK_S if name == "time" else _BOX_SLACK)
        for (name, x), (other, y) in zip(first, second, strict=True)
    )


def _numbers(annotations: StructuredAnswer) -> Iterator[tuple[str, float]]:
    for time in (
        *(annotations.span or ()),
        *(() if annotations.key_time is None else (annotations.key_time,)),
    ):
        yield "time", time
    for value in annotations.box or ():
        yield "box", value
    for second, box in sorted(annotations.boxes.items()):
        yield from ((f"box {second}", value) for value in box)
    for point in (*annotations.positive_points, *annotations.negative_points):
        yield from (("point", value) for value in point)


_CONTRADICTIONS: Mapping[AnswerKind, Callable[[Record, str, str], str | None]] = complete(
    "annotate/rules.py",
    {
        "letter": _other_letter,
        "number": _other_number,
        "estimate": _other_number,
        "result": _other_number,
        "text": lambda *_: None,
        "JSON": _other_json,
    },
    get_args(AnswerKind),
)
"""Record, reasoning and answer -> how they contradict each other, by the kind of answer."""
