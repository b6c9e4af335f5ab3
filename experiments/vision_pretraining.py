"""A fresh vision tower learns to see the Shapes world, visual token by visual token; the decoder stays as it is made.

    python -m experiments.vision_pretraining OUT [--steps 4000] [--tower MODEL] [-- shapes_base --data.…]

What a released Qwen3-VL has from its encoder's pretraining, a model that starts from nothing must get somewhere: from
captions alone it learns colours and places soon, and shapes hardly at all (docs/results.md). Here every visual token,
and every DeepStack feature of it, says of each of its two frames what most of its 32 x 32 pixels belong to (colour,
shape, size, place, way and box of the object, or background) and which characters have their middle in it, in order
(`visual_labels.py`). The sides of the box are also said as answers begin to write them, by their hundreds of a
thousandth of the frame: a decoder can copy what it would have to work out of a number. Linear heads read all that; they
are thrown away.

The run's data, tokenizer and fresh model are those of the preset `shapes_base`, made in OUT; `OUT/model` is what
`python -m onethinker_jax.train shapes_base --model.init-from OUT/model …` goes on from.
"""

from onethinker_jax import command_line

if __name__ == "__main__":
    command_line.begin()

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx

from experiments.visual_labels import (
    CLASSES,
    GROUPS,
    NOT_TOLD,
    OUTPUTS,
    Group,
    Pictures,
    draw_batch,
    labels_of,
)
from experiments.words import Command, say, split_words
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.errors import UserError
from onethinker_jax.model.hf_weights import load_hf
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.train.__main__ import parse as parse_trainer
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.export.directory import export_model
from onethinker_jax.train.hosts import join_hosts
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.run import begin, first_policy, open_log, prepare

PROG = "python -m experiments.vision_pretraining"


@dataclass(frozen=True)
class Arguments:
    """Trains a fresh vision tower on pictures drawn by lot; after `--` the trainer's words, by default shapes_base."""

    out: tyro.conf.Positional[Path]
    """Folder of the run; its `model` is a Hugging Face directory."""
    steps: int = 4000
    """Updates."""
    rows: int = 32
    """Images, or rows of video frames, of an update."""
    colours: int = len(CLASSES["colour"])
    """How many colours objects have. With one, shapes are learnt from far fewer pictures (docs/results.md)."""
    tower: Path | None = None
    """A Hugging Face directory whose tower is trained on, in place of a fresh one. With `--steps 0` it is taken as it
    is, behind it a fresh decoder and a tokenizer of another world."""
    heads_first: int = 0
    """Updates of the heads alone, before those of `--steps`: heads that start at nothing would first spoil a tower that
    sees already."""
    seed: int = 0
    """Of the pictures."""
    log_every: int = 200
    """Updates between lines, which say what share of fresh tokens with an object is named right."""


def parse(words: Sequence[str]) -> Command[Arguments]:
    """The command that the words ask for; raises UsageError or SettingError naming what is wrong with it."""
    own, trainer = split_words(words)
    arguments = command_line.parse(Arguments, own, prog=PROG, description=Arguments.__doc__)
    base = parse_trainer(trainer or ["shapes_base"])
    out = arguments.out.resolve()
    return Command(arguments, replace(base, name=out.name, out=out.parent))


def target_probabilities(group: Group, truth: jax.Array) -> jax.Array:
    """What a token is to say of a label: float [..., classes], of its class `truth`, int [...].

    Where classes are ordered, it and its neighbours, by a normal distribution of one class's width.
    """
    if group.ordered:
        return jax.nn.softmax(-jnp.square(jnp.arange(group.classes) - truth[..., None]) / 2)
    return jax.nn.one_hot(truth, group.classes)


def scaled(features: jax.Array) -> jax.Array:
    """Features of a mean square of 1, as the decoder reads them: else an update of the heads changes too much."""
    return features * jax.lax.rsqrt(jnp.mean(jnp.square(features), -1, keepdims=True) + 1e-6)


