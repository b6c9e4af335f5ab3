"""Options that a question lists itself, at its end."""

import re

from onethinker_jax.data_pipeline.sources.reading.rows import LETTERS

# A line that begins with A; a heading before it belongs to the options.
_BEGIN = re.compile(r"\s*(?:\b(?:Choices|Options):[ \t]*)?(?:^|\n|(?<=: ))[ \t]*(?=\(?A[.:)])")
_CHOICE = re.compile(r"(?:^|\n)[ \t]*\(?([A-Z])[.:)][ \t]*")


def split_choices(question: str) -> tuple[str, list[str]]:
    """The question without the options that it ends with, and these in the order A, B, C; (question, []) without."""
    for begin in reversed(list(_BEGIN.finditer(question))):
        tail = question[begin.end() :]
        found = list(_CHOICE.finditer(tail))
        if len(found) < 2 or "".join(one[1] for one in found) != LETTERS[: len(found)]:
            continue
        ends = [one.start() for one in found[1:]] + [len(tail)]
        texts = [tail[one.end() : end].strip() for one, end in zip(found, ends, strict=True)]
        if all(texts):
            return question[: begin.start()], texts
    return question, []
