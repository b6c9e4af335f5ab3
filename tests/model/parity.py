"""The same inputs through our model and transformers', forwards and backwards, for every kind of input."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from safetensors.numpy import load_file

from onethinker_jax.model.hf_weights import save_hf
from onethinker_jax.model.inputs import ModelInputs
from onethinker_jax.model.qwen3_vl import Qwen3VL
from tests.model import tiny

VOCABULARY = tiny.BASE.text.vocab_size


@dataclass(frozen=True)
class Case:
    """Rows of examples for our model; transformers gets them padded in one batch, or one by one if packed."""

    packed: list[list[tiny.Sample]]
    left: bool = False

    @property
    def samples(self) -> list[tiny.Sample]:
        return [one for row in self.packed for one in row]

    def batches(self) -> list[list[tiny.Sample]]:
        """What transformers is given at once."""
        alone = all(len(row) == 1 for row in self.packed)
        return [self.samples] if alone else [[one] for one in self.samples]

    def places(self) -> list[tuple[int, slice]]:
        """Row and columns of each example in ours."""
        found = []
        for number, row in enumerate(self.packed):
            at = tiny.TOKENS - sum(len(one.tokens) for one in row) if self.left else 0
            for one in row:
                found.append((number, slice(at, at + len(one.tokens))))
                at += len(one.tokens)
        return found

    def directions(self) -> list[np.ndarray]:
        """Random linear functions of each example's logits, whose gradients are compared."""
        rng = np.random.default_rng(0)
        return [rng.normal(size=(len(one.tokens), VOCABULARY)).astype(np.float32) for one in self.samples]


_MIXED = [[tiny.example(kind)] for kind in ("one image", "video", "text")]
CASES = {
    **{kind: Case([[tiny.example(kind)]]) for kind in tiny.KINDS},
    "batch padded at the right": Case(_MIXED),
    "batch padded at the left": Case(_MIXED, left=True),
    "packed rows": Case(
        [
            [tiny.example("one image"), tiny.example("text"), tiny.example("one image", seed=1)],
            [tiny.example("video"), tiny.example("image and video")],
            [tiny.example("two images of different sizes")],
        ]
    ),
}


def our_inputs(case: Case, model: Qwen3VL) -> ModelInputs:
    return tiny.rows(case.packed, left=case.left, side=model.config.vision.grid_side)


def our_logits(run: Callable[[ModelInputs], np.ndarray], case: Case, model: Qwen3VL) -> list[np.ndarray]:
    """Float32 [T, V] of each example."""
    logits = run(our_inputs(case, model))
    return [logits[place] for place in case.places()]


def their_logits(hf: Any, case: Case) -> list[Any]:
    """The same of transformers, as torch tensors with their history."""
    found = []
    for batch in case.batches():
        logits = hf(**tiny.hf_inputs(batch, left=case.left)).logits.float()
        for row, one in enumerate(batch):
            length = len(one.tokens)
            found.append(logits[row, -length:] if case.left else logits[row, :length])
    return found


def gradient_function(model: Qwen3VL, scratch: Path) -> Callable[[Case], dict[str, np.ndarray]]:
    """case -> gradients in float32 under the checkpoint's names; one compilation for all cases."""
    graphdef, params = nnx.split(model)

    @jax.jit
    def gradients(params: nnx.State, inputs: ModelInputs, directions: jax.Array) -> nnx.State:
        def total(params: nnx.State) -> jax.Array:
            model = nnx.merge(graphdef, params)
            return (model.logits(model(inputs)) * directions).sum()

        return jax.grad(total)(params)

    def of(case: Case) -> dict[str, np.ndarray]:
        directions = np.zeros((tiny.ROWS, tiny.TOKENS, VOCABULARY), np.float32)
        for place, direction in zip(case.places(), case.directions(), strict=True):
            directions[place] = direction
        found = gradients(params, our_inputs(case, model), jnp.asarray(directions))
        save_hf(nnx.merge(graphdef, found), scratch / "gradients")
        tensors = load_file(scratch / "gradients" / "model.safetensors")
        return {name: array.astype(np.float32) for name, array in tensors.items()}

    return of


def their_gradients(hf: Any, case: Case) -> dict[str, np.ndarray]:
    """The same of transformers; a parameter without any is left out."""
    hf.zero_grad()
    pairs = zip(their_logits(hf, case), case.directions(), strict=True)
    torch.stack([(logits * torch.tensor(direction)).sum() for logits, direction in pairs]).sum().backward()
    found = {
        name: parameter.grad.float().numpy()
        for name, parameter in hf.named_parameters()
        if parameter.grad is not None
    }
    # transformers 5 turns the experts' matrices when it reads them
    return {name: array.swapaxes(1, 2) if ".experts." in name else array for name, array in found.items()}


def relative_errors(got: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> dict[str, float]:
    """|got - truth| / |truth| of every tensor; one whose truth is zero, or absent, must be zero."""
    errors = {}
    for name, array in got.items():
        true = truth.get(name, np.zeros_like(array))
        if name.endswith("attn.qkv.bias"):
            # A key bias shifts all of a query's scores alike: its true gradient is zero, only rounding is seen.
            size = len(array) // 3
            keep = np.r_[:size, 2 * size : 3 * size]
            array, true = array[keep], true[keep]
        norm = np.linalg.norm(true)
        errors[name] = float(np.linalg.norm(array - true) / norm) if norm else float(np.abs(array).max())
    return errors
