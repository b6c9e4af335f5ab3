"""Where a run's numbers come from: when, by which command and commit, of which model and data, on which machine."""

import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

import jax
from flax import nnx

import onethinker_jax
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.run_folder import RunFolder


def run_facts(config: TrainConfig, *, records: int) -> dict[str, str]:
    """Name -> what the page says of the run; `records` are those held out."""
    rl = config.rl
    return {
        "Finished": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "Duration": _duration(config.folder),
        "Hardware": hardware(),
        "Model": _model(config),
        "Data": data(config, records),
        "SFT": f"{config.sft.steps:,} updates" if config.sft.steps else "none",
        "RL": f"{rl.steps:,} steps of {rl.prompts_per_step} prompts x {rl.rollout.group_size} samples",
        "Method": f"{rl.advantage.method}, {rl.advantage.variant} variant; {config.reward.variant} rewards",
        "Seed": str(config.seed),
        "Code": code_version(),
        "Command": command(),
    }


def command() -> str:
    """What this process was started with, as a shell takes it; the interpreter by its name alone."""
    program, *rest = sys.orig_argv
    return shlex.join([Path(program).name, *rest])


def code_version() -> str:
    """The commit of a git checkout, and whether files differ from it; elsewhere the package's version."""
    package = Path(onethinker_jax.__file__).parent
    version = f"onethinker_jax {onethinker_jax.__version__}"

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(package), *arguments], capture_output=True, text=True, check=False
            )
        except OSError:
            return None  # there is no git
        return done.stdout.strip() if done.returncode == 0 else None

    # a package that is installed inside somebody else's checkout is not of its commits
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return version
    commit, changed = git("rev-parse", "--short=12", "HEAD"), git("status", "--porcelain", "--", ".")
    if commit is None:
        return version
    return f"{version}, commit {commit}{' with changes' if changed else ''}"


def hardware() -> str:
    """The devices, and the machine that they are in; of several hosts the first one's."""
    devices = jax.devices()
    kind = devices[0].device_kind
    where = f"{os.cpu_count()} {platform.machine()} CPU cores"
    if devices[0].platform == "cpu":
        named = where if len(devices) == 1 else f"{where}, as {len(devices)} devices"
    else:
        named = f"{len(devices)} x {kind}, {where}"
    return named if jax.process_count() == 1 else f"{named} a host, {jax.process_count()} hosts"


def data(config: TrainConfig, records: int) -> str:
    """The corpora by the names of their files."""
    settings = config.data
    if settings.sft_file is None:
        sft = settings.world_sft + settings.world_captions
        return (
            f"{settings.world.capitalize()} world, seed {settings.world_seed}: {sft:,} SFT, "
            f"{settings.world_rl:,} RL, {records:,} held-out records"
        )
    named = {"SFT": settings.sft_file, "RL": settings.rl_file, f"{records:,} held out": settings.heldout_file}
    return ", ".join(f"{file.name} ({what})" for what, file in named.items() if file is not None)


def _model(config: TrainConfig) -> str:
    """Where its weights came from, and how many they are."""
    shapes = nnx.eval_shape(
        lambda: Qwen3VL(Qwen3VLConfig.from_directory(config.folder.base), rngs=nnx.Rngs(0))
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(shapes)))
    size = f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.2f}M"
    source = config.model.init_from
    return f"{source.resolve().name if source else 'fresh'}, {size} parameters"


def _duration(folder: RunFolder) -> str:
    """From the run's first setting on disk to now, so with every pause between its parts."""
    seconds = max(time.time() - folder.settings.stat().st_mtime, 0.0)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    said = f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
    return f"{said} from begin to end"
