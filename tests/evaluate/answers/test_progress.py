"""What an evaluation says of how far it is."""

import logging

import pytest

from onethinker_jax.evaluate.answers import progress as progress_lines
from onethinker_jax.evaluate.answers.progress import Progress


def test_progress_says_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    caplog.set_level(logging.INFO, "onethinker_jax")
    progress = Progress(1000, clock=lambda: now[0])
    for seconds, done in ((5, 10), (11, 20), (12, 30), (3600, 500), (7200, 1000)):
        now[0] = seconds
        progress.reached(done)
    assert caplog.messages == [
        "20 of 1,000 records, about 8 min 59 s left",
        "500 of 1,000 records, about 1 h 00 min left",
        "1,000 of 1,000 records",
    ]
    assert progress_lines.LINE_SECONDS == 10
