"""Lengths of files and of stated distributions, and the errors of wrong ones."""

import json
from pathlib import Path

import numpy as np
import pytest

from onethinker_jax.data_pipeline.batches.packing import GroupSize
from onethinker_jax.train.simulation.given_lengths import (
    DRAWN,
    STEPS,
    LengthsError,
    Sizes,
    full_lengths,
    given_lengths,
)

SIZES = Sizes(conversation=(100, 64), prompt=(50, 32), response=20, group_size=3)


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_run_and_a_corpus(tmp_path: Path) -> None:
    """A run's newest steps in their order; a corpus' lines, whose responses are stated."""
    run = write(
        tmp_path / "run.jsonl",
        *(
            {"stage": "rl", "step": step, "tokens": 10 + step, "patches": 4, "responses": [3, 20, 25]}
            | ({"kept": False} if step == 12 else {})
            for step in range(1, 13)
        ),
    )
    given = given_lengths(str(run), SIZES)
    assert [group.tokens for group in given.groups] == [10 + step for step in range(13 - STEPS, 13)]
    assert given.groups[0].completions == (3, 20, 20) and given.steps == STEPS
    assert given.kept == [True] * (STEPS - 1) + [False]
    assert given.conversations[0] == (100, 64) and given.notes == [f"{STEPS} responses are cut at 20 tokens"]

    corpus = write(
        tmp_path / "corpus.jsonl",
        *({"tokens": tokens, "patches": 0, "responses": []} for tokens in (5, 51, 50)),
        {"tokens": 90, "patches": 8},
    )
    given = given_lengths(f"{corpus},response=7", SIZES)
    assert sorted(given.groups, key=lambda group: group.tokens) == [
        GroupSize(5, 0, (7, 7, 7)),
        GroupSize(50, 0, (7, 7, 7)),
    ]
    assert given.conversations == [(90, 8)] and given.steps is None
    assert given.notes == ["1 of 3 prompts are larger than the preset allows and left out"]
    assert {group.completions for group in given_lengths(str(corpus), SIZES).groups} == {(20, 20, 20)}


def test_distributions() -> None:
    given = given_lengths("prompt=0%:10/100%:30,response=lognormal:8:0.5,patches=30", SIZES)
    tokens = np.array([group.tokens for group in given.groups])
    assert len(tokens) == DRAWN and tokens.min() >= 10 and tokens.max() == 30
    assert np.median(tokens) == pytest.approx(20, abs=1)
    responses = np.array([group.completions for group in given.groups])
    assert np.median(responses) == pytest.approx(8, abs=1) and responses.max() == 20
    assert {group.patches for group in given.groups} == {28}  # whole merge blocks
    assert given == given_lengths("prompt=0%:10/100%:30,response=lognormal:8:0.5,patches=30", SIZES)
    assert set(given.conversations) == {(100, 28)}


def test_constants_at_the_limits_are_the_full_lengths() -> None:
    given, full = given_lengths("conversation=100,prompt=50,response=20", SIZES), full_lengths(SIZES)
    assert set(given.groups) == set(full.groups) and set(given.conversations) == set(full.conversations)
    assert not given.notes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: it is no JSON"),
        ("[3]", "line 2: it is no JSON object"),
        ('{"patches": 0}', "line 2: 'tokens' must be a whole number of at least 1, not null"),
        ('{"tokens": 2.5, "patches": 0}', "'tokens' must be a whole number of at least 1, not 2.5"),
        ('{"tokens": 3, "patches": -4}', "'patches' must be a whole number of at least 0, not -4"),
        ('{"tokens": 3, "patches": 0, "responses": [4, 0]}', "'responses' must be a list of whole numbers"),
        ('{"tokens": 3, "patches": 0, "kept": 1}', "'kept' must be true or false, not 1"),
        ('{"tokens": 3, "patches": 0, "step": "x"}', "'step' must be a whole number, not \"x\""),
        ('{"step": 1, "stage": "rl", "reward": 1.5}', "unknown 'reward'; a line has kept, patches"),
    ],
)
def test_wrong_lines(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "lengths.jsonl"
    path.write_text('{"tokens": 3, "patches": 0}\n' + line + "\n")
    with pytest.raises(LengthsError) as error:
        given_lengths(str(path), SIZES)
    assert str(error.value).startswith(f"{path}, line 2: ")
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("nothing.jsonl", "nothing.jsonl: No such file"),
        ("prompts=4", "no length is called 'prompts'; there are conversation, prompt"),
        ("prompt=normal:3", "--lengths prompt=normal:3: a distribution is a number"),
        ("prompt=lognormal:0:1", "a distribution is a number"),
        ("prompt=50%:9/20%:3", "quantiles that rise"),
        ("prompt=50%:9/120%:13", "quantiles that rise"),
        ("prompt=51", "no prompt is within 50 tokens and 32 patches"),
    ],
)
def test_wrong_parts(parts: str, message: str) -> None:
    with pytest.raises(LengthsError) as error:
        given_lengths(parts, SIZES)
    assert message in str(error.value)


def test_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(LengthsError, match="it has no line"):
        given_lengths(str(write(tmp_path / "none.jsonl")), SIZES)
