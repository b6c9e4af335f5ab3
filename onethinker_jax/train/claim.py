"""The claim of a run's folder: it belongs to one configuration, and another is refused, naming what differs.

Settings that change no number of the run may change, a run may go on for more steps, and on other devices.
"""

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from onethinker_jax.files import write_whole
from onethinker_jax.train.checkpoints.checkpoints import CheckpointError, Checkpoints
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.health import HealthSettings
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.run_folder import RunFolder

# Where a run lies, how its media are decoded, where its sidecars are, what is shown and what is watched change no
# number of it.
_MAY_CHANGE = (
    "out",
    "checkpoints.directory",
    "checkpoints.keep.last",
    "checkpoints.keep.every",
    "checkpoints.keep.best",
    "checkpoints.checksums",
    "checkpoints.on_damaged",
    "data.cache_bytes",
    "data.check_lengths",
    "data.frame_cache",
    "data.frame_cache_bytes",
    "data.media_workers",
    "data.media_time_limit",
    "evaluation.patience",  # says only when RL stops
    "rl.prompts_ahead",
    "rl.save_every",
    "rl.save_rollouts",
    "sft.save_every",
    "sidecar.addresses",
    "sidecar.authorities",
    "sidecar.token_file",
    "sidecar.server_name",
    "sidecar.timeout",
    "sidecar.device",
    "sidecar.score_workers",
    "log.table_every",
    "log.rollouts_every",
    "log.rollout_groups",
    "log.wandb",
    "hosts.coordinator",
    "hosts.count",  # a checkpoint says itself how many wrote it
    "hosts.index",
    *(f"health.{field.name}" for field in dataclasses.fields(HealthSettings)),
    "preemption.deadline",
    "preemption.exit_status",
)

# Over which devices the run lies, and how their memory is used: these change the order of its sums, and nothing else.
_MAY_MOVE = (
    "mesh.data",
    "mesh.fsdp",
    "mesh.tensor",
    "model.remat",
    "rl.rollout_mesh",
    "rl.batch.rows",
    *(
        f"{sampler}.{name}"
        for sampler in ("rl.rollout", "evaluation.sampler")
        for name in (
            *("prompt_slots", "sample_slots", "decode_block"),
            *("prompt_buckets", "prefill_rows", "prefill_chunk_tokens"),
        )
    ),
)

# What may move where their product, the rows of an update, stays.
_ROWS_OF_AN_UPDATE = ("sft.batch.rows", "sft.accumulate")

# Settings of older runs that changed no number either, and are called otherwise now.
_GONE = ("keep_checkpoints",)


# What may also change where it only adds to what was done.
_MAY_GROW = ("sft.steps", "rl.steps")


def check_claim(config: TrainConfig) -> list[str]:
    """What is to be said of the settings in which a standing run differs and which may change; writes nothing.

    Raises SettingError naming the first setting in which it differs otherwise. A run that came to nothing, neither a
    checkpoint nor a held-out answer, may be begun again with other settings; a run may go on for more steps.
    """
    folder = config.folder
    differing = _standing_differences(config)
    checkpoints = epath.Path(config.checkpoint_directory)
    if not any(folder.heldout.glob("*")) and not (checkpoints.exists() and any(checkpoints.iterdir())):
        return []
    known = set(_names(plain(TrainConfig())))
    for name, _, _ in differing:
        if name not in known and "mixture" not in name:
            raise SettingError(
                f"{folder.path} holds a run of another version of onethinker_jax, with a setting {name} that this one "
                "does not know: go on with that version, choose another --name, or delete that folder"
            )
    movable = _movable(differing)
    for name, old, new in differing:
        if name not in (*_MAY_GROW, *movable):
            raise SettingError(
                f"{folder.path} holds a run with {name} {old!r}, not {new!r}: choose another --name, "
                "or delete that folder"
            )
    moved = [
        f"{name} {new!r} instead of {old!r}: sums are taken in another order from here, so that the run goes on "
        "equal to rounding, not in bits"
        for name, old, new in differing
        if name in movable
    ]
    grown = [difference for difference in differing if difference[0] in _MAY_GROW]
    if not grown:
        return moved
    stage, done = _reached(config, grown)
    return [*moved, *(_check_steps(config, name, old, new, stage, done) for name, old, new in grown)]


def _movable(differing: Sequence[tuple[str, Any, Any]]) -> tuple[str, ...]:
    """The settings that may move, given all that differ: an update's rows only where it has as many as before."""
    rows = [(old, new) for name, old, new in differing if name in _ROWS_OF_AN_UPDATE]
    if len(rows) == 2 and math.prod(old for old, _ in rows) == math.prod(new for _, new in rows):
        return (*_MAY_MOVE, *_ROWS_OF_AN_UPDATE)
    return _MAY_MOVE


