"""Training: supervised fine-tuning and EMA-GRPO, their state, checkpoints, logs and export.

`advantages` is the method's own arithmetic, `sft` and `ema_grpo` are the two loops, `run` is a whole run, `config`
and `presets` its settings. The names below are imported on first use.
"""

from typing import TYPE_CHECKING

from onethinker_jax.lazy_names import lazy_names

if TYPE_CHECKING:
    from onethinker_jax.train.advantages import compute_advantages, init_moments
    from onethinker_jax.train.config.objective import AdvantageConfig
    from onethinker_jax.train.config.presets import PRESETS
    from onethinker_jax.train.config.run import TrainConfig
    from onethinker_jax.train.ema_grpo import train_ema_grpo
    from onethinker_jax.train.export.directory import export_model
    from onethinker_jax.train.export.stored_model import load_run
    from onethinker_jax.train.sft import train_sft

__all__ = [
    "PRESETS",
    "AdvantageConfig",
    "TrainConfig",
    "compute_advantages",
    "export_model",
    "init_moments",
    "load_run",
    "train_ema_grpo",
    "train_sft",
]

_HOME = {
    "advantages": ("compute_advantages", "init_moments"),
    "config.objective": ("AdvantageConfig",),
    "config.run": ("TrainConfig",),
    "ema_grpo": ("train_ema_grpo",),
    "export.directory": ("export_model",),
    "export.stored_model": ("load_run",),
    "config.presets": ("PRESETS",),
    "sft": ("train_sft",),
}
__getattr__, __dir__ = lazy_names(__name__, _HOME)
