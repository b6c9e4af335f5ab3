"""A trial: one arm, mixture and seed, which is one run of the trainer; its name, its settings and their digest."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.arms import BASELINE, settings_of
from onethinker_jax.files import whole_folder, write_whole
from onethinker_jax.tasks import Task
from onethinker_jax.train.config.checkpoints import CheckpointSettings, KeepSettings
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.run_folder import RunFolder

RL_FILE = "onethinker_rl_train.json"
HELDOUT_FILES = "eval_*.json"
START = "start"
"""The run that answers the held-out records with the SFT model, once for all trials."""


@dataclass(frozen=True)
class Trial:
    """An arm with a mixture and a seed; `learning_rate` None is the base's."""

    arm: str
    mixture: str = "mixed"
    seed: int = 0
    learning_rate: float | None = None

    @property
    def name(self) -> str:
        """The name of its run and of its line."""
        rate = "" if self.learning_rate is None else f"-rate_{self.learning_rate:g}"
        return BASELINE if self.arm == BASELINE else f"{self.mixture}-{self.arm}{rate}-seed_{self.seed}"


@dataclass(frozen=True)
class Study:
    """What all trials have in common: the settings that arms change, the folder, and the tasks of the RL records."""

    base: TrainConfig
    out: Path
    tasks: Sequence[Task]

    def config(self, trial: Trial) -> TrainConfig:
        """The settings of the trial's run."""
        if trial.arm == BASELINE:
            return replace(self.base, out=self.out, name=START)
        config = settings_of(self.base, trial.arm, trial.mixture, self.tasks, trial.learning_rate)
        return replace(config, out=self.out / "runs", name=trial.name, seed=trial.seed)

    def log(self, trial: Trial) -> Path:
        """What the trial's run says; names have dots of their own, as in `decay_0.9`."""
        config = self.config(trial)
        return config.out / f"{config.name}.log"

    def take_start(self, config: TrainConfig) -> None:
        """Gives a run, before it begins, the SFT model's held-out answers and the records' lengths: made once.

        There are no lengths where `data.check_lengths` is none.
        """
        start = RunFolder(self.out / START)
        for mine, others in ((config.folder.heldout, start.heldout), (config.folder.lengths, start.lengths)):
            if others.is_dir() and not mine.is_dir():
                with whole_folder(mine) as aside:
                    shutil.copytree(others, aside, dirs_exist_ok=True)

    @property
    def results(self) -> Path:
        """The lines of all trials."""
        return self.out / "results.jsonl"


@dataclass(frozen=True)
class Sizes:
    """How much of a study there is; None is what the preset or the file has."""

    steps: int | None = None
    """RL steps."""
    prompts: int | None = None
    """Groups of a step, at the preset's G."""
    heldout: int | None = None
    """Held-out records, with every task's share."""


def make_study(base: TrainConfig, out: Path, start: Path, data: Path, sizes: Sizes) -> Study:
    """The study of RL from the model in `start` on the records in `data`.

    Raises SettingError or FileNotFoundError naming what cannot be used.
    """
    rl_file = data / RL_FILE
    if not rl_file.is_file():
        raise FileNotFoundError(f"{rl_file}: no such file")
    found = sorted(data.glob(HELDOUT_FILES))
    if len(found) != 1:
        raise SettingError(f"{data}: holds {len(found)} files {HELDOUT_FILES}, not one")
    heldout = found[0] if sizes.heldout is None else _part_of(found[0], sizes.heldout, out / "heldout.json")
    steps, prompts = (
        given if given is not None else own
        for given, own in ((sizes.steps, base.rl.steps), (sizes.prompts, base.rl.prompts_per_step))
    )
    config = replace(
        base,
        model=replace(base.model, init_from=start, tiny=True),
        data=replace(base.data, sft_file=None, rl_file=rl_file, heldout_file=heldout, media_root=data),
        sft=replace(base.sft, steps=0),
        rl=replace(base.rl, steps=steps, prompts_per_step=prompts),
        evaluation=replace(base.evaluation, gallery=0),
        log=replace(base.log, table_every=0, rollouts_every=0, wandb=None),
        checkpoints=CheckpointSettings(keep=KeepSettings(last=1)),
    )
    rows = json.loads(rl_file.read_text(encoding="utf-8"))
    return Study(config, out, sorted({_task(row) for row in rows}))


def _task(row: dict[str, Any]) -> Task:
    return Task.of(row["problem_type"], row["data_type"])


def _part_of(file: Path, count: int, out: Path) -> Path:
    """`count` records of the file with every task's share as in the whole, in their order; raises SettingError."""
    rows = json.loads(file.read_text(encoding="utf-8"))
    if not 0 < count <= len(rows):
        raise SettingError(f"--heldout {count}: {file} holds {len(rows)} records")
    by_task = sorted(range(len(rows)), key=lambda number: str(_task(rows[number])))
    chosen = sorted(by_task[i * len(rows) // count] for i in range(count))
    text = json.dumps([rows[number] for number in chosen])
    if not out.is_file() or out.read_text(encoding="utf-8") != text:  # lengths are kept by the file's time
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, text)
    return out


def digest_of(config: TrainConfig) -> str:
    """Of all that a run's numbers follow from: its settings, and the bytes of the model and the records it names."""
    settings = dataclasses.asdict(config)
    del settings["out"], settings["name"], settings["log"]
    data, found = settings["data"], hashlib.sha256()
    files = [data.pop("rl_file"), data.pop("heldout_file")]
    for name in [
        "media_root",
        *(name for name in data if name.startswith("world")),
    ]:  # how the records were made
        del data[name]
    del settings["model"]["init_from"]
    assert config.model.init_from is not None
    for file in [*sorted(config.model.init_from.glob("*.safetensors")), *files]:
        found.update(hashlib.sha256(file.read_bytes()).digest())
    found.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return found.hexdigest()[:16]
