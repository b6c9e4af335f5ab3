"""A reward of one's own: where it is found, what it is given, what it may give, and how it is refused."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.rewards import RewardSettings, max_accuracy, max_overall
from onethinker_jax.rewards.own_reward import RewardFunctionError, as_score, load_reward
from onethinker_jax.rewards.score import Score
from onethinker_jax.rewards.score_pool import ScorePool, ScoringError
from onethinker_jax.scoring import Scorer, check_reward, check_truths

SOURCE = """
import json, os
from onethinker_jax.rewards import Score

def share(record, response):
    return len(response) / 100 + record["problem_id"] / 1000

def parts(record, response):
    return Score(-0.5, 0.25, 1.0, 0.0)

def told(record, response):
    wanted = {"problem_id": record["problem_id"], "problem": "<image>What?", "problem_type": "multiple choice",
              "data_type": "image", "options": ["one", "two"], "answer": "B", "images": ["a/b.png"], "videos": [],
              "data_source": "made", "origin": f"file: record {record['problem_id']}"}
    record_is_mine = record == wanted
    record.clear()
    return float(record_is_mine)

def process(record, response):
    return os.getpid() / 2**32

def fails(record, response):
    return 1 / 0 if record["problem_id"] == 3 else 0.5

def dies(record, response):
    os._exit(1)

def nothing(record, response):
    pass

def large(record, response):
    return 1.5

def one_parameter(record):
    return 1.0

VALUE = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("own")
    (made / "own.py").write_text(SOURCE)
    (made / "broken.py").write_text("def reward(record, response:\n")
    (made / "raises.py").write_text("raise RuntimeError('no weights\\nfor you')\n")
    return made


@pytest.fixture(scope="module")
def pool() -> Iterator[ScorePool]:
    with ScorePool(workers=2) as made:
        yield made


def records(count: int) -> list[Record]:
    return [
        Record(
            *(number, "<image>What?", "image", "multiple choice", ("one", "two"), "<answer>B</answer>"),
            *((Path("a/b.png"),), (), "made"),
            origin=f"file: record {number}",
        )
        for number in range(count)
    ]


def scorer(name: str, folder: Path, pool: ScorePool | None = None) -> Scorer:
    """One without a reward service: a reward of one's own asks none."""
    nobody: Any = None
    return Scorer(
        nobody, settings=RewardSettings(variant="paper", module=f"{folder}/own.py:{name}"), pool=pool
    )


def test_in_workers_and_here(folder: Path, pool: ScorePool) -> None:
    """Every response has its own score, in order, and a worker's is that of this process."""
    of = records(30)
    texts = [["x" * (number + k) for k in range(3)] for number in range(30)]
    scores = scorer("share", folder, pool)(of, texts)
    assert scores == scorer("share", folder)(of, texts)
    for number, group in enumerate(scores):
        rewards = [(number + k) / 100 + number / 1000 for k in range(3)]
        assert [(score.overall, score.accuracy) for score in group] == [(r, r) for r in rewards]
        assert all(score.format == 0 for score in group)
    assert scorer("parts", folder, pool)(of[:1], [["x"]]) == [[Score(-0.5, 0.25, 1.0, 0.0)]]


def test_what_it_is_given(folder: Path, pool: ScorePool) -> None:
    """The record's fields, a copy for each call; and it runs in the workers."""
    for where in (pool, None):
        given = scorer("told", folder, where)(records(2), [["a", "b"], ["c"]])
        assert [score.overall for group in given for score in group] == [1.0] * 3
    (group,) = scorer("process", folder, pool)(records(1), [["a"] * 40])
    assert {round(score.overall * 2**32) for score in group} <= set(pool.process_ids())


