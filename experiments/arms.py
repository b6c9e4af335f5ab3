"""What is compared: arms (how rewards become updates) and mixtures (which tasks RL trains on), each a row of a table.

An arm sets every field that tells the arms apart, whatever the preset says: the advantage whole, and of the loss the
aggregation and the KL term. All else (data, steps, groups, sampler, learning rate, clipping of ratios) is the base's.

A run's seed is the trainer's: the order of prompts and the keys of the samples. The SFT model and the held-out records
are the same for all seeds, so that intervals over seeds say how sure RL's own part is, and nothing of another SFT model
or other records.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from onethinker_jax.spelling import hint
from onethinker_jax.tasks import PROBLEM_TYPES, Task, complete
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.objective import AdvantageConfig, Aggregation
from onethinker_jax.train.config.run import TrainConfig


@dataclass(frozen=True)
class Arm:
    """One way of RL, and where its settings are from."""

    title: str
    source: str
    advantage: AdvantageConfig = AdvantageConfig()
    aggregation: Aggregation = "token"
    kl_coefficient: float = 0.0
    group_size: int | None = None
    """Samples of a prompt, with as many fewer or more prompts a step; None: the base's."""


BASELINE = "none"
"""The SFT model itself, which no arm moves: an arm without a run."""

_PAPER = "arXiv 2512.03043"
_SWEPT = "of ema_grpo_paper, one setting changed"


def _ema(decay: float = 0.99, clip: float = 5.0) -> AdvantageConfig:
    return AdvantageConfig("ema_grpo", "paper", decay=decay, clip=clip)


ARMS: Mapping[str, Arm] = {
    "ema_grpo_paper": Arm("EMA-GRPO (paper)", _PAPER, _ema()),
    "ema_grpo_released": Arm(
        "EMA-GRPO (released)", f"the released code of {_PAPER}", AdvantageConfig("ema_grpo", "released")
    ),
    "grpo": Arm("GRPO", "arXiv 2402.03300, with the token mean of the others", AdvantageConfig("grpo")),
    "dr_grpo": Arm("Dr. GRPO", "arXiv 2503.20783", AdvantageConfig("dr_grpo"), aggregation="constant"),
    "rloo": Arm("RLOO", "arXiv 2402.14740, with the token mean of the others", AdvantageConfig("rloo")),
    "gdpo": Arm(
        "GDPO", "arXiv 2601.05242, components weighed as the reward sums them", AdvantageConfig("gdpo")
    ),
    "decay_0.9": Arm("decay 0.9", _SWEPT, _ema(decay=0.9)),
    "decay_0.999": Arm("decay 0.999", _SWEPT, _ema(decay=0.999)),
    "group_4": Arm("G 4, twice the prompts", _SWEPT, _ema(), group_size=4),
    "group_16": Arm("G 16, half the prompts", _SWEPT, _ema(), group_size=16),
    "clip_2": Arm("clip 2", _SWEPT, _ema(clip=2.0)),
    "clip_inf": Arm("no clip", _SWEPT, _ema(clip=inf)),
    "kl_0.01": Arm("KL 0.01 (k3)", _SWEPT, _ema(), kl_coefficient=0.01),
}
METHODS = ("ema_grpo_paper", "ema_grpo_released", "grpo", "dr_grpo", "rloo", "gdpo")
"""The arms that are methods; the others are sweeps of the first one."""

FAMILY: Mapping[str, str] = complete(
    "experiments.arms.FAMILY",
    {
        "multiple choice": "QA",
        "numerical": "QA",
        "regression": "QA",
        "OCR": "QA",
        "math": "QA",
        "open-ended": "captions",
        "temporal grounding": "temporal",
        "spatial grounding": "spatial",
        "spatial-temporal grounding": "spatial-temporal",
        "tracking": "tracking",
        "segmentation": "segmentation",
    },
    PROBLEM_TYPES,
)
"""The families of the paper's ablation, and captions (open-ended answers) apart."""

FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(FAMILY.values()))

SPARSE = ("multiple choice", "numerical", "OCR", "math")
"""Rewards that are right or wrong, or nearly so: a text of two or three words, as two fifths of the Shapes world's
OCR records have, is worth its share of right words. All others are dense."""


def family_of(task: str) -> str:
    """The family of a task by its name, such as "OCR (video)"."""
    return FAMILY[task.rpartition(" (")[0]]


def mixture_without(family: str) -> str:
    """The name of the mixture of all tasks but a family's."""
    return f"without_{family.replace('-', '_').lower()}"


def _mixtures() -> dict[str, frozenset[str]]:
    """Mixture -> the problem types that it trains on."""
    everything = frozenset(PROBLEM_TYPES)
    left_out = {
        mixture_without(family): frozenset(name for name in PROBLEM_TYPES if FAMILY[name] != family)
        for family in FAMILIES
    }
    return {
        "mixed": everything,
        "sparse": frozenset(SPARSE),
        "dense": everything - frozenset(SPARSE),
        **left_out,
    }


MIXTURES: Mapping[str, frozenset[str]] = _mixtures()
"""The tasks of RL: all, those with sparse or with dense rewards, all but a family. All are held-out tasks ever."""


def check_names(kind: str, names: Iterable[str], known: Sequence[str]) -> None:
    """Raises SettingError naming the first of `names` that is not known."""
    for name in names:
        if name not in known:
            raise SettingError(f"unknown {kind} {name!r}; there are: {', '.join(known)}{hint(name, known)}")


def settings_of(
    base: TrainConfig, arm: str, mixture: str, tasks: Sequence[Task], learning_rate: float | None
) -> TrainConfig:
    """The base's settings with those of an arm; `tasks` are those that the RL records have.

    Raises SettingError where the samples of a step do not divide into groups of the arm's size, or the mixture leaves
    out every record.
    """
    chosen, rl, data = ARMS[arm], base.rl, base.data
    group = chosen.group_size or rl.rollout.group_size
    samples = rl.prompts_per_step * rl.rollout.group_size
    if samples % group:
        raise SettingError(f"arm {arm}: {samples} samples a step are no whole number of groups of {group}")
    weights = {str(task): 0.0 for task in tasks if task.problem_type not in MIXTURES[mixture]}
    if len(weights) == len(tasks):
        raise SettingError(f"mixture {mixture}: the RL records have none of its tasks")
    optimizer = rl.optimizer if learning_rate is None else replace(rl.optimizer, learning_rate=learning_rate)
    return replace(
        base,
        data=replace(data, rl_mixture=replace(data.rl_mixture, tasks={**data.rl_mixture.tasks, **weights})),
        rl=replace(
            rl,
            prompts_per_step=samples // group,
            rollout=replace(rl.rollout, group_size=group),
            optimizer=optimizer,
            advantage=chosen.advantage,
            loss=replace(rl.loss, aggregation=chosen.aggregation, kl_coefficient=chosen.kl_coefficient),
        ),
    )
