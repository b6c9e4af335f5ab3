"""Which back ends the reward service can run: one for text, one for masks, chosen by name.

`TEXT_BACKENDS` and `MASK_BACKENDS` map a name to a function that makes it from `BackendSettings`, and only that
function imports what the back end needs: torch is loaded when POLAR or SAM2 is made, not before. ROUGE and
GrabCut need no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onethinker_jax.rewards.backends.types import BackendSettings, MaskBackend, TextBackend, TextItem


class Rouge:
    """Mean F-measure of ROUGE-1, -2 and -L; the question is not used."""

    def score(self, items: Sequence[TextItem]) -> list[float]:
        """The mean F-measure of ROUGE-1, -2 and -L of each answer with its reference."""
        from onethinker_jax.rewards.metrics import mean_rouge

        return [mean_rouge(item.answer, item.reference) for item in items]


def _rouge(settings: BackendSettings) -> TextBackend:
    return Rouge()


def _minilm(settings: BackendSettings) -> TextBackend:
    from onethinker_jax.rewards.backends.minilm import MiniLM

    return MiniLM.from_settings(settings)


def _polar(settings: BackendSettings) -> TextBackend:
    from onethinker_jax.rewards.backends.polar import Polar

    return Polar.from_settings(settings)


def _judge(settings: BackendSettings) -> TextBackend:
    from onethinker_jax.rewards.backends.judge import Judge

    return Judge.from_settings(settings)


def _grabcut(settings: BackendSettings) -> MaskBackend:
    from onethinker_jax.rewards.backends.grabcut import GrabCut

    return GrabCut()


def _sam2(settings: BackendSettings) -> MaskBackend:
    from onethinker_jax.rewards.backends.sam2 import Sam2

    return Sam2.from_settings(settings)


TEXT_BACKENDS: dict[str, Callable[[BackendSettings], TextBackend]] = {
    "rouge": _rouge,
    "minilm": _minilm,
    "polar": _polar,
    "judge": _judge,
}
MASK_BACKENDS: dict[str, Callable[[BackendSettings], MaskBackend]] = {"grabcut": _grabcut, "sam2": _sam2}
MASK_BATCH = {"grabcut": 1, "sam2": 64}
"""Items in one batch by default: SAM2 encodes a picture once for all its prompts, GrabCut gains nothing."""