def claim_directory(config: TrainConfig, notes: Sequence[str] | None = None) -> None:
    """Writes `config.json` into the run's directory, or checks the one that stands there, as `check_claim` does.

    `notes` is what that gave, where it was asked already: of several processes all must ask. Of a run that goes on
    for more steps the answers and the page of its old end are removed.
    """
    folder = config.folder
    notes = check_claim(config) if notes is None else notes
    if folder.settings.is_file():
        differing = _standing_differences(config)
        if not differing:
            return
        if notes:
            if grown := [name.partition(".")[0] for name, _, _ in differing if name in _MAY_GROW]:
                _forget_end(folder, grown)
        else:
            shutil.rmtree(folder.base, ignore_errors=True)
    folder.path.mkdir(parents=True, exist_ok=True)
    mine = plain(config)
    write_whole(folder.settings, json.dumps(mine, indent=2) + "\n")


def _standing_differences(config: TrainConfig) -> list[tuple[str, Any, Any]]:
    """(name, the standing run's value, this one's) of settings that may not change; none where no run stands."""
    file = config.folder.settings
    if not file.is_file():
        return []
    try:
        standing = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{file}: cannot be read ({error})") from error
    found = _differences(_with_defaults(standing, plain(TrainConfig())), plain(config))
    return [item for item in found if item[0] not in (*_MAY_CHANGE, *_GONE)]


def plain(config: TrainConfig) -> dict[str, Any]:
    """The settings as `config.json` holds them."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def check_settings(
    saved: dict[str, Any] | None, config: TrainConfig, stage: str, where: os.PathLike[str]
) -> None:
    """Raises CheckpointError where a checkpoint, of the settings `saved`, is of another run than this one.

    The run's folder says the same of itself. A checkpoint may lie elsewhere, or come from elsewhere.
    """
    if saved is None:
        return
    grown = ("rl.steps",) if stage == "rl" else _MAY_GROW
    differing = list(_differences(_with_defaults(saved, plain(TrainConfig())), plain(config)))
    allowed = {*_MAY_CHANGE, *_movable(differing), *_GONE, *grown}
    for name, old, new in differing:
        if name not in allowed:
            raise CheckpointError(f"checkpoint {where} is of a run with {name} {old!r}, not {new!r}")


def _names(settings: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Every setting and every weight of a mixture, by dotted names."""
    for name, value in settings.items():
        if isinstance(value, dict) and "mixture" not in name:
            yield from _names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _with_defaults(standing: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """A run's settings, with the default of each that did not exist when it was begun."""
    filled = {**defaults, **standing}
    for name, value in standing.items():
        if isinstance(value, dict) and isinstance(defaults.get(name), dict) and "mixture" not in name:
            filled[name] = _with_defaults(value, defaults[name])
    return filled


def _reached(config: TrainConfig, differing: Sequence[tuple[str, Any, Any]]) -> tuple[str, int]:
    """The stage of the newest checkpoint, and how many of its steps are done."""
    checkpoints = Checkpoints(config.checkpoint_directory)
    try:
        newest = checkpoints.newest()
    finally:
        checkpoints.close()
    if newest is None:
        return "sft", 0
    number, host = newest
    before = next((old for name, old, _ in differing if name == "sft.steps"), config.sft.steps)
    return host["stage"], number - (before if host["stage"] == "rl" else 0)


def _check_steps(config: TrainConfig, name: str, old: int, new: int, stage: str, done: int) -> str:
    """What is to be said where a standing run's stage gets another number of steps; raises SettingError."""
    where, of_stage = config.directory, name.partition(".")[0]
    if of_stage == "sft" and stage == "rl":
        raise SettingError(
            f"{where} holds a run with {name} {old}, not {new}: its RL has begun from the model after {old} of them; "
            "choose another --name"
        )
    if of_stage == stage and new < done:
        raise SettingError(
            f"{where} holds a run of which {done} {of_stage.upper()} steps are done: {name} {new} is less; choose "
            "another --name"
        )
    settings = getattr(config, of_stage).optimizer
    changed = [f"a {settings.schedule} schedule"] if settings.schedule == "cosine" else []
    if round(settings.warmup * old) != round(settings.warmup * new):
        changed.append("a warm-up")
    done = done if of_stage == stage else 0
    told = f"{name} {new} instead of {old}: this run goes on after {of_stage.upper()} step {done}"
    if changed and done:
        told += (
            f"; the learning rate has {' and '.join(changed)} over all steps, so that from here on it is that of a "
            f"run of {new}, which the steps before were not"
        )
    return told


def _forget_end(folder: RunFolder, stages: Sequence[str]) -> None:
    """Removes the answers of stages that go on, and what was written after them."""
    folder.page.unlink(missing_ok=True)
    for stage in ("sft", "rl") if "sft" in stages else ("rl",):
        for sampled in (False, True):
            folder.answers(stage, sampled=sampled).unlink(missing_ok=True)


def _differences(
    old: dict[str, Any], new: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}", before, after