def test_tasks_that_a_service_judges_are_its_own_too(folder: Path) -> None:
    """Captions and segmentation, without answers even: nobody else is asked."""
    others = [
        replace(records(1)[0], problem_type=kind, answer="", options=())
        for kind in ("open-ended", "segmentation")
    ]
    assert (
        scorer("parts", folder)(others, [["<answer>a</answer>"]] * 2) == [[Score(-0.5, 0.25, 1.0, 0.0)]] * 2
    )
    settings = RewardSettings(module="a:b", segmentation_reward="mask")
    check_truths(others, settings)
    assert max_accuracy("segmentation", "video", "paper", settings) == 1.0
    assert max_overall("segmentation", "video", "released", settings) == 1.0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FOLDER/gone.py:reward", "there is no file .*gone.py"),
        ("FOLDER/own.py:gone", "own.py holds no function gone"),
        ("FOLDER/own.py:VALUE", "does not hold a function, but a value, VALUE"),
        ("FOLDER/own.py:one_parameter", "must take a record and a response"),
        ("FOLDER/broken.py:reward", "cannot be imported .SyntaxError"),
        ("FOLDER/raises.py:reward", "cannot be imported .RuntimeError: no weights.$"),
        ("no_such_package.rewards:reward", "cannot be imported .ModuleNotFoundError: No module named"),
    ],
)
def test_one_that_cannot_be_used(folder: Path, name: str, message: str) -> None:
    name = name.replace("FOLDER", str(folder))
    with pytest.raises(RewardFunctionError, match=message) as caught:
        load_reward(name)
    assert str(caught.value).startswith(f"reward.module {name}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FOLDER/broken.py:reward", "cannot be imported"),
        ("FOLDER/own.py:nothing", "file: record 0: returned NoneType, not a number or a Score"),
        ("math:pow", "file: record 0: raised TypeError"),
    ],
)
def test_it_is_tried_at_the_start(folder: Path, name: str, message: str) -> None:
    """In a process of its own: this one does not import it."""
    loaded = load_reward.cache_info().currsize
    settings = RewardSettings(module=name.replace("FOLDER", str(folder)))
    with pytest.raises(RewardFunctionError, match=message):
        check_reward(settings, records(1))
    assert load_reward.cache_info().currsize == loaded
    check_reward(RewardSettings())


def test_a_good_one_is_tried_in_silence(folder: Path) -> None:
    settings = RewardSettings(module=f"{folder}/own.py:fails")  # which does so at another record only
    check_reward(settings)
    check_reward(settings, records(1))


def test_what_it_raises_later_names_record_and_function(folder: Path, pool: ScorePool) -> None:
    for where in (pool, None):
        with pytest.raises(
            RewardFunctionError, match=r"own\.py:fails: file: record 3: raised ZeroDivisionError: "
        ):
            scorer("fails", folder, where)(records(5), [["x"]] * 5)


def test_one_that_ends_its_process(folder: Path) -> None:
    with pytest.raises(ScoringError, match=r"own\.py:dies: ended its process"):
        check_reward(RewardSettings(module=f"{folder}/own.py:dies"), records(1))


@pytest.mark.parametrize("name", ["reward", "own.py", ":reward", "own.py:"])
def test_names(name: str) -> None:
    with pytest.raises(ValueError, match="is not MODULE:FUNCTION"):
        RewardSettings(module=name)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (math.nan, "returned nan"),
        (math.inf, "returned inf"),
        (-0.1, "which is not in"),
        ("1.0", "returned str, not a number"),
        ([1.0], "returned list, not a number"),
        (1j, "returned complex"),
        (np.array([0.5, 0.5]), "returned ndarray"),
        (Score(math.nan, 0, 0, 0), "a Score whose overall is nan"),
        (Score(1.1, 1, 1, 1), "overall 1.1 is not at most 1"),
        (Score(1, 2, 1, 1), r"accuracy 2 is not in \[0, 1\]"),
        (Score(0, 0, -1, 0), r"format -1 is not in \[0, 1\]"),
    ],
)
def test_results_that_are_refused(given: object, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        as_score(given, "x")


def test_results_that_are_taken() -> None:
    response = "<think>a</think><answer>b</answer>"
    for given in (True, 1, np.float32(1), np.float64(1)):
        score = as_score(given, response)
        assert score == Score(1.0, 1.0, 1.0, 1.0) and type(score.overall) is float
    assert as_score(0.5, "b") == Score(0.5, 0.5, 0.0, 0.0)


def test_a_module_of_the_path() -> None:
    assert load_reward("math:pow") is math.pow
