"""What readers of boxes read, how their boxes are compared, and that they learn from a tower that says the sides."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.box_readers import (
    CLASSES,
    FRAMES,
    SIDES,
    Arguments,
    first_params,
    overlaps,
    read_sides,
    reader_loss,
    run,
)
from experiments.visual_labels import NOT_TOLD


def test_an_object_s_box_is_the_median_of_its_tokens() -> None:
    """Two objects in the first frame, one of them in the second; a token of nothing counts for nothing."""
    one, other, nothing = [0, 0, 10, 10], [20, 20, 30, 40], [NOT_TOLD] * SIDES
    sides = np.array([[[one, one], [one, nothing], [one, nothing], [other, nothing], [nothing, nothing]]])
    found = sides.astype(float)
    assert overlaps(found, sides) == [1.0, 1.0, 1.0]
    found[0, 0, 0] = [40, 40, 50, 50]  # one token of three: the median stays
    found[0, 3, 0] = [20, 20, 30, 30]  # half of the other object
    found[0, 4] = 7.0
    assert overlaps(found, sides) == [1.0, 0.5, 1.0]


def test_readers_learn_what_tokens_say() -> None:
    """Of features that are the sides themselves, one number each, both readers find most of them in 300 updates."""
    rng = np.random.default_rng(0)
    plain = rng.integers(0, 3, size=(4, 16, FRAMES, SIDES))
    features = np.zeros((4, 16, 2, 24), np.float32)
    features[:, :, 0] = np.eye(3)[plain].reshape(4, 16, 24)
    sides = np.where(rng.random(plain.shape) < 0.2, NOT_TOLD, plain)
    params = first_params(2, 24)

    @jax.jit
    def step(params):
        loss, gradients = jax.value_and_grad(reader_loss)(params, jnp.asarray(features), jnp.asarray(sides))
        return jax.tree.map(lambda value, gradient: value - gradient, params, gradients), loss

    _, before = step(params)
    assert float(before) > np.log(CLASSES)
    for _ in range(300):
        params, loss = step(params)
    assert float(loss) < 0.5 * float(before)
    for logits in read_sides(params, jnp.asarray(features)).values():
        assert logits.shape == (4, 16, FRAMES, SIDES, CLASSES)
        told = sides != NOT_TOLD
        assert np.mean(np.asarray(logits.argmax(-1))[told] == sides[told]) > 0.9


@pytest.mark.parametrize("medium", ["image", "video"])
def test_a_line_a_reader(medium, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(Arguments(model, medium, steps=2, rows=2, test_batches=1))
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["reader"] for row in rows] == ["one layer", "two layers"]
    assert all(row["medium"] == medium and 0 <= row["overlap"] <= 1 for row in rows)
