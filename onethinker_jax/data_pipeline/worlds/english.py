"""English for what is seen, in questions, answers and chains of thought of every world."""

from collections.abc import Iterable

NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six")


def listed(parts: Iterable[str]) -> str:
    """The parts as English lists them: a; a and b; a, b and c. There is at least one."""
    parts = list(parts)
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def with_article(name: str) -> str:
    """A name after its article: a red star, an orange circle."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def counted(count: int, noun: str) -> str:
    """A number and its noun: 1 circle, 2 circles, 0 crosses."""
    return f"{count} {noun if count == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Several of a noun: circles, crosses."""
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def spell(text: str) -> str:
    """The characters of a text one by one, as a sentence."""
    return f"The {'digits' if text.isdigit() else 'letters'} are {' '.join(text)}."


def seconds_text(value: float) -> str:
    """Seconds with one decimal, as answers have them."""
    return f"{value:.1f}"


def span_words(start: float, end: float) -> str:
    """A span of seconds: "from 0.0 to 3.5"."""
    return f"from {seconds_text(start)} to {seconds_text(end)}"


def sentence(text: str) -> str:
    """The text with a capital letter in front; the others stay as they are."""
    return text[0].upper() + text[1:]
