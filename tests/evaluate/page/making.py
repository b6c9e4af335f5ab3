"""Results of made-up answers to the Shapes world's evaluation file, as evaluate.score writes them."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from onethinker_jax.data_pipeline.records.record import Record, read_records
from onethinker_jax.evaluate import score
from onethinker_jax.rewards.answers import unwrap_answer
from onethinker_jax.rewards.metrics import decode_rle, encode_rle
from onethinker_jax.tasks import TABLE

HOSTILE = """</textarea></script><script>alert("x")</script><img src=x onerror='alert(1)'> ' " & \x1b[31m"""


def shifted(value: Any, by: int) -> Any:
    """The same JSON with every number of it moved."""
    if isinstance(value, dict):
        return {key: shifted(one, by) for key, one in value.items()}
    if isinstance(value, list):
        return [shifted(one, by) for one in value]
    return min(max(value + by, 0), 1000) if isinstance(value, int) else value + by / 40


def made_up(record: Record, *, skill: float, seed: int = 0) -> dict[str, Any]:
    """An answer to a record: the more skill, the likelier it is right, or the nearer."""
    draw = random.Random(f"{record.problem_id} {seed}")
    truth = unwrap_answer(record.answer)
    line: dict[str, Any] = {"problem_id": record.problem_id, "tokens": draw.randrange(20, 400)}
    if TABLE[record.problem_type].answer == "JSON":
        text = json.dumps(shifted(json.loads(truth), round((1 - skill) * draw.uniform(0, 160))))
    else:
        text = truth if draw.random() < skill else draw.choice(["A", "B", "12", "a blue circle"])
    thinking = f"The question asks: {record.problem[:80]!r}. " * draw.randrange(1, 6)
    line["response"] = f"<think>{thinking}</think><answer>{text}</answer>"
    if record.segmentation is not None:
        shift = round((1 - skill) * 20)
        moved = [encode_rle(np.roll(decode_rle(rle), shift, axis=1)) for rle in record.segmentation.rles]
        rles = dict(zip(record.segmentation.names, moved, strict=True))
        line["masks"] = rles[""] if not record.videos else rles
    return line


def results(
    file: Path,
    out: Path,
    answer: Callable[[Record], dict[str, Any]] = lambda record: made_up(record, skill=0.6),
) -> Path:
    """The folder of results of these answers to a file in OneThinker's layout."""
    predictions = out.with_suffix(".jsonl")
    lines = [json.dumps(answer(record)) for record in read_records(file)]
    predictions.write_text("\n".join(lines) + "\n")
    assert score.main([str(predictions), str(file), "--out", str(out), "--no-page"]) == 0
    return out
