"""The lengths that a plan expects: of a file, one JSON object a line, or drawn from stated distributions.

`PARTS` of `--lengths`, separated by commas, are files and distributions by name:

    --lengths runs/mine/lengths.jsonl                          every prompt that a run drew, with its responses
    --lengths check/lengths.jsonl,response=lognormal:600:0.8   a corpus' counts, and responses that are drawn
    --lengths prompt=1200,patches=1024,response=50%:400/90%:1500/100%:4096

A line has "tokens" (of a conversation, or of a prompt), "patches", and, if it is a prompt, "responses": the tokens of
each of its samples, none where they are not known. Of a run's lines "kept" says whether the group passed the filter.
A distribution is a number, `lognormal:MEDIAN:SIGMA`, or quantiles `SHARE%:VALUE/…`, between which it is linear. What
nothing says anything of has the preset's largest size.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onethinker_jax.data_pipeline.batches.packing import GroupSize
from onethinker_jax.errors import UserError

NAMES = ("conversation", "prompt", "patches", "response")
STEPS = 8
"""Steps that are simulated at most; fewer where the lengths do not last so long."""
DRAWN = 2048
"""Conversations, and prompts, that are drawn where no file has any."""
_PATCHES_A_BLOCK = 4
_KEYS = {"tokens", "patches", "responses", "kept", "stage", "step"}

# Numbers drawn at once: (generator, how many) -> int64 [n].
Draw = Callable[[np.random.Generator, int], np.ndarray]


class LengthsError(UserError, ValueError):
    """Lengths that cannot be read, or that no step can be made of; the message names the file and the line."""


@dataclass(frozen=True)
class Sizes:
    """The largest sizes of a preset: what a length is, where nothing is known of it."""

    conversation: tuple[int, int]  # tokens and patches, of SFT
    prompt: tuple[int, int]
    response: int
    group_size: int


@dataclass
class GivenLengths:
    """Sizes of conversations, and of prompts with their responses, in the order in which they come."""

    conversations: list[tuple[int, int]] = field(default_factory=list)  # tokens, patches
    groups: list[GroupSize] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)  # which groups pass the filter
    steps: int | None = None  # that the groups were sampled in; None: they are of no run
    notes: list[str] = field(default_factory=list)  # what was left out or cut, and of how many


def full_lengths(sizes: Sizes) -> GivenLengths:
    """Every length at its limit."""
    group = GroupSize(*sizes.prompt, (sizes.response,) * sizes.group_size)
    return GivenLengths([sizes.conversation], [group], [True])


def given_lengths(parts: str, sizes: Sizes) -> GivenLengths:
    """The lengths that `--lengths` names: of a run its last STEPS steps, of a corpus its lines shuffled.

    Raises LengthsError naming the part, or the file and the line.
    """
    draws: dict[str, Draw] = {}
    rows: list[dict[str, Any]] = []
    for part in parts.split(","):
        name, equals, text = part.partition("=")
        if equals and name in NAMES:
            draws[name] = _distribution(part, text)
        elif equals and not Path(part).exists():
            raise LengthsError(
                f"--lengths {part}: no length is called {name!r}; there are {', '.join(NAMES)}"
            )
        else:
            rows += read_rows(Path(part))
    rng = np.random.default_rng(0)
    sampled = [row["step"] for row in rows if "step" in row]
    if len(sampled) < len(rows):
        return _fitted([rows[number] for number in rng.permutation(len(rows))], draws, sizes, rng)
    if not rows:
        return _fitted(rows, draws, sizes, rng)
    newest = [row for row in rows if row["step"] > max(sampled) - STEPS]
    given = _fitted(newest, draws, sizes, rng)
    given.steps = min(max(sampled) - min(sampled) + 1, STEPS)
    return given


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of lengths. Raises LengthsError naming the file and the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise LengthsError(f"--lengths {path}: {reason}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            raise LengthsError(f"{path}, line {number}: it is no JSON") from None
        if wrong := _error(row):
            raise LengthsError(f"{path}, line {number}: {wrong}")
        rows.append(row)
    if not rows:
        raise LengthsError(f"{path}: it has no line")
    return rows


def _error(row: Any) -> str:
    """What is wrong with a line, or nothing."""
    if not isinstance(row, dict):
        return "it is no JSON object"
    if unknown := set(row) - _KEYS:
        return f"unknown {sorted(unknown)[0]!r}; a line has {', '.join(sorted(_KEYS))}"
    for name, least in (("tokens", 1), ("patches", 0)):
        if not _whole(row.get(name), least):
            return f"{name!r} must be a whole number of at least {least}, not {json.dumps(row.get(name))}"
    if "responses" in row:
        responses = row["responses"]
        if not isinstance(responses, list) or not all(_whole(one, 1) for one in responses):
            return f"'responses' must be a list of whole numbers of at least 1, not {json.dumps(responses)}"
    if "step" in row and not _whole(row["step"], 0):
        return f"'step' must be a whole number, not {json.dumps(row['step'])}"
    if not isinstance(row.get("kept", True), bool):
        return f"'kept' must be true or false, not {json.dumps(row['kept'])}"
    return ""


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _distribution(part: str, text: str) -> Draw:
    """What a stated distribution draws. Raises LengthsError naming the part."""
    if found := re.fullmatch(r"\d+", text):
        return lambda rng, count: np.full(count, int(text))
    if found := re.fullmatch(r"lognormal:(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)", text):
        median, sigma = float(found[1]), float(found[2])
        if median > 0:
            return lambda rng, count: np.ceil(rng.lognormal(math.log(median), sigma, count)).astype(np.int64)
    pairs = [re.fullmatch(r"(\d+(?:\.\d+)?)%:(\d+)", one) for one in text.split("/")]
    if all(pairs):
        shares, values = np.array([(float(one[1]) / 100, float(one[2])) for one in pairs if one]).T
        if shares[-1] <= 1 and (np.diff(shares) > 0).all() and (np.diff(values) >= 0).all():
            return lambda rng, count: np.ceil(np.interp(rng.random(count), shares, values)).astype(np.int64)
    raise LengthsError(
        f"--lengths {part}: a distribution is a number, lognormal:MEDIAN:SIGMA, or quantiles that rise, such as "
        "50%:400/90%:1500"
    )


def _fitted(
    rows: list[dict[str, Any]], draws: Mapping[str, Draw], sizes: Sizes, rng: np.random.Generator
) -> GivenLengths:
    """The lengths within the preset's sizes: prompts and conversations that are larger are left out and counted."""
    given = GivenLengths()
    kinds = {"conversations": sizes.conversation, "prompts": sizes.prompt}
    for kind, (most_tokens, most_patches) in kinds.items():
        own = [row for row in rows if ("responses" in row) is (kind == "prompts")] or _drawn(
            kind, draws, kinds[kind], rng
        )
        fitting = [row for row in own if row["tokens"] <= most_tokens and row["patches"] <= most_patches]
        if long := len(own) - len(fitting):
            given.notes.append(f"{long} of {len(own)} {kind} are larger than the preset allows and left out")
        if not fitting:
            raise LengthsError(
                f"--lengths: no {kind[:-1]} is within {most_tokens} tokens and {most_patches} patches"
            )
        if kind == "conversations":
            given.conversations = [(row["tokens"], row["patches"]) for row in fitting]
            continue
        cut = 0
        for row in fitting:
            responses = row["responses"] or _responses(draws, sizes, rng)
            cut += sum(one > sizes.response for one in responses)
            within = tuple(min(one, sizes.response) for one in responses)
            given.groups.append(GroupSize(row["tokens"], row["patches"], within))
            given.kept.append(row.get("kept", True))
        if cut:
            given.notes.append(f"{cut} responses are cut at {sizes.response} tokens")
    return given


def _drawn(
    kind: str, draws: Mapping[str, Draw], most: tuple[int, int], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Lines of stated distributions, at least 1 token and whole merge blocks of patches each.

    A token is at most one merge block: there are no more patches than that.
    """
    sizes = []
    for name, largest in zip((kind[:-1], "patches"), most, strict=True):
        drawn = draws[name](rng, DRAWN) if name in draws else np.full(DRAWN, largest)
        sizes.append(drawn)
    blocks = np.minimum(sizes[1] // _PATCHES_A_BLOCK, sizes[0])
    tokens, patches = np.maximum(sizes[0], 1).tolist(), (blocks * _PATCHES_A_BLOCK).tolist()
    more = {} if kind == "conversations" else {"responses": []}
    return [{"tokens": t, "patches": p, **more} for t, p in zip(tokens, patches, strict=True)]


def _responses(draws: Mapping[str, Draw], sizes: Sizes, rng: np.random.Generator) -> list[int]:
    """Responses of a prompt whose own are not known; a drawn one is cut where it is too long, as sampling does."""
    if "response" not in draws:
        return [sizes.response] * sizes.group_size
    return np.clip(draws["response"](rng, sizes.group_size), 1, sizes.response).tolist()
