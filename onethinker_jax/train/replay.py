"""An update at which a run stopped, computed once more: its losses by part, its gradient norms, what is not finite.

python -m onethinker_jax.train.replay runs/shapes

Works on the arrays that the update had and on the state that it met (`health/replay_folder.py`), in one process, on the
run's mesh or, where that has more devices than there are, on one. Nothing of the run is changed.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take seconds
    command_line.begin()

from onethinker_jax.train.replay_arguments import Arguments

if __name__ == "__main__":
    command_line.help_if_asked(Arguments, prog="python -m onethinker_jax.train.replay")

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from onethinker_jax.data_pipeline.batches.packing import Batch
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.parameters import split_adapters
from onethinker_jax.model.sharding import make_mesh, shard_rows
from onethinker_jax.responses import sampling_config, suppressed_ids
from onethinker_jax.tasks import MOMENTS
from onethinker_jax.text_output import one_line
from onethinker_jax.train.config.read import read_config
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.health.replay_folder import Replay, batch_of, newest_replay, read_replay
from onethinker_jax.train.optimizer import make_optimizer, parameter_names
from onethinker_jax.train.plans.shapes import state_shapes, training_layout
from onethinker_jax.train.policy import Policy, abstract_model, make_model
from onethinker_jax.train.rl.policy_update import PolicyBatch, rl_update
from onethinker_jax.train.run_folder import RunFolder
from onethinker_jax.train.sft import sft_update
from onethinker_jax.train.state import Sums, TrainState, Update

STACKED = ("layers", "blocks")
"""Parts of the model whose parameters are stacked: the first axis is the layer."""


@dataclass(frozen=True)
class Opened:
    """The update's program, the state that it met, and what adapters are added to."""

    update: Update
    state: TrainState
    base: nnx.State | None
    mesh: Mesh

    def gradients(self, batch: Any) -> tuple[nnx.State, Sums]:
        """Summed gradients and sums of one micro-batch."""
        zeros = self.update.zeros(self.state.params)
        laid = shard_rows(batch, self.mesh)
        return self.update.accumulate(self.state.params, self.state.reference, zeros, laid, self.base)


def open_replay(replay: Replay, config: TrainConfig, folder: RunFolder) -> Opened:
    """Compiles nothing yet; raises CheckpointError, ConfigError or ProcessorError naming what cannot be read."""
    size = config.mesh.data * config.mesh.fsdp * config.mesh.tensor
    fits = size <= jax.device_count()
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor) if fits else make_mesh()
    model = abstract_model(Qwen3VLConfig.from_directory(folder.base), config.model)
    graphdef, shapes = nnx.split(model)
    policy = Policy(graphdef, mesh, config.model.compute_dtype)
    base = None
    if config.model.lora.rank:
        _, base = split_adapters(nnx.state(make_model(config, folder.base, mesh)))
    if replay.facts["stage"] == "sft":
        sft = config.sft
        optimizer = make_optimizer(sft.optimizer, sft.steps, train_vision=sft.train_vision)
        update, tasks, reference = sft_update(policy, optimizer, sft), 1, False
    else:
        rl, processor = config.rl, Processor.from_pretrained(folder.base)
        optimizer = make_optimizer(rl.optimizer, rl.steps * rl.num_minibatches, train_vision=True)
        sampling = sampling_config(
            rl.rollout, eos_ids=processor.ends.eos_ids, suppressed_ids=suppressed_ids(processor)
        )
        update = rl_update(policy, optimizer, rl, sampling)
        tasks, reference = len(MOMENTS), rl.loss.kl_coefficient > 0
    trained = training_layout(shapes, mesh)["parameters"]
    like, _ = state_shapes(trained, optimizer, tasks, mesh, reference=reference)
    return Opened(update, replay.state(like), base, mesh)


def micro_batch(stage: str, arrays: Mapping[str, np.ndarray]) -> Batch | PolicyBatch:
    """A micro-batch as the update had it."""
    if stage == "sft":
        return batch_of(arrays)
    old: Any = arrays.get("old")
    return PolicyBatch(
        batch_of(arrays, "batch."), arrays["advantages"], arrays["sampled"], arrays["sample_index"], old
    )


def only_row(batch: Any, row: int) -> Any:
    """The micro-batch with the targets of one row alone."""
    if isinstance(batch, PolicyBatch):
        return replace(batch, batch=only_row(batch.batch, row))
    mask = np.zeros_like(batch.target_mask)
    mask[row] = batch.target_mask[row]
    return replace(batch, target_mask=mask)


