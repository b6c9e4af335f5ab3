"""A whole run: every stage's settings, and what a person sees of it.

Imports no JAX, nor does any file of this folder: `--help` is instant. All device shapes follow from here: rows x
tokens and rows x patches of a batch never change during a run.
"""

from dataclasses import dataclass, field
from pathlib import Path

from onethinker_jax.host_settings import HostSettings
from onethinker_jax.rewards.client.sidecar import SidecarSettings
from onethinker_jax.rewards.score import RewardSettings
from onethinker_jax.train.config.checkpoints import CheckpointSettings
from onethinker_jax.train.config.checks import SettingError, at_least_zero, check_rows, positive
from onethinker_jax.train.config.data import DataSettings
from onethinker_jax.train.config.evaluation import EvaluationSettings
from onethinker_jax.train.config.health import HealthSettings
from onethinker_jax.train.config.hosts import MeshSettings
from onethinker_jax.train.config.model import ModelSettings
from onethinker_jax.train.config.preemption import PreemptionSettings
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.config.sft import SFTSettings
from onethinker_jax.train.run_folder import RunFolder


@dataclass(frozen=True)
class LogSettings:
    """What a person sees of a run beside its curves; changes no number of it."""

    table_every: int = 10
    """RL steps between tables of the metrics on the console; 0: none."""
    rollouts_every: int = 10
    """RL steps between pages of rollouts in the run's `rollouts` folder; 0: none."""
    rollout_groups: int = 12
    """Prompts with their samples on such a page, evenly over the tasks."""
    wandb: str | None = None
    """Weights & Biases project that metrics also go to; needs the package wandb, and an account or
    WANDB_MODE=offline."""

    def __post_init__(self) -> None:
        at_least_zero("log", self, "table_every", "rollouts_every")
        positive("log", self, "rollout_groups")


@dataclass(frozen=True)
class TrainConfig:
    """A whole run: data, SFT, EMA-GRPO, evaluation and export, under `out/name`."""

    name: str = "shapes"
    """The run's name: its folder is `out/name`, and the same command goes on in it."""
    out: Path = Path("runs")
    """Folder of all runs."""
    seed: int = 0
    """Of the weights, the order of records and the samples."""
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    sft: SFTSettings = field(default_factory=SFTSettings)
    rl: RLSettings = field(default_factory=RLSettings)
    reward: RewardSettings = field(default_factory=RewardSettings)
    sidecar: SidecarSettings = field(default_factory=SidecarSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    mesh: MeshSettings = field(default_factory=MeshSettings)
    hosts: HostSettings = field(default_factory=HostSettings)
    log: LogSettings = field(default_factory=LogSettings)
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    health: HealthSettings = field(default_factory=HealthSettings)
    preemption: PreemptionSettings = field(default_factory=PreemptionSettings)

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise SettingError(f"name {self.name!r} must be a plain folder name")
        if self.seed < 0:
            raise SettingError(f"seed {self.seed} must be at least 0")
        self._check_files()
        self._check_vision_adapters()
        batches = {
            "sft.batch.rows": self.sft.batch.rows,
            "rl.batch.rows": self.rl.batch.rows,
            "evaluation.sampler.prompt_slots": self.evaluation.sampler.together,
        }
        slots = self.rl.rollout.prompt_slots
        rollouts = {"rl.prompts_per_step": self.rl.prompts_per_step}
        if slots is not None:
            rollouts = {"rl.rollout.prompt_slots": slots}
        if self.rl.rollout_mesh is None:
            batches |= rollouts
        else:
            data, fsdp, _ = self.rl.rollout_mesh
            check_rows(rollouts, "rl.rollout_mesh's data x fsdp", data * fsdp)
        check_rows(batches, "mesh.data x mesh.fsdp", self.mesh.data * self.mesh.fsdp)
        if self.rl.overlap and self.rl.rollout_mesh is None and self.mesh.size > 1:
            raise SettingError(
                f"rl.overlap on a mesh of {self.mesh.size} devices needs rl.rollout_mesh: two threads that start "
                "programs on the same devices may start them in different orders, and wait for each other forever"
            )

    def _check_files(self) -> None:
        data = self.data
        if data.sft_file is data.rl_file is data.heldout_file is None:
            return
        needed = {"data.heldout_file": data.heldout_file}
        if self.sft.steps or self.model.init_from is None:  # a fresh model's tokenizer is trained on them
            needed["data.sft_file"] = data.sft_file
        if self.rl.steps:
            needed["data.rl_file"] = data.rl_file
        missing = [name for name, file in needed.items() if file is None]
        if missing:
            rest = "name all three, or none" if len(needed) == 3 else f"name {' and '.join(needed)}, or none"
            raise SettingError(f"{' and '.join(missing)}: not named; {rest}")

    def _check_vision_adapters(self) -> None:
        lora, sft = self.model.lora, self.sft
        if not lora.rank:
            return
        if sft.steps and sft.train_vision and not lora.vision:
            raise SettingError(
                "sft.train_vision: of a vision tower without adapters nothing is trained; set model.lora.vision, or "
                "sft.train_vision False"
            )
        if lora.vision and not self.rl.steps and not sft.train_vision:
            raise SettingError("model.lora.vision: nothing trains these adapters; set sft.train_vision")

    @property
    def directory(self) -> Path:
        """Folder of the run, `out/name`."""
        return self.out / self.name

    @property
    def checkpoint_directory(self) -> str:
        """Where the run's checkpoints lie."""
        return self.checkpoints.directory or str(self.folder.checkpoints)

    @property
    def folder(self) -> RunFolder:
        """The paths in `directory`."""
        return RunFolder(self.directory)
