"""Masks for lines of answers that bring none although their answers prompt some."""

from collections.abc import Sequence

from onethinker_jax.data_pipeline.sources.sample import Sample
from onethinker_jax.evaluate.answers.masks import FrameMasks
from onethinker_jax.evaluate.metrics.answer import Rle
from onethinker_jax.evaluate.metrics.masks import IMAGE
from onethinker_jax.evaluate.results.lines import Line
from onethinker_jax.scoring import Scorer


def make_masks(scorer: Scorer, wanted: Sequence[tuple[Line, Sample]]) -> list[dict[str, Rle]]:
    """The masks by frame name that the scorer's reward service makes of each line's answer.

    Raises MediaError, RewardUnavailable.
    """
    records = [sample.record for _, sample in wanted]
    made = FrameMasks(scorer)(records, [line.response for line, _ in wanted])
    rles = [{} if one is None else dict(one.rles or {}) for one in made]
    return [found if record.videos else {IMAGE: found} for found, record in zip(rles, records, strict=True)]