def not_finite(tree: Any, what: str) -> Iterator[str]:
    """A line for each array of a tree that has values which are NaN or infinite: how many, and in which layers."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            continue
        bad = np.asarray(jax.device_get(~jnp.isfinite(leaf)))
        if not bad.any():
            continue
        names = parameter_names(path)
        line = f"{what} {'.'.join(names)}: {bad.sum():,} of {bad.size:,} values"
        if set(names) & set(STACKED):
            layers = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
            line += f", in layers {', '.join(map(str, layers))} of {len(bad)}"
        yield line


def bad_inputs(number: int, arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """A line for each array of a micro-batch with values that are not finite, naming its rows."""
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            rows = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
            yield f"input {name} of micro-batch {number}: in rows {', '.join(map(str, rows))}"


def part_norms(gradients: nnx.State) -> dict[str, float]:
    """The gradient norm of each part of the model, by the first two names of its parameters."""
    parts: dict[str, list[jax.Array]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        parts.setdefault(".".join(parameter_names(path)[:2]), []).append(leaf)
    return {name: float(optax.global_norm(leaves)) for name, leaves in parts.items()}


def records_of(
    replay: Replay, number: int, row: int | None = None, samples: np.ndarray | None = None
) -> list[str]:
    """Which records a micro-batch holds, or of RL a row of it, whose sample numbers are int32 [B, T] `samples`."""
    if replay.facts["stage"] == "sft":
        found = [record for record in replay.records if record["micro_batch"] == number]
    elif samples is None or replay.facts["processes"] > 1:  # each process numbers its own
        found = replay.records
    else:
        size = len(replay.records[0]["samples"])
        mine = samples if row is None else samples[row]
        found = [replay.records[group] for group in sorted({int(n) // size for n in mine[mine >= 0]})]
    return [record["origin"] or f"record {record['problem_id']}" for record in found]


def show(replay: Replay, opened: Opened, console: Console, *, most: int) -> None:
    """Prints the update part by part, and `most` lines of what is not finite."""
    facts, state = replay.facts, opened.state
    console.print(
        f"{facts['stage']} step {facts['step']}: loss {facts['loss']}, gradient norm {facts['grad_norm']} in the run; "
        f"{len(replay.micro_batches)} micro-batches, {len(replay.records)} records, {facts['processes']} processes"
    )
    kept = {"parameter": state.params, "optimiser": state.optimizer, "reference": state.reference}
    lines = [line for what, tree in kept.items() for line in not_finite(tree, what)]
    total, rows, broken = None, [], []
    for number, arrays in enumerate(replay.micro_batches):
        lines += bad_inputs(number, arrays)
        batch = micro_batch(facts["stage"], arrays)
        gradients, sums = opened.gradients(batch)
        rows.append(_row(str(number), gradients, sums))
        total = gradients if total is None else jax.tree.map(jnp.add, total, gradients)
        if not np.isfinite(float(optax.global_norm(gradients))) or not np.isfinite(float(sums["loss"])):
            broken.append((number, batch))
    assert total is not None
    _print_table(console, "Micro-batches", ["", "loss", "gradient", "tokens", "other sums"], rows)
    _print_table(
        console, "Gradient by part", ["", "norm"], [[k, f"{v:.6g}"] for k, v in part_norms(total).items()]
    )
    lines += not_finite(total, "gradient")
    _show_rows(replay, opened, broken, console)
    for line in lines[:most]:
        console.print(f"not finite: {line}")
    if len(lines) > most:
        console.print(f"not finite: {len(lines) - most} more")
    if not lines and not broken:
        console.print(
            "everything is finite here: the run's machine or version computed something else, or a device was at fault"
        )


def _show_rows(replay: Replay, opened: Opened, broken: Sequence[tuple[int, Any]], console: Console) -> None:
    """The rows of the micro-batches that are not finite, each computed alone, and the records that these hold."""
    rows = []
    for number, batch in broken:
        samples = np.asarray(batch.sample_index) if isinstance(batch, PolicyBatch) else None
        inner = batch.batch if isinstance(batch, PolicyBatch) else batch
        for row in range(len(inner.targets)):
            gradients, sums = opened.gradients(only_row(batch, row))
            held = ", ".join(records_of(replay, number, row, samples))
            rows.append([*_row(f"{number}, row {row}", gradients, sums)[:4], one_line(held)])
    if rows:
        title = "Rows of the micro-batches that are not finite, each alone"
        of = "records of the row" if replay.facts["stage"] == "rl" else "records of the micro-batch"
        _print_table(console, title, ["", "loss", "gradient", "tokens", of], rows)


def _row(name: str, gradients: nnx.State, sums: Sums) -> list[str]:
    values = {key: float(value) for key, value in sums.items()}
    loss, tokens = values.pop("loss"), values.pop("tokens")
    others = ", ".join(f"{key} {value:.6g}" for key, value in values.items())
    return [name, f"{loss:.6g}", f"{float(optax.global_norm(gradients)):.6g}", f"{tokens:,.0f}", others]


def _print_table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table, markup=False)


def run(arguments: Arguments) -> None:
    """Reads the newest update that was kept, and shows it."""
    replay = read_replay(newest_replay(arguments.run))
    folder = RunFolder(replay.folder.resolve().parent.parent)
    config = read_config(folder.settings)
    opened = open_replay(replay, config, folder)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    with jax.set_mesh(opened.mesh):
        show(replay, opened, console, most=arguments.lines)


main = partial(command_line.main, Arguments, run, prog="python -m onethinker_jax.train.replay")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