def token_loss(outputs: jax.Array, pictures: Pictures) -> tuple[jax.Array, jax.Array]:
    """The mean over visual tokens of their labels' divergences, and counts, float [len(GROUPS) + 1, 2].

    A label's divergence is that of the outputs from `target_probabilities`: their cross entropy, less its least value.

    `outputs` are float [n, R, P / 4, 2 x OUTPUTS]: of the merged tokens, then of each DeepStack feature. The counts are
    of the merged tokens: for each group of labels how many say something, and how many of those are named right; last
    the number of sides, and the sum of their errors as shares of the frame.
    """
    outputs = outputs.reshape(*outputs.shape[:-1], 2, OUTPUTS)
    known = jnp.any(pictures.labels != NOT_TOLD, axis=(-2, -1))
    loss, counts, sides, output = jnp.zeros(()), [], [], 0
    for name, group in GROUPS.items():
        truth = labels_of(pictures, name)
        width = group.count * group.classes
        logits = outputs[..., output : output + width].reshape(
            *outputs.shape[:-1], group.count, group.classes
        )
        output += width
        told = truth != NOT_TOLD
        targets = target_probabilities(group, jnp.where(told, truth, 0))
        loss += jnp.sum(told * optax.kl_divergence(jax.nn.log_softmax(logits), targets))
        says = told & (truth < group.classes - group.has_nothing)
        named = logits[0].argmax(-1)
        counts.append([jnp.sum(says), jnp.sum(says & (named == truth))])
        if name == "fiftieth":
            sides = [jnp.sum(says), jnp.sum(says * jnp.abs(named - truth)) / 50]
    return loss / (jnp.sum(known) * len(outputs)), jnp.array([*counts, sides], jnp.float32)


def pretrain(model: Qwen3VL, config: TrainConfig, processor: Processor, arguments: Arguments) -> nnx.State:
    """The tower's parameters after `heads_first` updates of the heads alone and `steps` of both; prints lines."""
    graphdef, tower = nnx.split(model.visual)
    count = 1 + len(config.model.deepstack_layers)
    heads = jnp.zeros((count, config.model.hidden_size, 2 * OUTPUTS))
    params: dict[str, Any] = {"visual": tower, "heads": heads}
    steps = arguments.heads_first + arguments.steps
    optimizer = make_optimizer(config.sft.optimizer, steps, train_vision=True)
    state = optimizer.init(params)
    bounds = {"image": processor.image_bounds, "video": processor.video_bounds}

    @partial(jax.jit, static_argnames="heads_alone")
    def update(
        params: dict[str, Any], state: Any, pictures: Pictures, heads_alone: bool
    ) -> tuple[Any, Any, jax.Array, jax.Array]:
        def loss(params: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
            visual = jax.lax.stop_gradient(params["visual"]) if heads_alone else params["visual"]
            merged, taps = nnx.merge(graphdef, visual)(pictures.vision)
            features = scaled(jnp.concatenate([merged[None], taps]))
            return token_loss(jnp.einsum("nrmd,ndo->nrmo", features, params["heads"]), pictures)

        (value, counts), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        changes, state = optimizer.update(gradients, state, params)
        moved: Any = optax.apply_updates(params, changes)
        return {**moved, "visual": params["visual"]} if heads_alone else moved, state, value, counts

    palette = CLASSES["colour"][: arguments.colours]

    def drawn(step: int) -> Pictures:
        return draw_batch(arguments.seed, step, arguments.rows, bounds, processor.grid_side, palette)

    began, total = time.perf_counter(), np.zeros((len(GROUPS) + 1, 2))
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(drawn, 0)
        for step in range(1, steps + 1):
            pictures, ahead = ahead.result(), pool.submit(drawn, step)
            heads_alone = step <= arguments.heads_first
            params, state, value, counts = update(params, state, pictures, heads_alone)
            total += np.asarray(counts)
            if step % arguments.log_every == 0 or step == steps:
                shares = (total[:, 1] / np.maximum(total[:, 0], 1)).round(3).tolist()
                named = dict(zip((*GROUPS, "side_error"), shares, strict=True))
                seconds = round(time.perf_counter() - began)
                say(json.dumps({"step": step, "loss": round(float(value), 4), **named, "seconds": seconds}))
                total[:] = 0
    return params["visual"]


def take_tower(model: Qwen3VL, source: Path) -> None:
    """The tower of `source` in place of the model's. Raises UserError where it is of another size."""
    tower = nnx.state(load_hf(source, dtype=jnp.float32).visual)
    own = nnx.state(model.visual)
    if jax.tree.map(jnp.shape, tower) != jax.tree.map(jnp.shape, own):
        raise UserError(f"{source}: its vision tower is of another size than the run's model")
    nnx.update(model.visual, tower)


def run(command: Command[Arguments]) -> None:
    """Data, tokenizer and fresh model as a run makes them; the tower is trained, the whole exported."""
    config = command.base
    hosts = join_hosts(config.hosts)
    begin(config, hosts)
    with open_log(config, hosts) as log:
        ready = prepare(config, hosts, log)
        with jax.set_mesh(ready.mesh):
            policy, params = first_policy(config, ready.mesh, log)
            model = nnx.merge(policy.graphdef, params)
            if command.arguments.tower is not None:
                take_tower(model, command.arguments.tower)
            tower = pretrain(model, config, ready.processor, command.arguments)
            nnx.update(model.visual, tower)
            export_model(model, config.folder.base, config.folder.model)
    say(f"Hugging Face directory: {config.folder.model}")


if __name__ == "__main__":
    sys.exit(command_line.main(parse, run, sys.argv[1:], prog=PROG))
