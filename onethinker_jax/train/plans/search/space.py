"""The settings that a search tries: what changes how fast a step is, and not what it computes.

Everything else stays as the preset and the flags have it: prompts a step, samples a prompt, updates a step, rows of an
SFT update, lengths, learning rates, losses. Settings that the trainer would refuse are never made.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from onethinker_jax.model.attention.attention import check_heads
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.sharding import ShardingError
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.hosts import MeshSettings
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.plans.search.estimates import Estimator
from onethinker_jax.train.plans.targets import Target

SAME_UP_TO_ROUNDING = "the same numbers up to rounding"
# Setting -> what stays the same where it changes.
CHANGES = {
    "mesh.data": SAME_UP_TO_ROUNDING,
    "mesh.fsdp": SAME_UP_TO_ROUNDING,
    "mesh.tensor": SAME_UP_TO_ROUNDING,
    "model.remat": SAME_UP_TO_ROUNDING,
    "sft.batch.rows": "as many rows an update of the same examples, which meet in other batches",
    "sft.accumulate": "as many rows an update of the same examples, which meet in other batches",
    "rl.batch.rows": SAME_UP_TO_ROUNDING,
    "rl.batch.tokens": SAME_UP_TO_ROUNDING,
    "rl.rollout.prompt_slots": SAME_UP_TO_ROUNDING,
    "rl.rollout.prefill_rows": SAME_UP_TO_ROUNDING,
    "rl.rollout.prompt_buckets": SAME_UP_TO_ROUNDING,
    "rl.rollout.kv_dtype": "a sampler of other probabilities, for which rl.loss.importance_sampling corrects",
    "rl.rollout.weights_dtype": "a sampler of other probabilities, for which rl.loss.importance_sampling corrects",
    "evaluation.sampler.prompt_slots": SAME_UP_TO_ROUNDING,
}
MOST_ROWS = 4  # of a micro-batch a data shard
BUCKETS = (1, 4)


@dataclass(frozen=True)
class Candidate:
    """Settings, and what of them differs from the ones that the search began with."""

    config: TrainConfig
    changes: dict[str, Any] = field(default_factory=dict)  # dotted name -> value

    @property
    def flags(self) -> str:
        """The changes as a command line."""
        return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in self.changes.items())


def candidates(
    base: TrainConfig, sizes: Qwen3VLConfig, target: Target, estimator: Estimator, *, buckets: bool
) -> tuple[list[Candidate], Counter[str]]:
    """The settings to choose from, `base` first; and how many meshes were refused, by reason.

    `buckets`: prompts are shorter than the longest, so that sizes to pad them to matter.
    """
    found: dict[tuple[tuple[str, Any], ...], Candidate] = {(): Candidate(base)}
    refused: Counter[str] = Counter()
    for mesh in _meshes(len(target.devices)):
        if reason := _refusal(mesh, sizes, target, estimator):
            refused[reason] += 1
            continue
        on_mesh = _on(base, mesh)
        if on_mesh is None:
            refused["the settings' rows do not divide"] += 1
            continue
        for config in _tried(on_mesh, buckets=buckets):
            changes = changed(base, config)
            found.setdefault(tuple(changes.items()), Candidate(config, changes))
    return list(found.values()), refused


def _meshes(devices: int) -> Iterator[MeshSettings]:
    """All ways to lay the devices along data, fsdp and tensor."""
    divisors = [n for n in range(1, devices + 1) if devices % n == 0]
    for data, tensor in itertools.product(divisors, divisors):
        if devices % (data * tensor) == 0:
            yield MeshSettings(data, devices // (data * tensor), tensor)


def _refusal(mesh: MeshSettings, sizes: Qwen3VLConfig, target: Target, estimator: Estimator) -> str:
    """Why the trainer could not take the mesh, or nothing."""
    a_process = min(Counter(device.process_index for device in target.devices).values())
    if a_process % mesh.tensor:
        return f"tensor is split over processes of {a_process} devices"
    text, vision = sizes.text, sizes.vision
    try:
        check_heads(text.num_heads, text.num_kv_heads, mesh.tensor)
        check_heads(vision.num_heads, vision.num_heads, mesh.tensor)
        estimator.holdings(mesh)
    except ShardingError as error:
        return str(error)
    return ""


def _on(base: TrainConfig, mesh: MeshSettings) -> TrainConfig | None:
    """`base` on the mesh; rows of what is not searched rise to the next multiple of its data shards."""
    if mesh == base.mesh:
        return base
    shards, sft, rl, answers = mesh.data * mesh.fsdp, base.sft, base.rl, base.evaluation.sampler

    def up(rows: int) -> int:
        return -(-rows // shards) * shards

    rows = min(up(sft.batch.rows), sft.batch.rows * sft.accumulate) if sft.steps else up(sft.batch.rows)
    if sft.steps and (rows % shards or sft.batch.rows * sft.accumulate % rows):
        return None
    accumulate = sft.batch.rows * sft.accumulate // rows if sft.steps else sft.accumulate
    slots = rl.rollout.prompt_slots
    rollout = rl.rollout if slots is None else replace(rl.rollout, prompt_slots=up(slots))
    try:
        return replace(
            base,
            mesh=mesh,
            sft=replace(sft, batch=replace(sft.batch, rows=rows), accumulate=accumulate),
            rl=replace(rl, batch=replace(rl.batch, rows=up(rl.batch.rows)), rollout=rollout),
            evaluation=replace(
                base.evaluation,
                sampler=answers
                if answers.together % shards == 0
                else replace(answers, prompt_slots=up(answers.together)),
            ),
        )
    except SettingError:
        return None


def _tried(base: TrainConfig, *, buckets: bool) -> Iterator[TrainConfig]:
    """`base` with other rows, row lengths, slots and so on, on its own mesh."""
    remats = ("full", "dots", "none")
    updates = list(_sft_batches(base)) if base.sft.steps else [base.sft]
    rollouts = list(_rl_settings(base, buckets=buckets)) if base.rl.steps else [base.rl]
    for remat, sft, rl in itertools.product(remats, updates, rollouts):
        yield replace(base, model=replace(base.model, remat=remat), sft=sft, rl=rl)


def _sft_batches(base: TrainConfig) -> Iterator[Any]:
    """As many rows an update, cut into other micro-batches."""
    sft, shards = base.sft, base.mesh.data * base.mesh.fsdp
    whole = sft.batch.rows * sft.accumulate
    sizes = {sft.batch.rows, *(shards * times for times in _doubled(MOST_ROWS))}
    for rows in sorted(sizes):
        if whole % rows == 0:
            yield replace(sft, batch=replace(sft.batch, rows=rows), accumulate=whole // rows)


def _rl_settings(base: TrainConfig, *, buckets: bool) -> Iterator[Any]:
    """Other rows of an update, and other slots of the sampler."""
    rl, rollout, shards = base.rl, base.rl.rollout, base.mesh.data * base.mesh.fsdp
    group = rollout.group_size
    lengths = {
        rollout.prompt_tokens + samples * rollout.max_new_tokens
        for samples in range(1, group + 1)
        if group % samples == 0
    }
    groups = rl.prompts_per_step // rl.num_minibatches
    batches = []
    for tokens in sorted({rl.batch.tokens, *lengths}):
        in_a_row = max((tokens - rollout.prompt_tokens + 1) // rollout.max_new_tokens, 1)
        needed = groups * -(-group // min(in_a_row, group))  # rows of an update at full lengths
        most = max(-(-needed // shards) * shards, rl.batch.rows)
        sizes = {rl.batch.rows, *(shards * times for times in _doubled(MOST_ROWS))}
        batches += [replace(rl.batch, tokens=tokens, rows=rows) for rows in sorted(sizes) if rows <= most]
    samplers = list(_samplers(base, buckets=buckets))
    for batch, sampler in itertools.product(batches, samplers):
        yield replace(rl, batch=batch, rollout=sampler)


def _samplers(base: TrainConfig, *, buckets: bool) -> Iterator[Any]:
    """Slots that share a step's prompts evenly, few prompts prefilled at once, the cache's and the matrices' dtypes."""
    rl, rollout, shards = base.rl, base.rl.rollout, base.mesh.data * base.mesh.fsdp
    together = rollout.all_together(rl.prompts_per_step).together
    slots: list[int | None] = [
        count
        for count in range(shards, rl.prompts_per_step + 1, shards)
        if rl.prompts_per_step % count == 0 and count != together
    ]
    corrected: set[Any] = {"int8"} if rl.loss.importance_sampling != "none" else set()
    caches, matrices = {rollout.kv_dtype} | corrected, {rollout.weights_dtype} | corrected
    sizes = {rollout.prompt_buckets, *BUCKETS} if buckets else {rollout.prompt_buckets}
    for count in [rollout.prompt_slots, *slots]:
        of_slots = replace(rollout, prompt_slots=count)
        usual = rollout.prefill_rows or min(of_slots.all_together(rl.prompts_per_step).together, 8)
        rows = {rollout.prefill_rows} | ({shards} if -(-usual // shards) > 1 else set())
        for prefill, cache, matrix, bucket in itertools.product(rows, caches, matrices, sizes):
            yield replace(
                of_slots, prefill_rows=prefill, kv_dtype=cache, weights_dtype=matrix, prompt_buckets=bucket
            )


def _doubled(most: int) -> list[int]:
    return [2**n for n in range(most.bit_length())]


def changed(base: Any, other: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value, of the settings that differ."""
    found: dict[str, Any] = {}
    for one in fields(base):
        before, after = getattr(base, one.name), getattr(other, one.name)
        if is_dataclass(before) and is_dataclass(after):
            found |= changed(before, after, f"{prefix}{one.name}.")
        elif before != after:
            found[f"{prefix}{one.name}"] = after
    return found
