"""The model card of an exported directory: its README.md, written out of what the run's folder says of the run.

The card is the same however often it is written, and ends with the digest of its own text. By that an edited one is
known, and kept.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import onethinker_jax
from onethinker_jax.train.run_folder import RunFolder

CARD = "README.md"
_MARK = "<!-- written by onethinker_jax; SHA-256 of what stands above: {} -->\n"
_STAGES = {"fresh": "before", "sft": "after SFT", "rl": "after RL"}
# Settings that say how the model came to be, by the names that the command line has for them.
_SETTINGS = (
    *("seed", "model.lora.rank", "sft.steps", "sft.optimizer.kind", "sft.optimizer.learning_rate"),
    *("sft.optimizer.schedule", "sft.batch.rows", "sft.batch.tokens", "sft.accumulate", "sft.train_vision"),
    *("rl.steps", "rl.prompts_per_step", "rl.rollout.group_size", "rl.rollout.temperature"),
    *("rl.rollout.max_new_tokens", "rl.num_minibatches", "rl.optimizer.kind", "rl.optimizer.learning_rate"),
    *("rl.advantage.method", "rl.advantage.variant", "rl.loss.kind", "rl.loss.kl_coefficient"),
    *("reward.variant", "data.image_max_pixels", "data.video_max_frames", "data.video_max_pixels"),
)


def model_card(
    run: RunFolder, dtype: np.dtype, *, checkpoint: int | None = None, heldout: float | None = None
) -> str:
    """The card of a run's last model, whose weights are written in `dtype`.

    Of an earlier `checkpoint` it says which one and its held-out score in place of the answers of the last model.
    """
    settings = _read(run.settings)
    parts = [
        _metadata(settings),
        f"# {settings.get('name', run.path.name)}",
        _origin(settings, dtype, checkpoint),
        "## Data",
        *_data(settings, _read(run.records)),
        "## Settings",
        _table(("setting", "value"), _chosen(settings)),
        "## Results",
        *(_results(run) if checkpoint is None else _score(settings, heldout)),
        "## Use",
        "The directory loads in transformers (`AutoModelForImageTextToText.from_pretrained`), in vLLM, and in "
        "`python -m onethinker_jax.serve`. The model thinks in `<think>…</think>` and answers in `<answer>…</answer>`.",
    ]
    text = "\n\n".join(part for part in parts if part) + "\n\n"
    return text + _MARK.format(_digest(text))


def card_to_write(out: Path, card: str, *, overwrite: bool = False) -> tuple[str, bool]:
    """The card for a directory at `out`, and whether that is one that stands there, which somebody has edited."""
    standing = out / CARD
    if overwrite or not standing.is_file():
        return card, False
    text = standing.read_text(encoding="utf-8")
    body, mark, _ = text.rpartition(_MARK.split("{}", 1)[0])
    ours = bool(mark) and text == body + _MARK.format(_digest(body))
    return (card, False) if ours else (text, True)


def _metadata(settings: Mapping[str, Any]) -> str:
    """The block that the Hugging Face hub reads: YAML between lines of dashes."""
    tags = [
        "qwen3_vl",
        "visual-reasoning",
        *(["reinforcement-learning"] if _of(settings, "rl.steps") else []),
    ]
    lines = [
        "library_name: transformers",
        "pipeline_tag: image-text-to-text",
        "tags:",
        *(f"- {tag}" for tag in tags),
    ]
    return "\n".join(["---", *lines, "---"])


def _origin(settings: Mapping[str, Any], dtype: np.dtype, checkpoint: int | None) -> str:
    source = _of(settings, "model.init_from")
    begun = f"`{Path(source).name}`" if source else "fresh weights"
    stages = [name for name, part in (("SFT", "sft"), ("EMA-GRPO", "rl")) if _of(settings, f"{part}.steps")]
    adapters = " by LoRA, merged into the weights" if _of(settings, "model.lora.rank") else ""
    which = "" if checkpoint is None else f" This is checkpoint {checkpoint}, not the run's last model."
    return (
        f"A Qwen3-VL that began from {begun}, trained by {' and '.join(stages) or 'no step'}{adapters} with "
        f"onethinker_jax {onethinker_jax.__version__}. Its weights are {dtype}.{which}"
    )


def _data(settings: Mapping[str, Any], records: Mapping[str, Any]) -> Iterator[str]:
    names = {"sft": "SFT", "rl": "RL", "heldout": "held out"}
    rows = [(names[purpose], f"`{one['file']}`", f"{one['records']:,}") for purpose, one in records.items()]
    if rows:
        yield _table(("for", "file", "records"), rows)
    if _of(settings, "data.heldout_file") is None:
        world, seed = _of(settings, "data.world"), _of(settings, "data.world_seed")
        yield f"The records are those of the {str(world).capitalize()} world, seed {seed}."


def _chosen(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The settings that say most, without those of a stage that has no steps."""
    left_out = tuple(f"{stage}." for stage in ("sft", "rl") if not _of(settings, f"{stage}.steps"))
    found = ((name, _of(settings, name)) for name in _SETTINGS if not name.startswith(left_out))
    return [(f"`{name}`", f"{value:g}" if isinstance(value, float) else str(value)) for name, value in found]


def _results(run: RunFolder) -> Iterator[str]:
    """Mean accuracy of the greedy held-out answers, by task and stage; nothing where there are none yet."""
    answers = {stage: run.answers(stage) for stage in _STAGES}
    means = {stage: _means(file) for stage, file in answers.items() if file.is_file()}
    if not means:
        yield "No held-out answers."
        return
    *tasks, total = next(reversed(means.values()))
    rows = []
    for task in [*tasks, total]:
        count = next(reversed(means.values()))[task][0]
        rows.append((task, f"{count:,}", *(f"{means[stage][task][1]:.3f}" for stage in means)))
    yield "Mean accuracy of greedy answers to the held-out records, on which nothing was trained."
    yield _table(("task", "records", *(_STAGES[stage] for stage in means)), rows)


def _means(file: Path) -> dict[str, tuple[int, float]]:
    """Task -> number of answers and their mean accuracy; last of all tasks together."""
    found: dict[str, list[float]] = defaultdict(list)
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            found[row["task"]].append(row["accuracy"])
    named = {task: found[task] for task in sorted(found)}
    named["all tasks"] = [value for values in named.values() for value in values]
    return {task: (len(values), float(np.mean(values))) for task, values in named.items()}


def _score(settings: Mapping[str, Any], heldout: float | None) -> Iterator[str]:
    if heldout is None:
        yield "This checkpoint was not scored on the held-out records."
    else:
        metric = _of(settings, "evaluation.metric")
        yield f"Mean {metric} of greedy answers to the held-out records, on which nothing was trained: {heldout:.3f}."


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _of(settings: Mapping[str, Any], name: str) -> Any:
    """A setting by its dotted name; None where the run has none of that name."""
    value: Any = settings
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _digest(text: str) -> str:
    return hashlib.sha256(re.sub(r"\r\n?", "\n", text).encode()).hexdigest()
