"""Writes the parity table of docs/model.md: `python -m tests.model.parity_table` from the repository's root.

Each kind of input, for a tiny dense and a tiny mixture-of-experts model: the largest absolute error of a
logit and the largest relative error of a tensor's gradient. In float32 the reference is transformers itself;
in bfloat16 both are compared with transformers in float32, all from weights rounded to bfloat16.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax.numpy as jnp
import numpy as np
import torch

from onethinker_jax.model.hf_weights import load_hf, save_hf
from tests.model import parity, tiny
from tests.model.conftest import open_in_transformers, runner
from tests.places import ROOT

DOCUMENT = ROOT / "docs" / "model.md"
BEGIN, END = "<!-- parity table: begin -->", "<!-- parity table: end -->"
MODELS = {"dense": "tied", "experts": tiny.MOE}
HEAD = (
    "| input | model | float32: logit | gradient | bfloat16: logit, ours | transformers' | gradient, ours "
    "| transformers' |",
    "|---|---|---|---|---|---|---|---|",
)


def their_errors(hf: Any, case: parity.Case, truth: tuple[list[np.ndarray], dict]) -> tuple[float, float]:
    logits = [found.detach().numpy() for found in parity.their_logits(hf, case)]
    return worst(logits, parity.their_gradients(hf, case), truth)


def worst(
    logits: list[np.ndarray], gradients: dict[str, np.ndarray], truth: tuple[list[np.ndarray], dict]
) -> tuple[float, float]:
    """Largest absolute logit error, largest relative gradient error."""
    logit_error = max(float(np.abs(x - y).max()) for x, y in zip(logits, truth[0], strict=True))
    return logit_error, max(parity.relative_errors(gradients, truth[1]).values())


def measure(name: str, dtype: Any, scratch: Path) -> dict[str, list[tuple[float, float]]]:
    """kind of input -> errors of ours, and in bfloat16 also of transformers'."""
    model = load_hf(tiny.write_checkpoint(tiny.CONFIGS[name], scratch / "formula"), dtype=dtype)
    save_hf(model, scratch / "model")
    reference = open_in_transformers(scratch / "model", torch.float32)
    other = open_in_transformers(scratch / "model", torch.bfloat16) if dtype == jnp.bfloat16 else None
    run, gradients = runner(model), parity.gradient_function(model, scratch)
    found = {}
    for kind, case in parity.CASES.items():
        logits = [one.detach().numpy() for one in parity.their_logits(reference, case)]
        truth = logits, parity.their_gradients(reference, case)
        found[kind] = [worst(parity.our_logits(run, case, model), gradients(case), truth)]
        if other is not None:
            found[kind].append(their_errors(other, case, truth))
    return found


def main() -> None:
    torch.set_num_threads(1)
    rows = {}
    for label, name in MODELS.items():
        for dtype in (jnp.float32, jnp.bfloat16):
            with tempfile.TemporaryDirectory() as scratch:
                for kind, errors in measure(name, dtype, Path(scratch)).items():
                    rows.setdefault((kind, label), []).extend(errors)
    lines = [*HEAD]
    for kind in parity.CASES:
        for label in MODELS:
            (logit, gradient), ours, theirs = rows[kind, label]
            half = f"{ours[0]:.2f} | {theirs[0]:.2f} | {ours[1]:.2f} | {theirs[1]:.2f}"
            lines.append(f"| {kind} | {label} | {logit:.1e} | {gradient:.1e} | {half} |")
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text("\n".join([before + BEGIN, *lines, END + after]))


if __name__ == "__main__":
    main()
