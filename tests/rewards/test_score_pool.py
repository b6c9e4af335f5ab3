"""Scoring in worker processes: the same scores, whatever dies."""

import contextlib
import json
import os
import random
import signal
import threading
import time

import pytest

from onethinker_jax.rewards import GroundTruthError, RewardSettings
from onethinker_jax.rewards import score_pool as pool
from onethinker_jax.rewards.score_pool import Judged, ScorePool, ScoreRequest, ScoringError, score_request
from onethinker_jax.worker_process import WorkerProcess

BOX = [0, 0, 100, 100]
PAPER, RELEASED = RewardSettings(variant="paper"), RewardSettings(variant="released")


def requests(count):
    """Requests that all score differently by position: a lost, doubled or misplaced score shows."""
    draw = random.Random(0)
    made = []
    for number in range(count):
        words = " ".join(draw.choices(["red", "car", "turns", "left", "slowly"], k=12))
        span = [number % 7, number % 7 + draw.randint(1, 9)]
        boxes = {"boxes": {str(second): [0, 0, 100, draw.randint(1, 100)] for second in range(1, 9)}}
        kind, answer, truth = draw.choice(
            [
                ("OCR", words, "red car turns left"),
                ("open-ended", words, "a red car turns left"),
                (
                    "temporal grounding",
                    json.dumps({"time": [0, draw.uniform(1, 9)]}),
                    json.dumps({"time": span}),
                ),
                ("tracking", json.dumps(boxes), json.dumps({"boxes": {str(k): BOX for k in range(1, 9)}})),
                ("regression", str(draw.uniform(50, 150)), "100"),
            ]
        )
        response = f"<think>{number}</think><answer>{answer}</answer>"
        made.append(ScoreRequest(response, truth, "?", kind, "video"))
    return made


@pytest.fixture(scope="module")
def scorers():
    with ScorePool(workers=2) as made:
        yield made


def here(batch, settings):
    return [score_request(request, Judged(), settings) for request in batch]


def test_the_same_scores_as_in_this_process(scorers):
    batch = requests(100)
    settings = RewardSettings(variant="paper", format_weight=0.25, time_weight=2.0)
    assert scorers.score(batch, settings=settings) == here(batch, settings)
    assert scorers.score(batch, settings=RELEASED) == here(batch, RELEASED)
    assert scorers.score([], settings=PAPER) == []
    judged = {3: Judged(text_score=0.125)}
    batch[3] = ScoreRequest("<answer>x</answer>", "y", "?", "open-ended", "image")
    assert scorers.score(batch[:5], settings=PAPER, judged=judged)[3].accuracy == 0.125


def test_odd_text_reaches_the_workers(scorers):
    odd = ["\ud800", "\x00", "图\u2028\n", "<answer>" * 40_000, "x" * 1_000_000, '{"time": [NaN, 1e400]}']
    batch = [ScoreRequest(text, '{"time": [1, 2]}', "?", "temporal grounding", "video") for text in odd]
    assert scorers.score(batch, settings=RELEASED) == here(batch, RELEASED)


def test_a_broken_record_is_named(scorers):
    batch = [*requests(20), ScoreRequest("x", "soon", "?", "temporal grounding", "video")]
    with pytest.raises(GroundTruthError, match="unreadable ground truth 'soon'"):
        scorers.score(batch, settings=PAPER)
    with pytest.raises(ValueError, match="unknown problem_type 'riddle'"):
        scorers.score([ScoreRequest("x", "y", "?", "riddle", "image")], settings=PAPER)
    assert len(scorers.score(batch[:20], settings=PAPER)) == 20


def test_nothing_is_lost_or_doubled_when_workers_are_killed(scorers, monkeypatch):
    monkeypatch.setattr(pool, "ATTEMPTS", 100)
    batch = requests(1024)
    scorers.score(batch[:64], settings=PAPER)
    before, enough, found = scorers.replaced, threading.Event(), []

    def run():
        while not enough.is_set():
            found.append(scorers.score(batch, settings=PAPER))

    thread = threading.Thread(target=run)
    thread.start()
    while scorers.replaced < before + 2 and thread.is_alive():  # killed at work, or starting
        for process_id in scorers.process_ids()[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)
        time.sleep(0.3)
    enough.set()
    thread.join()
    wanted = here(batch, PAPER)
    assert scorers.replaced >= before + 2
    assert found
    assert all(scores == wanted for scores in found)


def test_a_part_that_kills_every_worker_is_an_error(monkeypatch):
    with ScorePool(workers=1) as scorers:
        monkeypatch.setattr(WorkerProcess, "ask", lambda *_: None)
        with pytest.raises(ScoringError, match="3 workers in a row died scoring requests 0 to 15"):
            scorers.score(requests(20), settings=PAPER)
        assert scorers.replaced >= 3
    with pytest.raises(ValueError, match="workers"):
        ScorePool(workers=0)


def test_a_worker_that_cannot_start_is_an_error():
    with pytest.raises(RuntimeError, match="no_such_module did not start"):
        WorkerProcess("onethinker_jax.no_such_module").ask({}, 1.0)
