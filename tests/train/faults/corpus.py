"""Records whose answers a tiny model learns within a few steps, and whose rewards ask every process that a run has."""

import json
from collections.abc import Callable
from pathlib import Path

from onethinker_jax.data_pipeline.shapes.world import build_shapes_world


def write_corpus(folder: Path) -> list[object]:
    """The flags that name a corpus of pictures and videos of the Shapes world, written there.

    Mathematics has polynomials for answers, which no shortcut compares: the math worker is asked. Open-ended ones
    are for the reward service.
    """
    world = build_shapes_world(folder, seed=1, train_rl=120, train_sft=120, heldout=60, captions=0)
    flags: list[object] = []
    for purpose, file in (("sft", world.sft_json), ("rl", world.rl_json), ("heldout", world.eval_json)):
        rows = [_short(row) for row in json.loads(file.read_text()) if row["problem_type"] in ANSWERS]
        made = file.with_name(f"short_{purpose}.json")
        made.write_text(json.dumps(rows))
        flags += [f"--data.{purpose}-file", made]
    return flags


def _short(row: dict) -> dict:
    """The record with an answer of a few tokens, and the conversation that ends with it."""
    name = "solution" if "solution" in row else "answer"
    answer = f"<answer>{ANSWERS[row['problem_type']](row['problem_id'])}</answer>"
    row = {**row, name: answer}
    if "messages" in row:
        question, _ = row["messages"]
        row["messages"] = [question, {"role": "assistant", "content": f"<think></think>{answer}"}]
    return row


COLOURS = ("red", "blue", "green")
ANSWERS: dict[str, Callable[[int], str]] = {
    "math": lambda number: f"x^2+{number % 3 + 1}x",
    "open-ended": lambda number: f"a {COLOURS[number % 3]} star",
}
